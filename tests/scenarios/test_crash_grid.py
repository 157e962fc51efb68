"""A worker dies at every step of its loop, in its first batch and under load, alone and with a standby; nobody can tell.

Each case is a test: the worker dies once and is started again, one journey of events goes on all the while, and then topics
and stores are compared with what the events say, see `tests/verify`. With a standby, both workers stand by for each other,
and whoever is left goes on before the dead one is back.

`make test` runs one case of each point; all of them are `make grid`.
"""

import shutil
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path
from random import Random

import pytest

from engine.runtime.crash_points import EXIT_CODE, POINTS
from engine.runtime.settings import Kafka
from tests.scenarios.kafka_cluster import Load, Worker, publish, until
from tests.scenarios.tale import seed, write_journeys
from tests.verify.rows import Verdict
from tests.verify.settling import verdict_within

PARTITIONS = 2
# The n-th time is "mid-load"; else MID_LOAD. Alone it recovers two partitions; beside another one, a partition once.
LATER = {("assigned", False): 1, ("assigned", True): 2, ("recovering", False): 2, ("recovering", True): 1}
LATER |= {("taken over", True): 1}
MID_LOAD = 8
NEED_STANDBY = ("standing by", "taken over")
TORN_BYTES = 7


@dataclass(frozen=True)
class Case:
    """Where it dies, when, and whether it has a standby."""

    point: str
    is_mid_load: bool
    standby: bool

    def __str__(self) -> str:
        moment = "mid-load" if self.is_mid_load else "first"
        return f"{self.point.replace(' ', '-')}-{moment}-{'with' if self.standby else 'without'}-standby"

    @property
    def times(self) -> int:
        return LATER.get((self.point, self.standby), MID_LOAD) if self.is_mid_load else 1

    @property
    def armed(self) -> str:
        return f"{self.point}:{self.times}"


def cases() -> list[Case]:
    """All there are, less those where "mid-load" would be the first time again."""
    every = [Case(*each) for each in product(POINTS, (False, True), (False, True))]
    possible = [case for case in every if case.standby or case.point not in NEED_STANDBY]
    return [case for case in possible if not case.is_mid_load or case.times > 1]


def sample() -> set[Case]:
    """One case of each point, half of them with a standby. The seed is fixed: all processes that share the tests agree."""
    chance, standby = Random(4), cycle((True, False, False))
    chosen = set()
    for point in POINTS:
        wanted = point in NEED_STANDBY or next(standby)
        chosen.add(chance.choice([case for case in cases() if case.point == point and case.standby == wanted]))
    return chosen


SAMPLE = sample()


@pytest.mark.kafka
@pytest.mark.chaos
@pytest.mark.parametrize(
    "case", [pytest.param(case, id=str(case), marks=[] if case in SAMPLE else pytest.mark.slow) for case in cases()]
)
async def test_a_worker_dies_here_and_nobody_can_tell_from_what_was_written(
    kafka_settings: Kafka, tmp_path: Path, case: Case
) -> None:
    settings = kafka_settings.model_copy(update={"partitions": PARTITIONS, "standby": case.standby})
    await publish(settings, write_journeys(tmp_path / "journeys"))
    worker, other = Worker(settings, tmp_path / "one"), Worker(settings, tmp_path / "two")
    load = Load(settings, Random(seed()))
    workers = [worker, other] if case.standby else [worker]
    try:
        await (_die_beside_a_standby(worker, other, case) if case.standby else _die_alone(worker, case))
        if case.point == "writing":
            tear_the_last_write(worker.data)
        for each in workers:
            if each.exit_code() is not None:
                each.start()
    finally:
        await load.end()
    try:
        verdict = await verdict_within(settings, 60, [each.data for each in workers])
    finally:
        for each in workers:
            each.end()
    check(verdict, workers)


async def _die_alone(worker: Worker, case: Case) -> None:
    if case.point == "recovering":
        await _write_something_to_recover(worker)
        shutil.rmtree(worker.data / "worker-0" / "users")
    worker.start(case.armed)
    await _has_died(worker, case)


async def _die_beside_a_standby(worker: Worker, other: Worker, case: Case) -> None:
    """Each owns a partition and stands by for the other's, until one is dead; then the other has both."""
    if case.point == "recovering":
        await _write_something_to_recover(other)
    if case.point == "assigned" and case.is_mid_load:  # for the second time when the other joins
        worker.start(case.armed)
        await until(lambda: worker.assignments() > 0, "it owns both")
        other.start()
    else:
        other.start()
        await until(lambda: other.assignments() > 0, "the other owns both")
        worker.start(case.armed)
    if case.point == "taken over":
        stores = [worker.data / "worker-0" / "users" / str(number) / "CURRENT" for number in range(PARTITIONS)]
        await until(lambda: all(store.exists() for store in stores), "it stands by")
        other.kill()
    assignments = other.assignments()
    await _has_died(worker, case)
    if other.exit_code() is None:
        await until(lambda: other.assignments() > assignments, "the other has taken over")
        await until(lambda: other.lines("partitions assigned")[-1]["partitions"] == [0, 1], "the other owns both again")


async def _write_something_to_recover(worker: Worker) -> None:
    worker.start("folded:20")
    await until(lambda: worker.exit_code() is not None, "it has written something to recover")


async def _has_died(worker: Worker, case: Case) -> None:
    await until(lambda: worker.exit_code() is not None, f"it dies at {case}")
    assert worker.exit_code() == EXIT_CODE, worker.said()[-3000:]


def check(verdict: Verdict, workers: list[Worker]) -> None:
    print(verdict.table())
    assert verdict.is_clean, "\n---\n".join(worker.said()[-3000:] for worker in workers)
    assert not verdict.waiting
    assert verdict.commands() > 50
    stores = [row.name for row in verdict.rows if row.name.startswith("store ")]
    assert len(stores) == PARTITIONS * len(workers), "with a standby, both have a store of each partition"


def tear_the_last_write(data: Path) -> None:
    """Cut off the end of what each store has logged, as if the machine had died in the middle of writing it."""
    for store in (data / "worker-0" / "users").iterdir():
        log = max(store.glob("*.log"))
        size = log.stat().st_size
        with log.open("r+b") as file:
            file.truncate(max(0, size - TORN_BYTES))


def test_every_point_is_in_the_grid_and_once_in_the_sample() -> None:
    assert {case.point for case in cases()} == set(POINTS)
    assert sorted(case.point for case in SAMPLE) == sorted(POINTS)
    assert sum(case.standby for case in SAMPLE) == len(POINTS) // 2
    assert set(cases()) > SAMPLE
