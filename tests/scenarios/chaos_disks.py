"""How a worker's disk fails: it is full, it may not be written to, or what is on it is not what was written.

Full and read-only are done with mounts, where we may mount; else with a limit on the size of files, and with permissions.
"""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

SMALL_DISK_BYTES = 96 << 20
GROWTH_LEFT_BYTES = 128 << 10  # for files, where the disk is not really full: soon a write-ahead log is larger
STRIPE_BYTES, STRIPE_EVERY_BYTES = 16, 2048  # rubbish in every block of a table


class SmallDisks:
    """File systems in memory that are data folders for the rest of a round. Used as a context: they go with it."""

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    def __enter__(self) -> "SmallDisks":
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._mounted:
            run("umount", "--lazy", str(path))

    def move(self, data: Path) -> bool:
        """Bring a folder that nobody uses onto a small disk; say whether that may be done here."""
        if data in self._mounted:
            return True
        before = data.with_suffix(".before")
        data.rename(before)
        data.mkdir()
        is_mounted = run("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "none", str(data))
        if is_mounted:
            self._mounted.append(data)
            shutil.copytree(before, data, dirs_exist_ok=True)
            shutil.rmtree(before)
        else:
            data.rmdir()
            before.rename(data)
        return is_mounted


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Write zeros to a small disk until it takes no more."""
    ballast = folder / "ballast"
    piece = bytes(64 << 10)
    try:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(piece) == len(piece):
                pass
        yield
    finally:
        ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def limited(pid: int, log: Path) -> Iterator[None]:
    """Let no file of a process grow far beyond the size of its log."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (log.stat().st_size + GROWTH_LEFT_BYTES, hard))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write to a folder that nobody uses."""
    if run("mount", "--bind", str(folder), str(folder)):
        try:
            assert run("mount", "-o", "remount,bind,ro", str(folder)), "what may be mounted may be mounted read-only"
            yield
        finally:
            run("umount", "--lazy", str(folder))
        return
    everything = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in everything}
    try:
        for path in everything:
            path.chmod(modes[path] & ~0o222)
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def damage(store: Path, chance: Random) -> str:
    """Do something to a file of a closed store; say what."""
    tables = sorted(store.glob("*.sst"), key=lambda path: path.stat().st_size)
    logs = [path for path in sorted(store.glob("*.log")) if path.stat().st_size > STRIPE_BYTES]
    ways = ["manifest", "CURRENT", *(["table"] * 4 if tables else []), *(["lost table"] if tables else [])]
    match chance.choice([*ways, *(["log"] * 2 if logs else [])]):
        case "table":
            stripe(tables[-1], chance)
            return "a table overwritten"
        case "lost table":
            chance.choice(tables).unlink()
            return "a table deleted"
        case "log":
            stripe(logs[-1], chance)
            return "a write-ahead log overwritten"
        case "CURRENT":
            (store / "CURRENT").write_bytes(chance.randbytes(16))
            return "CURRENT overwritten"
        case _:
            stripe(max(store.glob("MANIFEST-*")), chance)
            return "a manifest overwritten"


def stripe(path: Path, chance: Random) -> None:
    """Overwrite some bytes of every block."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        for begin in range(chance.randrange(STRIPE_BYTES), size, STRIPE_EVERY_BYTES):
            file.seek(begin)
            file.write(chance.randbytes(min(STRIPE_BYTES, size - begin)))


def run(*command: str) -> bool:
    """Run a command of the system; say whether it could be done."""
    if os.geteuid() != 0:
        return False
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except OSError:
        return False
