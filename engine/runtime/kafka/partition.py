"""What a loop is given on Kafka: one partition of one topic, with its store, while we own it.

Opening it takes three steps, outside the rebalance callback, since heartbeats stop there:

1. fence: a transactional producer of the partition's own id. From now on no previous owner can commit, and what it left
   open is aborted.
2. recover: read the changelog into the store, up to its end.
3. position: go to the record after the one stamped in the store. The group's offset is only a hint for others.

A commit is one transaction (outputs, changed states, the stamp), then one write to RocksDB. If the process dies between
the two, recovery repeats the second; if it dies before, nothing has happened. After any error the partition is closed
and opened anew; it never goes on from memory.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, OffsetOutOfRangeError

from engine.runtime import crash_points
from engine.runtime.host import Batch, Fenced, PartitionStopped, Store
from engine.runtime.kafka.pace import Pace
from engine.runtime.kafka.partition_store import SOURCE, PartitionStore, set_aside
from engine.runtime.kafka.partitioner import partition_of
from engine.runtime.kafka.recovery import recover
from engine.runtime.kafka.topics import changelog_name, topic_name
from engine.runtime.kafka.transactions import Content, Place, TransactionalWriter
from engine.runtime.kafka.wake_ups import BrokerClock, Sleepers, host_clock
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka
from engine.runtime.store import Memory, StoreDamaged
from engine.runtime.timers import Alarm
from schemas.records import Record

LOG_APPEND_TIME = 1  # the timestamp type, in Kafka's protocol
RECOVERING_AT_ONCE = 4  # of a process's partitions: more would only share the same core
# Markers of transactions are offsets, too: an idle partition's stamp is moved over them before retention deletes them.
MOVES_STAMP_AFTER_SECONDS = 60.0

_log = structlog.get_logger(__name__)


@dataclass
class Process:
    """What the partitions of one topic share in a process."""

    settings: Kafka
    topic: str  # logical: "events", "messages.email"
    work: str  # what its transactional ids, changelog and stores are named after: "users", "email"
    consumer: AIOKafkaConsumer
    offsets: AIOKafkaConsumer  # asked for offsets: on the other's connection a question waits behind a long poll
    directory: Path
    cluster: str
    tombstones_kept: timedelta
    metrics: Metrics
    clock: BrokerClock
    memory: Memory = field(default_factory=Memory)
    pace: Pace = field(default_factory=Pace)
    recovering: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(RECOVERING_AT_ONCE))
    is_stable: bool = False  # between an assignment and the next revocation
    take_over: Callable[[int], PartitionStore | None] = lambda number: None  # the standby's store of a partition

    def changelog_of(self, number: int) -> TopicPartition:
        return TopicPartition(changelog_name(self.settings, self.work), number)

    def oldest_at(self) -> int:
        """Since when (ms) a store must have been up to date: an older one may have missed deletions."""
        return host_clock() - self.tombstones_kept // timedelta(milliseconds=2)

    def open_store(self, number: int) -> PartitionStore:
        """Open the store of a partition, one that is damaged set aside. Raises PartitionStopped if its directory cannot be
        used."""
        identity = f"{self.cluster}/{self.changelog_of(number).topic}/{number} of {self.settings.partitions}"
        arguments = (self.directory / str(number), self.memory, identity, self.oldest_at(), self.topic == "events")
        try:
            store, anew = PartitionStore.open(*arguments)
        except StoreDamaged as error:
            anew = f"{error}; it is kept as {self.set_store_aside(number)}"
            store, _ = PartitionStore.open(*arguments)
        if anew:
            _log.warning("a store is made anew", topic=self.topic, partition=number, reason=anew)
        return store

    def set_store_aside(self, number: int) -> Path:
        """Put a closed store out of the way, so that it is made anew; return where it is now."""
        self.metrics.stores_set_aside.labels(self.topic).inc()
        return set_aside(self.directory / str(number))


class KafkaPartition:
    """See `engine.runtime.host.PartitionHost`. `store` is there once the partition was opened."""

    store: Store

    def __init__(self, process: Process, number: int) -> None:
        settings = process.settings
        self.topic, self.number, self.count = process.topic, number, settings.partitions
        self._process = process
        self._source = TopicPartition(topic_name(settings, process.topic), number)
        self._changelog = process.changelog_of(number)
        self._writer = TransactionalWriter(settings, f"{settings.app}-{process.work}-{number}")
        self._store: PartitionStore | None = None
        self._alarm = Alarm()
        self._is_fenced_off = False  # we hold the fence, and nothing has gone wrong since
        self._under_way: asyncio.Task[None] | None = None  # the commit, which nobody may cut off
        self._returned = -1  # through which offset records were handed out
        self._began = -1  # the offset before the first that this opening reads
        self._pause_seconds = 0.0
        self._committed_at = time.monotonic()
        self._woken = asyncio.Event()
        self._failure: PartitionStopped | None = None  # found outside the loop, which is to hear of it
        self.commits = 0

    @property
    def through(self) -> int:
        """The last offset that is folded; -1 if none is, or the partition is not open."""
        return self._store.through if self._store is not None else -1

    @property
    def sleepers(self) -> Sleepers | None:
        """Whom to wake, while the partition is open."""
        if self._store is None or not self._is_fenced_off:
            return None
        return Sleepers((self._source.topic, self.number), self._store.timers, self._alarm, self._fail)

    # The loop's side

    async def poll(self, limit: int, timeout_seconds: float) -> Sequence[Record]:
        self._opened()
        if self._failure is not None:
            raise self._failure
        if self._pause_seconds:
            await asyncio.sleep(self._pause_seconds)
        records = await self._fetch(limit, timeout_seconds)
        self._pause_seconds = self._process.pace.pause_seconds(len(records), limit)
        if records:
            self._check_times(records)
            self._returned = records[-1].offset
        elif time.monotonic() - self._committed_at > MOVES_STAMP_AFTER_SECONDS:
            await self._move_stamp()
        return records

    def wake(self) -> None:
        self._woken.set()

    async def commit(self, batch: Batch) -> None:
        if self._under_way is not None and not self._under_way.done():
            await asyncio.wait({self._under_way})  # whoever began it was cancelled
        store = self._opened()
        if not self._is_fenced_off:
            raise Fenced(f"{self.topic}-{self.number} has to be opened anew after a failed commit")
        self._under_way = asyncio.ensure_future(self._commit(batch, store))
        await asyncio.shield(self._under_way)

    async def durable(self) -> None:
        """A committed transaction is durable."""

    def partition_for(self, key: bytes) -> int:
        return partition_of(key, self.count)

    # The service's side

    async def open(self) -> None:
        """Fence, recover, position: afterwards a loop can run on it. Raises PartitionStopped if it must not."""
        if self._under_way is not None:
            with contextlib.suppress(Exception):  # it has marked us as not fenced off
                await self._under_way
        if not self._is_fenced_off or self._store is None:
            await self.close()
            async with self._process.recovering:
                await self._writer.fence()
                await self._recover()
            self._is_fenced_off = True
        await self._seek(self._store)
        self._woken.clear()
        self._failure = None
        self._pause_seconds = 0.0

    async def finish_commit(self, timeout_seconds: float) -> None:
        """Give the commit under way the time to end, however it does."""
        if self._under_way is not None:
            await asyncio.wait({self._under_way}, timeout=timeout_seconds)

    async def close(self) -> None:
        """Let go of the producer and the store. Whoever opens the partition next finds everything committed."""
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)
            self._under_way = None
        consumer = self._process.consumer
        if self._source in consumer.assignment():
            consumer.pause(self._source)  # what nobody takes would hold up the fetches of the others
        store, self._store = self._store, None
        if store is not None:
            with contextlib.suppress(PartitionStopped):  # a disk that is full or damaged: the changelog has it all
                if self._is_fenced_off:
                    store.confirm(host_clock())
            with contextlib.suppress(PartitionStopped):
                store.close()
        self._is_fenced_off = False
        self._alarm = Alarm()
        await self._writer.close()

    def set_store_aside(self) -> Path:
        """Put the store of a closed partition out of the way, so that it is made anew; return where it is now."""
        return self._process.set_store_aside(self.number)

    async def lag(self) -> int:
        """How many records are not folded yet, as far as the last fetch has told."""
        consumer, source = self._process.consumer, self._source
        high = consumer.highwater(source)
        if high is None:
            return 0
        folded = max(self.through, self._began)  # the latter where nothing was folded yet, or retention took it
        if self._returned <= folded and await consumer.position(source) >= high:
            return 0  # what is left are markers of transactions
        return max(0, int(high) - folded - 1)

    def _fail(self, error: PartitionStopped) -> None:
        self._failure = error
        self._woken.set()

    def _opened(self) -> PartitionStore:
        if self._store is None:
            raise Fenced(f"{self.topic}-{self.number} is not ours, or not open")
        return self._store

    async def _recover(self) -> None:
        process = self._process
        standby = process.take_over(self.number)
        store = standby or process.open_store(self.number)
        self._store, self.store = store, store.states
        began = time.monotonic()
        count = await recover(store, self._changelog, process.offsets, process.settings, process.metrics)
        if count or standby is not None:
            _log.info(
                "store recovered",
                topic=self.topic, partition=self.number, records=count, seconds=round(time.monotonic() - began, 3),
                by_standby=standby is not None,
            )  # fmt: skip

    async def _seek(self, store: PartitionStore | None) -> None:
        """Go to the record after the last one folded, if the log still has it."""
        assert store is not None
        consumer, offsets, source = self._process.consumer, self._process.offsets, self._source
        begin = (await offsets.beginning_offsets([source]))[source]
        end = (await offsets.end_offsets([source]))[source]
        position = store.through + 1 if store.through >= 0 else begin
        if position > end:
            raise PartitionStopped(
                f"the store goes through offset {store.through} of {source.topic}-{source.partition}, which ends at {end}: "
                "the topic was truncated or made anew. Restore it, or use another app name (EQUEENGAGE_KAFKA__APP)"
            )
        if position < begin:
            if not self._process.settings.accept_gap:
                raise PartitionStopped(_gap(source, position, begin))
            _log.warning(
                "records were deleted unread", topic=self.topic, partition=self.number, records=begin - position
            )
            position = begin
        hint = await consumer.committed(
            source
        )  # written after what it tells of: never ahead of a changelog that is whole
        if hint is not None and hint > position and not self._process.settings.accept_gap:
            raise PartitionStopped(
                f"{source.topic}-{source.partition} was folded before through offset {hint - 1}, but neither the store nor "
                f"{self._changelog.topic}, which was truncated or made anew, goes beyond {position - 1}. Restore the topic, "
                "or bring back a worker that has the store; to fold those records once more, and send their messages once "
                "more, start the worker with EQUEENGAGE_KAFKA__ACCEPT_GAP=true"
            )
        consumer.seek(source, position)
        consumer.resume(source)
        self._returned = self._began = position - 1

    async def _fetch(self, limit: int, timeout_seconds: float) -> Sequence[Record]:
        """Get records from the consumer; empty after the timeout, after `wake`, and while the group rebalances."""
        process, source = self._process, self._source
        try:
            if process.is_stable and source in process.consumer.assignment():
                fetched = await process.consumer.getmany(source, timeout_ms=0, max_records=limit)
                at_hand: Sequence[Record] = fetched.get(source, ())
                if at_hand or self._woken.is_set():
                    self._woken.clear()
                    return at_hand
            return await self._wait_for_records(limit, timeout_seconds)
        except OffsetOutOfRangeError as error:
            begin = (await process.offsets.beginning_offsets([source]))[source]
            raise PartitionStopped(_gap(source, self.through + 1, begin)) from error
        except IllegalStateError:  # no longer assigned: the revocation is about to stop this loop
            await asyncio.sleep(timeout_seconds)
            return ()

    async def _wait_for_records(self, limit: int, timeout_seconds: float) -> Sequence[Record]:
        waits: set[asyncio.Future[Any]] = {asyncio.ensure_future(self._woken.wait())}
        fetch: asyncio.Future[Any] | None = None
        if self._process.is_stable:
            milliseconds = int(timeout_seconds * 1000)
            fetching = self._process.consumer.getmany(self._source, timeout_ms=milliseconds, max_records=limit)
            fetch = asyncio.ensure_future(fetching)
            waits.add(fetch)
        try:
            await asyncio.wait(waits, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()  # a fetch that is done keeps what it has
            await asyncio.gather(*waits, return_exceptions=True)
        self._woken.clear()
        if fetch is None or fetch.cancelled():
            return ()
        fetched: dict[TopicPartition, Sequence[Record]] = fetch.result()
        return fetched.get(self._source, ())

    def _check_times(self, records: Sequence[Any]) -> None:
        """Raise PartitionStopped for a timestamp that may not be the partition's time."""
        settings = self._process.settings
        latest = max(record.timestamp for record in records)
        if not settings.accept_create_time and any(record.timestamp_type != LOG_APPEND_TIME for record in records):
            raise PartitionStopped(
                f"{self._source.topic}-{self.number} holds records dated by a producer's clock (CreateTime), from offset "
                f"{records[0].offset} on. Set message.timestamp.type=LogAppendTime on the topic; to fold those that are "
                "there already, start the worker with EQUEENGAGE_KAFKA__ACCEPT_CREATE_TIME=true"
            )
        ahead_minutes = (latest - host_clock()) / 60_000
        if ahead_minutes > settings.clock_ahead_minutes:
            raise PartitionStopped(
                f"{self._source.topic}-{self.number} holds a record that lies {ahead_minutes:.0f} minutes ahead of this "
                "host's clock, and would fire timers too early. Set right the clock of the broker or of this host; if "
                "the broker's is right, or the record has to be folded, start the worker with "
                f"EQUEENGAGE_KAFKA__CLOCK_AHEAD_MINUTES={ahead_minutes + 1:.0f}"
            )
        self._process.clock.learn_record(latest)

    async def _commit(self, batch: Batch, store: PartitionStore) -> None:
        through = max(store.through, batch.through)
        contents = self._contents(batch, through)
        if not contents:
            return
        crash_points.reach("folded")
        try:
            written = await self._writer.write(contents)
            crash_points.reach("committed")
            changelog = written.get((self._changelog.topic, self.number), store.changelog)
            crash_points.reach("writing")
            store.apply(batch, through, changelog, host_clock())
        except BaseException:
            self._is_fenced_off = False
            raise
        crash_points.reach("written")
        self._alarm.settle(batch.timers)
        self._committed_at = time.monotonic()
        self.commits += 1

    def _contents(self, batch: Batch, through: int) -> dict[Place, list[Content]]:
        """What the transaction of a batch consists of; the stamp is the last record of the changelog's."""
        settings = self._process.settings
        contents: dict[Place, list[Content]] = {}
        here: dict[str, list[Content]] = {}  # by logical topic, what goes to the partition of our number: nearly all
        for output in batch.outputs:
            topic, number = output.topic, output.partition
            if number is None:
                number = self.number if output.key is None else partition_of(output.key, self.count)
            records = here.get(topic) if number == self.number else None
            if records is None:
                records = contents.setdefault((topic_name(settings, topic), number), [])
                if number == self.number:
                    here[topic] = records
            records.append((output.key, output.value, output.headers))
        if batch.states or batch.through >= 0:
            states: list[Content] = [(key, value, ()) for key, value in batch.states.items()]
            states.append((SOURCE, b"%d" % through, ()))
            contents[self._changelog.topic, self.number] = states
        return contents

    async def _move_stamp(self) -> None:
        """Move an idle partition's stamp over the markers of transactions and what was aborted, which nobody folds."""
        self._committed_at = time.monotonic()
        if self._returned > self.through or not self._process.is_stable:
            return
        position = await self._process.consumer.position(self._source)
        if position - 1 > self.through:
            await self.commit(Batch(through=position - 1))


def _gap(source: TopicPartition, position: int, begin: int) -> str:
    return (
        f"{source.topic}-{source.partition} begins at offset {begin}, but offset {position} was to be folded next: the "
        f"{begin - position:,} records between were deleted unread. Lengthen retention.ms; to go on without them, start "
        "the worker with EQUEENGAGE_KAFKA__ACCEPT_GAP=true"
    )
