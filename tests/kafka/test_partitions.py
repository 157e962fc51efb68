"""A worker owns partitions, folds what is in them, and finds everything again."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.runtime.host import PartitionHost
from engine.runtime.kafka import topics
from engine.runtime.kafka.appender import Appender
from engine.runtime.kafka.partitions import Partitions, Work
from engine.runtime.kafka.wake_ups import BrokerClock
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka
from tests.kafka.cluster import messages, produce, states, until
from tests.kafka.counting import count_events, expected

pytestmark = pytest.mark.kafka
Loop = Callable[[PartitionHost], Awaitable[None]]
KEYS = [b"acme:user-%d" % (number % 50) for number in range(2000)]


@asynccontextmanager
async def worker(
    settings: Kafka, directory: Path, run: Loop = count_events, member: str | None = None
) -> AsyncIterator[Partitions]:
    """A worker in this process."""
    clock = BrokerClock()
    appender = Appender(settings, clock.learn_append)
    await appender.start()
    partitions = Partitions(
        settings, Work("events", "users", run), appender, clock, Metrics(), directory, member=member
    )
    try:
        await partitions.start()
        try:
            yield partitions
        finally:
            await partitions.stop()
    finally:
        await appender.close()


async def all_is_as_expected(settings: Kafka, keys: list[bytes]) -> None:
    """Wait until every event is folded; then nothing may be lost, and nothing doubled."""
    counts, sent = expected(keys)

    async def holds() -> bool:
        return await states(settings) == counts

    await until(holds, "every user has counted every event")
    assert await messages(settings) == sent


async def test_events_of_a_plain_producer_are_each_folded_once(kafka_settings: Kafka, tmp_path: Path) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path):
        await all_is_as_expected(kafka_settings, KEYS)
