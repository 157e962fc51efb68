"""A worker's clock has no say: with one five minutes fast and one five minutes slow, everything comes when it must."""

from pathlib import Path
from random import Random

import pytest

from engine.runtime.settings import Kafka
from tests.scenarios.kafka_cluster import Load, Worker, publish, until
from tests.scenarios.tale import seed, write_journeys
from tests.verify.settling import verdict_within

OFF_SECONDS = 300.0
EVENTS = 200


@pytest.mark.kafka
@pytest.mark.chaos
async def test_workers_whose_clocks_are_ten_minutes_apart_come_to_the_same(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    settings = kafka_settings.model_copy(update={"partitions": 2})
    await publish(settings, write_journeys(tmp_path / "journeys"))
    workers = [Worker(settings, tmp_path / name) for name in ("fast", "slow")]
    load = Load(settings, Random(seed()))
    try:
        for worker, off_seconds in zip(workers, (OFF_SECONDS, -OFF_SECONDS), strict=True):
            worker.clock_off_seconds = off_seconds
            worker.start()
        await until(lambda: all(worker.lines("partition open") for worker in workers), "both work")
        enough = len(load.events) + EVENTS
        await until(lambda: len(load.events) > enough, "something has happened to both")
        await load.end()
        verdict = await verdict_within(settings, 45, [worker.data for worker in workers])
    finally:
        load.cancel()
        for worker in workers:
            worker.end()
    assert verdict.is_clean, verdict.table()
    assert not verdict.waiting
    assert verdict.commands() > 50
