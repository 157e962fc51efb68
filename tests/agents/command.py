"""How tests run the command line: as a process of its own, without this one's settings."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

COMMAND = Path(sys.executable).with_name("equeengage")
PATIENCE_SECONDS = 30.0  # a loaded machine with one core is slow, not broken


def environment(**settings: str) -> dict[str, str]:
    """Return an environment in which only these settings are set; no terminal, so that output is plain."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EQUEENGAGE_")}
    return {**clean, "COLUMNS": "120", "TERM": "dumb", "TZ": "UTC", **settings}


def equeengage(*arguments: object, cwd: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a folder if one is given."""
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS * 3,
        env=environment(**settings),
        cwd=cwd,
    )


class Serving:
    """A command that runs. `said` is what it printed so far."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self.process = process
        self.output = output

    @property
    def said(self) -> str:
        return self.output.read_text("utf-8")

    @property
    def url(self) -> str:
        return self.place_of("HTTP")

    def place_of(self, what: str) -> str:
        """Return what it said behind a word at the beginning of a line."""
        return next(line.split()[1] for line in self.said.splitlines() if line.startswith(f"{what} "))

    def wait_for(self, text: str) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while text not in self.said:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.said}"
            assert time.monotonic() < until, f"{text!r} was not said in {PATIENCE_SECONDS:g} s: {self.said}"
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ask it to stop, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


def serving(folder: Path, *arguments: object, **settings: str) -> AbstractContextManager[Serving]:
    """Run `equeengage serve` until the context ends."""
    return started(folder, "serve", *arguments, ready="ready", **settings)


@contextmanager
def started(folder: Path, *arguments: object, ready: str, **settings: str) -> Iterator[Serving]:
    """Run a command until the context ends, at the latest; what it prints is kept in the folder. Waits for `ready`."""
    output = folder / f"said-{time.monotonic_ns()}.log"
    with (
        output.open("w") as file,
        subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(**settings),
        ) as process,
    ):
        try:
            running = Serving(process, output)
            running.wait_for(ready)
            yield running
        finally:
            if process.poll() is None:
                process.kill()
