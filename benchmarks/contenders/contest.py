"""The contest: every contender in turn on the same events, several times, each run checked; benchmarks/results.json.

A contender that cannot be made ready, fails, or writes other commands than those expected gets no number, and the reason
instead. Results are kept contender by contender, so that the contest can be ended at any time, and taken up again with
`--only`.
"""

import asyncio
import math
import shutil
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from aiokafka.errors import KafkaError
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.contenders import chart, cluster, latency, ours, results, run
from benchmarks.contenders.entrants import CONTENDERS, Contender, NotReady, Place
from benchmarks.contenders.expected import Fold
from benchmarks.contenders.work import BEGIN_AT, Given, events

EVENTS, FULL_EVENTS, USERS_PER_EVENT = 400_000, 4_000_000, 0.25  # in full: a million users
PARTITIONS = 24
FIXED_RATE, SHARES = 1_000.0, (0.5, 0.8)
LATENCY_WITHIN_SECONDS = 180.0  # half a minute of load, and starting, warming up and checking
# What a run may take: a minute to start and to stop, and half a millisecond an event.
STARTS_WITHIN_SECONDS, EVENT_WITHIN_SECONDS = 60.0, 0.0005


@dataclass(frozen=True, slots=True)
class Options:
    """`only`: names of contenders; all, if it is empty."""

    only: Sequence[str] = ()
    count: int = EVENTS
    repeats: int = 3
    latency: bool = True


