"""A worker dies at every step of its loop, in its first batch and under load; the verifier finds everything as it must be.

Each point is a test: the worker dies there twice and is started again, one journey of events goes on all the while, and then
topics and store are compared with what the events say, see `tests/verify`.
"""

import shutil
from pathlib import Path
from random import Random

import pytest

from engine.runtime.crash_points import EXIT_CODE, POINTS
from engine.runtime.settings import Kafka
from tests.scenarios.kafka_cluster import Load, Worker, publish, until
from tests.scenarios.tale import seed, write_journeys
from tests.verify.settling import verdict_within

PARTITIONS = 2
LATER = {"assigned": 1, "recovering": 2}  # the n-th time; else MID_LOAD
MID_LOAD = 8
TORN_BYTES = 7


@pytest.mark.kafka
@pytest.mark.chaos
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.replace(" ", "-"))
async def test_a_worker_dies_here_twice_and_nobody_can_tell_from_what_it_wrote(
    kafka_settings: Kafka, tmp_path: Path, point: str
) -> None:
    settings = kafka_settings.model_copy(update={"partitions": PARTITIONS})
    await publish(settings, write_journeys(tmp_path / "journeys"))
    worker = Worker(settings, tmp_path / "one")
    load = Load(settings, Random(seed()))
    try:
        if point == "recovering":
            worker.start("folded:20")
            await until(lambda: worker.exit_code() is not None, "it has written something to recover")
        for times in (1, LATER.get(point, MID_LOAD)):
            if point == "recovering":
                shutil.rmtree(worker.data / "worker-0" / "users")
            worker.start(f"{point}:{times}")
            await until(lambda: worker.exit_code() is not None, f"it dies at {point}:{times}")
            assert worker.exit_code() == EXIT_CODE, worker.said()[-3000:]
            if point == "writing":
                tear_the_last_write(worker.data)
        worker.start()
    finally:
        await load.end()
    try:
        verdict = await verdict_within(settings, 45, [worker.data])
    finally:
        worker.end()
    print(verdict.table())
    assert verdict.is_clean, worker.said()[-3000:]
    assert not verdict.waiting
    assert verdict.commands() > 50
    assert [row.name for row in verdict.rows if row.name.startswith("store ")]


def tear_the_last_write(data: Path) -> None:
    """Cut off the end of what each store has logged, as if the machine had died in the middle of writing it."""
    for store in (data / "worker-0" / "users").iterdir():
        log = max(store.glob("*.log"))
        size = log.stat().st_size
        with log.open("r+b") as file:
            file.truncate(max(0, size - TORN_BYTES))
