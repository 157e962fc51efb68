"""How a store is brought to the end of its changelog before its partition goes on.

The changelog is read after the fence, so that nothing can be added to it, through its last committed record. A store that
was up to date is known to be so from the offsets alone: one request, no reading.
"""

import asyncio
import time
from collections.abc import Callable

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from engine.runtime import crash_points
from engine.runtime.host import PartitionStopped
from engine.runtime.kafka import clients
from engine.runtime.kafka.partition_store import PartitionStore
from engine.runtime.kafka.wake_ups import host_clock
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka

RECORDS_AT_ONCE = 5000  # 15 ms of writing, so that heartbeats go on
PROGRESS_EVERY_SECONDS = 5.0
STALLED_AFTER_SECONDS = 60.0

_log = structlog.get_logger(__name__)


async def recover(
    store: PartitionStore,
    changelog: TopicPartition,
    offsets: AIOKafkaConsumer,
    settings: Kafka,
    metrics: Metrics,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Bring the store to the end of the changelog; return how many records that took.

    `offsets` is asked for the changelog's end. `progress` is told how far of how much is read, a few times a minute. Raises
    PartitionStopped if the store and the changelog do not belong together.
    """
    end = (await offsets.end_offsets([changelog]))[changelog]
    check_belongs(store, changelog, end)
    if end <= store.changelog + 2:  # the last record we have, and the marker that committed it
        await _complete_timers(store)
        store.confirm(host_clock())
        return 0
    with metrics.recovery_seconds.labels(changelog.topic).time():
        count = await _read(store, changelog, end, settings, progress or _logged(changelog))
        await _complete_timers(store)
    metrics.recovery_records.labels(changelog.topic).inc(count)
    return count


def check_belongs(store: PartitionStore, changelog: TopicPartition, end: int) -> None:
    """Raise PartitionStopped if the store goes further than the changelog that it is a copy of."""
    if store.changelog >= end:
        raise PartitionStopped(
            f"the store goes through offset {store.changelog} of {changelog.topic}-{changelog.partition}, which ends at "
            f"{end}: the topic was truncated or made anew. Restore the topic; or, to go on with what it holds, delete "
            "this partition's store and start the worker again"
        )


async def _read(
    store: PartitionStore,
    changelog: TopicPartition,
    end: int,
    settings: Kafka,
    progress: Callable[[int, int], None],
) -> int:
    count, shown_at = 0, time.monotonic()
    consumer = clients.reader(settings)
    await consumer.start()
    try:
        consumer.assign([changelog])
        begin = (await consumer.beginning_offsets([changelog]))[changelog]
        start = max(begin, store.changelog + 1)
        consumer.seek(changelog, start)
        moved_at = time.monotonic()
        while (position := await consumer.position(changelog)) < end:
            fetched = await consumer.getmany(changelog, timeout_ms=200, max_records=RECORDS_AT_ONCE)
            records = fetched.get(changelog, [])
            if records:
                store.absorb(records, host_clock())
                count += len(records)
                crash_points.reach("recovering")
            now = time.monotonic()
            if await consumer.position(changelog) > position:
                moved_at = now
            elif now - moved_at > STALLED_AFTER_SECONDS:
                raise TimeoutError(f"{changelog.topic}-{changelog.partition} gives no records at offset {position}")
            if now - shown_at > PROGRESS_EVERY_SECONDS:
                shown_at = now
                progress(position - start, end - start)
            await asyncio.sleep(0)
    finally:
        await consumer.stop()
    store.confirm(host_clock())
    return count


async def _complete_timers(store: PartitionStore) -> None:
    for _ in store.complete_timers():
        await asyncio.sleep(0)  # 10,000 states: the heartbeats must go on


def _logged(changelog: TopicPartition) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        _log.info(
            "recovering a store", changelog=changelog.topic, partition=changelog.partition, percent=100 * done // total
        )

    return show