def hold(options: Options) -> None:
    """Measure the contenders and print the table. Ends the program in one line if a name is unknown."""
    if unknown := set(options.only) - {contender.name for contender in CONTENDERS}:
        names = ", ".join(contender.name for contender in CONTENDERS)
        raise SystemExit(f"there is no contender {', '.join(sorted(unknown))}; there are {names}")
    chosen = [contender for contender in CONTENDERS if not options.only or contender.name in options.only]
    with (
        TemporaryDirectory(prefix="equeengage-contest-") as folder,
        cluster.running(Path(folder, "broker")) as bootstrap,
        progress_bars() as progress,
    ):
        contest = _Contest(Path(folder), bootstrap, options, progress)
        for contender in chosen:
            if asyncio.run(contest.measure(contender)) and contender.measures_latency and options.latency:
                asyncio.run(contest.measure_latency(contender))
    print(results.show())
    chart.draw(results.read())


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Yield what shows how far each task is, as long as the context lasts."""
    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"),
                  TimeElapsedColumn(), transient=False) as progress:  # fmt: skip
        yield progress


class _Contest:
    """One broker and what has been written to it so far."""

    def __init__(self, folder: Path, bootstrap: str, options: Options, progress: Progress) -> None:
        self.folder, self.bootstrap, self.options, self.progress = folder, bootstrap, options, progress
        self.written: dict[int, str] = {}  # topics by their number of events
        self.expected: dict[int, Fold] = {}

    async def measure(self, contender: Contender) -> bool:
        """Run one contender as often as asked for, keep what came of it, and return whether it did the work."""
        count = self.options.count // contender.share
        task = self.progress.add_task(contender.name, total=count * self.options.repeats)
        measured: list[run.Measured] = []
        reason = ""
        try:
            await asyncio.to_thread(contender.prepare)
            for number in range(self.options.repeats):
                self.progress.update(task, description=f"{contender.name} {number + 1}/{self.options.repeats}: writing")
                place = await self._place(contender, number, count)
                self.progress.update(task, description=f"{contender.name} {number + 1}/{self.options.repeats}")

                def tell(folded: int, before: int = number * count) -> None:
                    self.progress.update(task, completed=before + folded)

                patience = STARTS_WITHIN_SECONDS + count * contender.share * EVENT_WITHIN_SECONDS
                expected = self.expected[count].commands
                broker = self.folder / "broker"
                try:
                    measured.append(await run.drain(contender, place, count, expected, broker, patience, tell))
                finally:
                    await self._clear(place)
        except (NotReady, run.Failed) as failure:
            reason = str(failure)
        except KafkaError as failure:  # not the contender's: what is kept of it stays
            self.progress.update(task, description=f"{contender.name}: the contest has lost the broker: {failure}")
            return False
        done = count * (len(measured) if reason else self.options.repeats)
        self.progress.update(task, description=f"{contender.name}: {reason or 'done'}", completed=done)
        results.keep(_row(contender, count, measured, reason))
        return not reason

    async def measure_latency(self, contender: Contender) -> None:
        """Measure from event to command at a fixed rate, and at two shares of what it reached; keep that in its row."""
        row = next(row for row in results.read() if row["contender"] == contender.name)
        most = 1e6 / row["wall_us_per_event"]
        loads = [(latency.Load(FIXED_RATE, 5, 15), "1,000 ev/s")]
        loads += [(latency.Load(share * most, 4, 10), f"{share:.0%} of its maximum") for share in SHARES]
        task = self.progress.add_task(f"{contender.name}, latency", total=len(loads))
        kept: list[results.Row] = []
        for number, (load, named) in enumerate(loads):
            place = latency.place(contender, self.bootstrap, self.folder, f"latency-{number}", PARTITIONS)

            def tell(what: str, named: str = named) -> None:
                self.progress.update(task, description=f"{contender.name}, latency at {named}: {what}")

            found: results.Row = {"load": named, "rate_per_second": round(load.rate)}
            try:
                async with asyncio.timeout(LATENCY_WITHIN_SECONDS):
                    found |= await latency.measure(contender, place, load, tell)
            except (run.Failed, KafkaError) as failure:
                found["reason"] = str(failure)
            except TimeoutError:
                found["reason"] = f"it took more than {LATENCY_WITHIN_SECONDS:.0f} s"
            kept.append(found)
            await self._clear(place)
            self.progress.advance(task)
        self.progress.update(task, description=f"{contender.name}, latency: done")
        first: results.Row = {name: kept[0][name] for name in ("p50_ms", "p99_ms") if name in kept[0]}
        results.keep({**row, **first, "latency": kept})

    async def _place(self, contender: Contender, number: int, count: int) -> Place:
        """Return where a run is to happen, with the events written there."""
        app, data = f"{contender.name}-{number}", self.folder / f"{contender.name}-{number}"
        if contender.ours:
            place = ours.place(self.bootstrap, app, data, PARTITIONS)
            await cluster.create(self.bootstrap, [place.topic], PARTITIONS)
            await self._write(place.topic, count, ours.activations(ours.publication()))
            await ours.prepare(place, ours.publication())
            return place
        if count not in self.written:
            topic = f"events-{count}"
            await cluster.create(self.bootstrap, [topic], PARTITIONS)
            await self._write(topic, count)
            self.written[count] = topic
        place = Place(self.bootstrap, self.written[count], f"{app}-commands", app, data, PARTITIONS)
        await cluster.create(self.bootstrap, [place.commands], PARTITIONS)
        for suffix, configuration in contender.topics.items():
            await cluster.create(self.bootstrap, [f"{app}{suffix}"], PARTITIONS, **configuration)
        return place

    async def _clear(self, place: Place) -> None:
        """Leave nothing behind that the next run would share the broker and the disk with."""
        await cluster.remove(self.bootstrap, place.app)
        await asyncio.to_thread(shutil.rmtree, place.data, ignore_errors=True)

    async def _write(self, topic: str, count: int, head: Sequence[bytes] = ()) -> None:
        records: Iterator[Given] = events(count, int(count * USERS_PER_EVENT))
        if count not in self.expected:
            fold = self.expected[count] = Fold()
            records = fold.feed_passing(records)
        await cluster.write(self.bootstrap, topic, PARTITIONS, records, head, BEGIN_AT)


def _row(contender: Contender, count: int, measured: Sequence[run.Measured], reason: str) -> results.Row:
    row: results.Row = {"contender": contender.name, "mode": contender.mode, "events": count}
    try:
        row["versions"] = dict(contender.versions())
    except (OSError, LookupError):  # what isn't installed has no version
        row["versions"] = {}
    if reason:
        return {**row, "verified": False, "reason": reason}
    every = [asdict(each) for each in measured]
    values = {name: [each[name] for each in every if not math.isnan(each[name])] for name in every[0]}
    medians = {name: round(statistics.median(found), 2) for name, found in values.items() if found}
    ranges = {name: [round(min(found), 2), round(max(found), 2)] for name, found in values.items() if found}
    return {**row, "verified": True, "repeats": len(measured), **medians, "ranges": ranges}
