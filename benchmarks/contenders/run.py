"""One run of one contender: it is started, watched until it has done the work, ended, and what it wrote is checked."""

import asyncio
import contextlib
import ctypes
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contenders import cluster, ours
from benchmarks.contenders.entrants import ROOT, Contender, Place, environment
from benchmarks.contenders.expected import Command
from benchmarks.figures import cpu_seconds

LOOKS_EVERY_SECONDS = 0.1
ASKS_OUR_METRICS_EVERY_SECONDS = 1.0  # they cost the worker some milliseconds each time
BEGINS_WITHIN_SECONDS, STOPS_WITHIN_SECONDS = 60.0, 30.0


class Failed(Exception):  # noqa: N818 - says what is the case
    """A contender did not do the work; the message says what was wrong. It gets no number."""


@dataclass(slots=True)
class Running:
    """A contender at work: `folded` events, as far as it has told us."""

    process: asyncio.subprocess.Process
    log: Path
    port: int  # of the metrics of ours; more processes than one have those that follow
    folded: int = 0
    samples: list[tuple[float, float, int]] = field(default_factory=list)  # (clock, CPU seconds, folded)

    def sample(self, folded: int) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(OSError):  # it has ended just now
                self.samples.append((time.perf_counter(), cpu_seconds(self.process.pid), folded))
                self.folded = folded

    def check(self) -> None:
        """Raise Failed if it has ended by itself."""
        if self.process.returncode is not None:
            said = self.log.read_text(errors="replace").strip().splitlines()
            raise Failed(f"it ended with {self.process.returncode}: {' | '.join(said[-3:])[-400:]}")

    def peak_bytes(self) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@asynccontextmanager
async def started(contender: Contender, place: Place) -> AsyncIterator[Running]:
    """Run a contender on its place as long as the context lasts; then it gets SIGTERM, and in the end SIGKILL."""
    place.data.mkdir(parents=True, exist_ok=True)
    log = place.data.with_suffix(".log")
    port = _free_port(contender.processes)
    command = ours.command(place, port, contender.processes) if contender.ours else list(contender.command(place))
    settings = ours.settings(place, contender.log_level) if contender.ours else environment()
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *command, env=dict(settings), cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stderr=out,
            stdout=asyncio.subprocess.DEVNULL if contender.ours else asyncio.subprocess.PIPE,
            preexec_fn=_end_with_parent, start_new_session=True,
        )  # fmt: skip
    running = Running(process, log, port)
    asking = _ask(running, contender.processes) if contender.ours else _listen(running)
    listening = asyncio.ensure_future(asking)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOPS_WITHIN_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when the contest dies (PR_SET_PDEATHSIG, 1), however it does: Ctrl-C reaches the contest only."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)


async def _listen(running: Running) -> None:
    """Each line that a peer prints says how many events it has folded; its last lines may be anything."""
    assert running.process.stdout is not None
    async for line in running.process.stdout:
        if line.strip().isdigit():
            running.sample(int(line))


async def _ask(running: Running, processes: int) -> None:
    while True:
        running.sample(await asyncio.to_thread(ours.folded, running.port, processes))
        await asyncio.sleep(ASKS_OUR_METRICS_EVERY_SECONDS)


def _free_port(count: int) -> int:
    """Return the first of so many free ports in a row."""
    while True:
        with contextlib.ExitStack() as bound, contextlib.suppress(OSError, OverflowError):  # the next one is taken
            port = 0
            for number in range(count):
                free = bound.enter_context(socket.socket())
                free.bind(("127.0.0.1", port and port + number))
                port = port or free.getsockname()[1]
            return port


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run took. `warm`: CPU per event of the second half alone."""

    cpu_us_per_event: float
    cpu_us_per_event_warm: float
    wall_us_per_event: float
    rss_mb: float
    kafka_bytes_per_event: float


async def drain(
    contender: Contender, place: Place, count: int, expected: Counter[Command], broker: Path, patience_seconds: float,
    tell: Callable[[int], None],
) -> Measured:  # fmt: skip
    """Let a contender work through `count` events that wait for it. Raises Failed if its commands aren't the expected ones."""
    before = cluster.written_bytes(broker, place.app)
    began = time.monotonic()
    deadline = began + patience_seconds
    async with cluster.Commands(place.bootstrap, place.commands, place.partitions) as commands:
        async with started(contender, place) as running:
            while running.folded < count or commands.found.total() < expected.total():
                running.check()
                if time.monotonic() > (deadline if running.folded else min(deadline, began + BEGINS_WITHIN_SECONDS)):
                    done = f"{running.folded:,} of {count:,} events, {commands.found.total():,} of {expected.total():,}"
                    raise Failed(f"after {time.monotonic() - began:.0f} s it was at {done} commands")
                tell(running.folded)
                await asyncio.sleep(LOOKS_EVERY_SECONDS)
            running.sample(count)
            done_at = running.samples[-1][0]
            await asyncio.sleep(contender.settles_seconds)
            running.check()
            running.samples.append((done_at, cpu_seconds(running.process.pid), count))
            peak = running.peak_bytes()
            written = cluster.written_bytes(broker, place.app) - before
            samples = running.samples
        await commands.to_the_end()
        compare(commands.found, expected)
    return _sum_up(samples, count, peak, written)


def compare(found: Counter[Command], expected: Counter[Command]) -> None:
    """Raise Failed unless both are the same."""
    if found != expected:
        lost, many = expected - found, found - expected
        doubled = sum(number for command, number in many.items() if command in expected)
        phantom = many.total() - doubled
        raise Failed(f"{expected.total():,} commands: {lost.total():,} lost, {doubled:,} doubled, {phantom:,} phantom")


def _sum_up(samples: list[tuple[float, float, int]], count: int, peak: int, written: int) -> Measured:
    """Count from the first time it was seen at work: what it needs to start is not what an event needs."""
    end = samples[-1]
    begin = next(sample for sample in samples if sample[2] > 0)
    half = next(sample for sample in samples if sample[2] >= count / 2)
    if begin[2] >= count / 2:
        raise Failed("it was done before it could be watched; give it more events")

    def per_event(what: int, since: tuple[float, float, int]) -> float:
        return (end[what] - since[what]) * 1e6 / max(1, count - since[2])

    warm = per_event(1, half) if half[2] < count * 0.9 else float("nan")
    return Measured(per_event(1, begin), warm, per_event(0, begin), peak / 1e6, written / count)
