"""How the CPU that an event takes on Kafka changes when something grows: worker processes, users, journeys, partitions.

Ours does the contest's work (`benchmarks/contenders/work.py`). From one base point one thing is changed at a time:

- worker processes: `equeengage worker --processes 2`; the CPU is that of all its processes together;
- users: from how many the same number of events is drawn, by Zipf(1.0); none has a state when a run begins;
- journeys: so many are published and active for each of the 20 tenants. One does the work, the others ask for events that
  don't come: what the documentation calls free, since journeys are found by the event's name;
- partitions: of all topics.

CPU is user and system time per event, from when all partitions are let go until the last command is committed. What it takes
to start, to share partitions among processes and to activate what is published is no event's, and would blur it. So each
partition stops twice at a gate, the activation of a journey whose definition is held back: once when it has activated all
others, and once more before its first event. Wall time would say nothing: broker, reader and worker share the cores.

Each round goes through all points, so that a machine that slows down does so for all of them. A point whose commands aren't
exactly the expected ones gets no figure, and the reason is printed.
"""

import asyncio
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from aiokafka.errors import KafkaError
from rich.progress import Progress, TaskID

from benchmarks.contenders import cluster, ours, run
from benchmarks.contenders.contest import EVENT_WITHIN_SECONDS, STARTS_WITHIN_SECONDS, progress_bars
from benchmarks.contenders.entrants import CONTENDERS, Place
from benchmarks.contenders.expected import Command, Fold
from benchmarks.contenders.processes import cpu_seconds
from benchmarks.contenders.work import BEGIN_AT, TENANTS, events
from benchmarks.figures import Figure
from engine import Exit, Journey, on
from engine.runtime.publish import Publication, plan

EVENTS = 200_000
OURS = next(contender for contender in CONTENDERS if contender.ours)
# Each, on each partition: far more than it takes.
ACTIVATED_WITHIN_SECONDS = 0.005
SINGULAR = {"processes": "process", "users": "user", "journeys": "journey", "partitions": "partition"}


def _gate(name: str) -> Publication:
    held_back = Journey(name=name, version=1, entry=on(name), start="done", steps={"done": Exit()})
    return plan(TENANTS[:1], [held_back], {}, ours.Nothing(), now=BEGIN_AT)


BEFORE_THE_EVENTS_ARE_WRITTEN, BEFORE_THE_EVENTS = _gate("first_gate"), _gate("second_gate")


@dataclass(frozen=True, slots=True)
class Point:
    """What one figure is measured with. `journeys`: of each tenant."""

    processes: int = 1
    users: int = 100_000
    journeys: int = 1
    partitions: int = 24

    @property
    def name(self) -> str:
        """What is different from the base point; all of it for the base point itself."""
        mine, base = asdict(self), asdict(BASE)
        shown = {what: number for what, number in mine.items() if number != base[what]} or mine
        said = [f"{number:,} {SINGULAR[what] if number == 1 else what}" for what, number in shown.items()]
        return ", ".join(said)


BASE = Point()
POINTS = (
    BASE,
    replace(BASE, processes=2),
    replace(BASE, users=10_000),
    replace(BASE, users=1_000_000),
    replace(BASE, journeys=100),
    replace(BASE, journeys=1_000),
    replace(BASE, partitions=4),
)


def measure(count: int, repeats: int, points: Sequence[Point] = POINTS) -> list[Figure]:
    """Return the CPU per event at each point, with so many events; those that failed are left out, and why is printed."""
    with (
        TemporaryDirectory(prefix="equeengage-bench-") as folder,
        cluster.running(Path(folder, "broker")) as bootstrap,
        progress_bars() as progress,
    ):
        scaling = Scaling(Path(folder), bootstrap, count, repeats, progress)
        asyncio.run(scaling.measure(points))
    for point, reason in scaling.failed.items():
        print(f"{point.name}: no figure, {reason}")
    return scaling.figures()


