"""How a store is brought to the end of its changelog before its partition goes on.

The changelog is read after the fence, so that nothing can be added to it, through its last committed record. A store that
was up to date is known to be so from the offsets alone: one request, no reading.
"""

import asyncio
import time
from dataclasses import dataclass, field

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
    store: PartitionStore, changelog: TopicPartition, offsets: AIOKafkaConsumer, settings: Kafka, metrics: Metrics
) -> int:
    """Bring the store to the end of the changelog; return how many records that took.

    `offsets` is asked for where the changelog begins and ends. How far it has come is logged a few times a minute, and told
    by the metrics all the time. Raises PartitionStopped if the store and the changelog do not belong together.
    """
    asked_at = host_clock()
    begin = (await offsets.beginning_offsets([changelog]))[changelog]
    end = (await offsets.end_offsets([changelog]))[changelog]
    check_belongs(store, changelog, begin, end, settings.accept_gap)
    count = 0
    if not is_at_end(store, end):
        progress = _Progress(changelog, metrics, max(begin, store.changelog + 1), end)
        with metrics.recovery_seconds.labels(changelog.topic).time():
            try:
                count = await _read(store, changelog, settings, progress)
            finally:
                progress.close()
    await _complete_timers(store)
    store.confirm(asked_at)
    return count


def is_at_end(store: PartitionStore, end: int) -> bool:
    """Whether nothing is behind the last record that the store has but the marker that committed it."""
    return end <= store.changelog + 2


def check_belongs(store: PartitionStore, changelog: TopicPartition, begin: int, end: int, accept_gap: bool) -> None:
    """Raise PartitionStopped if the store goes further than the changelog that it is a copy of, or if the changelog lacks
    what the store doesn't have (which an operator may accept)."""
    if begin > store.changelog + 1 and not is_at_end(store, end) and not accept_gap:
        raise PartitionStopped(
            f"{changelog.topic}-{changelog.partition} begins at offset {begin}, and the store goes through "
            f"{store.changelog}: the states between were deleted from the topic, which must only ever be compacted. Bring "
            "back a worker whose store has them; to go on without them, start the worker with "
            "EQUEENGAGE_KAFKA__ACCEPT_GAP=true"
        )
    if store.changelog >= end:
        raise PartitionStopped(
            f"the store goes through offset {store.changelog} of {changelog.topic}-{changelog.partition}, which ends at "
            f"{end}: the topic was truncated or made anew. Restore the topic; or, to go on with what it holds, and fold "
            "and send again what it lacks, delete this partition's store and start the worker with "
            "EQUEENGAGE_KAFKA__ACCEPT_GAP=true"
        )


async def _read(store: PartitionStore, changelog: TopicPartition, settings: Kafka, progress: "_Progress") -> int:
    count = 0
    consumer = clients.reader(settings)
    await consumer.start()
    try:
        consumer.assign([changelog])
        consumer.seek(changelog, progress.begin)
        moved_at = time.monotonic()
        while (position := await consumer.position(changelog)) < progress.end:
            fetched = await consumer.getmany(changelog, timeout_ms=200, max_records=RECORDS_AT_ONCE)
            records = fetched.get(changelog, [])
            if records:
                store.absorb(records, host_clock())
                count += len(records)
                crash_points.reach("recovering")
            if (reached := await consumer.position(changelog)) > position:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > STALLED_AFTER_SECONDS:
                raise TimeoutError(f"{changelog.topic}-{changelog.partition} gives no records at offset {position}")
            progress.tell(reached, len(records))
            await asyncio.sleep(0)
    finally:
        await consumer.stop()
    return count


async def _complete_timers(store: PartitionStore) -> None:
    for _ in store.complete_timers():
        await asyncio.sleep(0)  # 10,000 states: the heartbeats must go on


@dataclass
class _Progress:
    """How far one recovery has come. Offsets stand for records: compaction has left gaps between them."""

    changelog: TopicPartition
    metrics: Metrics
    begin: int
    end: int
    began: float = field(default_factory=time.monotonic)
    told_at: float = field(default_factory=time.monotonic)

    def tell(self, position: int, records: int) -> None:
        topic, number = self.changelog.topic, str(self.changelog.partition)
        self.metrics.recovery_records.labels(topic).inc(records)
        self.metrics.recovery_left_records.labels(topic, number).set(max(0, self.end - position))
        now = time.monotonic()
        if now - self.told_at > PROGRESS_EVERY_SECONDS:
            self.told_at = now
            _log.info(
                "recovering a store",
                changelog=topic, partition=self.changelog.partition, done=position - self.begin,
                of=self.end - self.begin, seconds=round(now - self.began, 1),
            )  # fmt: skip

    def close(self) -> None:
        self.metrics.recovery_left_records.remove(self.changelog.topic, str(self.changelog.partition))
