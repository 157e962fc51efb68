"""How far a partition is behind, as the metrics tell it: also of one that has never folded anything."""

import asyncio
from pathlib import Path

import pytest

from engine.runtime.host import PartitionHost
from engine.runtime.kafka import partitions, topics
from engine.runtime.kafka.appender import Appender
from engine.runtime.kafka.partitioner import partition_of
from engine.runtime.kafka.partitions import Partitions, Work
from engine.runtime.kafka.wake_ups import BrokerClock
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka
from tests.kafka.cluster import delete_all_records, produce, until
from tests.kafka.counting import count_events

pytestmark = pytest.mark.kafka
ANN = b"acme:ann"


@pytest.fixture(autouse=True)
def told_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "HINTS_EVERY_SECONDS", 0.2)


async def hang(host: PartitionHost) -> None:
    """A loop that takes records and never comes to an end with them."""
    await host.poll(1000, 10.0)
    await asyncio.Event().wait()


async def lag_becomes(settings: Kafka, directory: Path, work: Work, expected: float, through: int = -1) -> None:
    """Run a worker until ann's partition is folded through an offset, and the metrics say this lag."""
    metrics, clock = Metrics(), BrokerClock()
    appender = Appender(settings, clock.learn_append)
    await appender.start()
    owned = Partitions(settings, work, appender, clock, metrics, directory)
    number = partition_of(ANN, settings.partitions)
    labels = {"topic": "events", "partition": str(number)}

    async def holds() -> bool:
        lag = metrics.registry.get_sample_value("equeengage_lag_records", labels)
        return lag == expected and owned._owned[number].through == through

    try:
        await owned.start()
        try:
            await until(holds, f"the lag is {expected:g}")
        finally:
            await owned.stop()
    finally:
        await appender.close()


async def test_a_loop_that_hangs_on_its_first_records_is_seen_to_be_behind(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, [ANN] * 100)
    await lag_becomes(kafka_settings, tmp_path, Work("events", "users", hang), 100)


async def test_who_has_folded_everything_is_not_behind_and_markers_of_transactions_are_no_work(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, [ANN] * 100)
    await lag_becomes(kafka_settings, tmp_path, Work("events", "users", count_events), 0, through=99)


async def test_records_that_retention_took_before_anybody_read_them_are_no_work(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, [ANN] * 100)
    await delete_all_records(kafka_settings, "events")
    await produce(kafka_settings, [ANN] * 5)
    await lag_becomes(kafka_settings, tmp_path, Work("events", "users", hang), 5)
