"""Delivery on Kafka: the same discipline, with the broker's log and changelog under it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from agents.channels.delivery import ChannelPartition
from agents.channels.pacing import Pace
from engine.errors import TemporaryFailure
from engine.runtime.host import PartitionHost
from engine.runtime.kafka import topics
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.kafka.partitions import Work
from engine.runtime.kafka.process import Tables, owning_partitions
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka
from schemas.inputs import Receipt
from schemas.outputs import Message, Suppression
from schemas.records import NewRecord
from tests.channels.stage import HELLO, HOUR, Provider, command
from tests.kafka.cluster import read_topic, until

pytestmark = pytest.mark.kafka


def now() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def worker(settings: Kafka, provider: Provider, directory: Path) -> AsyncIterator[None]:
    """A channel worker in this process."""
    metrics, pace = Metrics(), Pace(provider.concurrency, 10_000)

    @asynccontextmanager
    async def open_work(tables: Tables) -> AsyncIterator[Work]:
        async def run(host: PartitionHost) -> None:
            timeout = settings.session_timeout_seconds
            await ChannelPartition(
                host, provider, tables.definitions, tables.suppressions, metrics, pace, now,
                session_timeout_seconds=timeout,
            ).run()  # fmt: skip

        yield Work("messages.email", "email", run)

    async with owning_partitions(settings, open_work, metrics, directory, reads_suppressions=True):
        yield


async def ask(log: KafkaLog, *messages: Message) -> None:
    await log.append(
        [
            NewRecord("messages.email", f"{message.tenant}:{message.user}".encode(), msgspec.json.encode(message))
            for message in messages
        ]
    )


async def receipts(settings: Kafka) -> list[tuple[str, str]]:
    records = await read_topic(settings, f"{settings.prefix}.events")
    found = [msgspec.json.decode(record.value, type=Receipt) for record in records]
    return [(receipt.message, receipt.status) for receipt in found]


@asynccontextmanager
async def cluster(settings: Kafka) -> AsyncIterator[KafkaLog]:
    await topics.create(settings)
    log = KafkaLog(settings)
    await log.start()
    try:
        await log.append([NewRecord("definitions", HELLO.key.encode(), msgspec.json.encode(HELLO))])
        yield log
    finally:
        await log.stop()


async def test_what_was_seen_and_what_waits_survives_a_lost_data_folder(kafka_settings: Kafka, tmp_path: Path) -> None:
    settings, provider = kafka_settings, Provider()
    provider.answer = lambda message: (
        TemporaryFailure("busy") if message.id == "r1:1" and provider.calls.count("r1:1") == 1 else None
    )
    orders = [command(number, requested_at=now(), expires_at=now() + HOUR) for number in range(1, 41)]
    async with cluster(settings) as log:
        suppressed = msgspec.json.encode(Suppression("all", now()))
        await log.append([NewRecord("suppressions", b"shop:email:all:u40@example.com", suppressed)])
        async with worker(settings, provider, tmp_path / "one"):
            await ask(log, orders[0])
            await until(lambda: _holds(provider.calls == ["r1:1"]), "the first try")
            await ask(log, *orders[1:20], orders[0])
            await until(lambda: _count(settings, 19), "19 receipts")
        async with worker(settings, provider, tmp_path / "two"):
            await ask(log, *orders)
            await until(lambda: _count(settings, 40), "all receipts")
        assert sorted(await receipts(settings)) == sorted(
            (order.id, "dropped" if order.user == "u40" else "accepted") for order in orders
        )
    assert sorted(provider.calls) == sorted(["r1:1", *(order.id for order in orders[:39])])


async def test_calls_end_before_a_partition_moves_to_another_worker(kafka_settings: Kafka, tmp_path: Path) -> None:
    settings, provider, other = kafka_settings, Provider(), Provider()
    orders = [command(number, requested_at=now(), expires_at=now() + HOUR) for number in range(1, 9)]
    provider.held = {order.id: asyncio.Event() for order in orders}
    async with cluster(settings) as log, worker(settings, provider, tmp_path / "one"):
        await ask(log, *orders)
        await until(lambda: _holds(len(provider.calls) == 8), "the calls are under way")
        joining = asyncio.create_task(_stay(settings, other, tmp_path / "two", leave := asyncio.Event()))
        await asyncio.sleep(1.0)  # into the rebalance, where nothing can be seen from outside
        for event in provider.held.values():
            event.set()
        more = [command(number, requested_at=now(), expires_at=now() + HOUR) for number in range(9, 41)]
        await ask(log, *more)
        await until(lambda: _count(settings, 40), "all receipts")
        leave.set()
        await joining
        assert sorted(await receipts(settings)) == sorted((order.id, "accepted") for order in [*orders, *more])
    assert sorted(provider.calls + other.calls) == sorted(order.id for order in [*orders, *more])
    assert other.calls, "the other worker got no partition"


async def _stay(settings: Kafka, provider: Provider, directory: Path, leave: asyncio.Event) -> None:
    async with worker(settings, provider, directory):
        await leave.wait()


async def _holds(condition: bool) -> bool:
    return condition


async def _count(settings: Kafka, number: int) -> bool:
    return len(await receipts(settings)) >= number