class Scaling:
    """What has come of the points so far, on one broker."""

    def __init__(self, folder: Path, bootstrap: str, count: int, repeats: int, progress: Progress) -> None:
        self.folder, self.bootstrap, self.progress = folder, bootstrap, progress
        self.count, self.repeats = count, repeats
        self.expected: dict[int, Counter[Command]] = {}  # by the number of users
        self.found: dict[Point, list[float]] = {}
        self.failed: dict[Point, str] = {}

    def figures(self) -> list[Figure]:
        """What is measured of the points that have not failed."""
        return [
            Figure(f"CPU per event, {point.name}", "us", found)
            for point, found in self.found.items()
            if point not in self.failed
        ]

    async def measure(self, points: Sequence[Point]) -> None:
        """Measure each point in each round, unless it has failed before."""
        self.found = {point: [] for point in points}
        tasks = {point: self.progress.add_task(point.name, total=self.count * self.repeats) for point in points}
        for number in range(self.repeats):
            for at, (point, task) in enumerate(tasks.items()):
                if point not in self.failed:
                    await self._round(point, task, number, f"scaling-{at}-{number}")

    async def _round(self, point: Point, task: TaskID, number: int, app: str) -> None:
        named = f"{point.name}, {number + 1}/{self.repeats}"
        place = ours.place(self.bootstrap, app, self.folder / app, point.partitions)

        def tell(doing: str, folded: int = 0) -> None:
            self.progress.update(task, description=f"{named}: {doing}", completed=number * self.count + folded)

        try:
            try:
                self.found[point].append(await self._cpu_per_event(point, place, tell))
            finally:
                await cluster.remove(self.bootstrap, app)
                await asyncio.to_thread(shutil.rmtree, place.data, ignore_errors=True)
        except (run.Failed, KafkaError) as failure:
            self.failed[point] = str(failure) or repr(failure)
            self.progress.update(task, description=f"{point.name}: failed")
        else:
            tell("done", self.count)

    async def _cpu_per_event(self, point: Point, place: Place, tell: Callable[..., None]) -> float:
        """Return it in us. Raises run.Failed if the commands aren't the expected ones."""
        tell("publishing")
        published = ours.publication(point.journeys - 1)
        head = ours.activations(published) + ours.activations(BEFORE_THE_EVENTS_ARE_WRITTEN)
        await cluster.create(place.bootstrap, [place.topic], place.partitions)
        await cluster.write(place.bootstrap, place.topic, place.partitions, [], head, BEGIN_AT)
        await ours.prepare(place, published)
        contender = replace(OURS, processes=point.processes, log_level="info")
        async with (
            cluster.Commands(place.bootstrap, place.commands, place.partitions) as commands,
            run.started(contender, place) as running,
        ):
            worker = _Worker(running, point)
            tell("activating")
            activations = len(published.activations) * point.partitions
            await worker.stand_at(BEFORE_THE_EVENTS_ARE_WRITTEN, activations * ACTIVATED_WITHIN_SECONDS)
            await ours.publish(place, BEFORE_THE_EVENTS_ARE_WRITTEN)
            tell("writing events")
            expected = await self._write(point, place)
            await worker.stand_at(BEFORE_THE_EVENTS)
            spent = cpu_seconds(running.process.pid)
            await ours.publish(place, BEFORE_THE_EVENTS)

            def is_done() -> bool:
                tell("working", running.folded)
                return running.folded >= self.count and commands.found.total() >= expected.total()

            await worker.until(is_done, "not everything was done", self.count * EVENT_WITHIN_SECONDS)
            spent = cpu_seconds(running.process.pid) - spent
            await commands.to_the_end()
        run.compare(commands.found, expected)
        return spent * 1e6 / self.count

    async def _write(self, point: Point, place: Place) -> Counter[Command]:
        """Write the events, with their own time, behind the gate before them, and return the commands they ask for."""
        fold, records = Fold(), events(self.count, point.users)
        if point.users not in self.expected:
            records = fold.feed_passing(records)
        await cluster.stamp_from_now_on(place.bootstrap, place.topic, "CreateTime")
        gate = ours.activations(BEFORE_THE_EVENTS)
        await cluster.write(place.bootstrap, place.topic, place.partitions, records, gate, BEGIN_AT)
        await cluster.stamp_from_now_on(place.bootstrap, place.topic)
        return self.expected.setdefault(point.users, fold.commands)


class _Worker:
    """The worker of one run, whom we wait for."""

    def __init__(self, running: run.Running, point: Point) -> None:
        self._running, self._point = running, point

    async def stand_at(self, gate: Publication, longer_seconds: float = 0.0) -> None:
        """Return when every process has partitions, and all of these wait for the gate's definition."""
        key = gate.definitions[-1].key

        def all_wait() -> bool:
            return len(waiting(self._running.log.read_text(errors="replace"), key)) == self._point.partitions

        await self.until(all_wait, "not all partitions had come to the events", longer_seconds)
        await self.until(self._has_shared, "not every process had partitions")

    def _has_shared(self) -> bool:
        owned = ours.owned(self._running.port, self._point.processes)
        return all(owned) and sum(owned) == self._point.partitions

    async def until(self, holds: Callable[[], bool], otherwise: str, longer_seconds: float = 0.0) -> None:
        """Raises run.Failed if that takes longer than a minute and the time given, or the worker ends."""
        began = time.monotonic()
        while not holds():
            self._running.check()
            if time.monotonic() > began + STARTS_WITHIN_SECONDS + longer_seconds:
                raise run.Failed(
                    f"{otherwise} after {time.monotonic() - began:.0f} s, {self._running.folded:,} events folded"
                )
            await asyncio.sleep(run.LOOKS_EVERY_SECONDS)


def waiting(log: str, key: str) -> set[int]:
    """Return the partitions that have said in a worker's log that they wait for the definition."""
    whole = log.rpartition("\n")[0].splitlines()  # the last line may still be being written
    lines = [json.loads(line) for line in whole if '"waiting for a definition"' in line]
    return {line["partition"] for line in lines if line["definition"] == key}
