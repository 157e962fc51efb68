"""How a worker stands by for partitions it doesn't own: it copies their changelogs into stores of its own.

Whoever is given a partition has to bring its store to the end of the changelog first. Who stood by has only the tail left
to read. So one worker with `--standby` beside the others makes a takeover as quick as a restart, at the price of the disk
for all partitions and of reading all changelogs. Who is given which partition is not decided here, nor influenced.

- One task follows all of them, a small batch at a time, and rests three times as long as it worked: the owned partitions
  keep three quarters of a core. What doesn't fit into that quarter shows as `standby_lag_records`.
- A store has one owner. `take_over` hands the open store to the partition; from then on it isn't touched here any more.
  It is opened here again only after the partition has closed it.
- The stamps stay true: which record of the changelog was the last is written with what it says. That a store was up to
  date at a time is noted when it has come to the end that was asked for at that time, never because nothing came.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from engine.runtime import crash_points
from engine.runtime.host import PartitionStopped
from engine.runtime.kafka import clients
from engine.runtime.kafka.partition_store import PartitionStore
from engine.runtime.kafka.recovery import check_belongs
from engine.runtime.kafka.wake_ups import host_clock
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka
from engine.runtime.store import StoreDamaged
from schemas.records import Record

RECORDS_AT_ONCE = 1000  # 4 ms, for which the owned partitions wait
RESTS_TIMES = 3  # as long as it worked
FETCH_BYTES = 1 << 20  # of each partition: 24 MiB wait here if 24 are far behind
IDLES_SECONDS = 0.1  # when there was nothing to read
LOOKS_EVERY_SECONDS = 5.0
TRIES_AGAIN_AFTER_SECONDS = 60.0  # a store that could not be followed
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 10.0  # when the broker doesn't answer

_log = structlog.get_logger(__name__)


class Stores(Protocol):
    """Where a standby's stores are: those of a process's partitions."""

    settings: Kafka
    topic: str
    offsets: AIOKafkaConsumer
    metrics: Metrics

    def changelog_of(self, number: int) -> TopicPartition: ...

    def oldest_at(self) -> int: ...

    def open_store(self, number: int) -> PartitionStore: ...

    def set_store_aside(self, number: int) -> Path: ...


class Standby:
    """Follows the changelogs of partitions. `is_free` says whether a partition's store may be opened here."""

    def __init__(self, stores: Stores, is_free: Callable[[int], bool]) -> None:
        self._stores = stores
        self._is_free = is_free
        self._wanted: list[int] = []
        self._followed: dict[int, PartitionStore] = {}
        self._not_before: dict[int, float] = {}  # monotonic: when to try again what could not be followed
        self._looked_at = 0.0  # monotonic
        self._asked_at = 0  # ms: when the changelogs were asked for where they end
        self._ends: dict[TopicPartition, int] = {}

    def follow(self, numbers: Iterable[int]) -> None:
        """Follow these partitions from now on. Others are followed until they are taken over."""
        self._wanted = sorted(numbers)

    def take_over(self, number: int) -> PartitionStore | None:
        """Return the partition's store, open, for whoever owns it now; None if it has to be opened from the disk."""
        store = self._followed.pop(number, None)
        if store is None:
            return None
        self._forget_lag(number)
        if store.written_at < self._stores.oldest_at():  # was cut off from the broker for days: see PartitionStore
            _close(store)
            return None
        crash_points.reach("taken over")
        return store

    async def run(self) -> None:
        """Follow until cancelled; then let go of all stores."""
        pause_seconds = FIRST_PAUSE_SECONDS
        try:
            while True:
                consumer = clients.reader(self._stores.settings, fetch_bytes=FETCH_BYTES)
                try:
                    await consumer.start()
                    while True:
                        await self._follow_until_changed(consumer)
                        pause_seconds = FIRST_PAUSE_SECONDS
                except Exception as error:
                    _log.warning(
                        "standing by is interrupted",
                        topic=self._stores.topic, reason=repr(error), again_in_seconds=pause_seconds,
                    )  # fmt: skip
                finally:
                    await consumer.stop()
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
        finally:
            for number in list(self._followed):
                self._let_go(number)

    async def _follow_until_changed(self, consumer: AIOKafkaConsumer) -> None:
        """Read the changelogs of what is followed, until that is something else."""
        await self._open_wanted()
        followed = dict(self._followed)
        if not followed:
            await asyncio.sleep(IDLES_SECONDS)
            return
        await self._assign(consumer, followed)
        while self._followed == followed and not self._to_open():
            began = time.perf_counter()
            try:
                fetched = await consumer.getmany(timeout_ms=0, max_records=RECORDS_AT_ONCE)
            except OffsetOutOfRangeError:
                return  # whose changelog was cut off is found when they are assigned again
            for source, records in fetched.items():
                store = followed[source.partition]
                if self._followed.get(source.partition) is store:
                    self._absorb(source.partition, store, records)
            await asyncio.sleep(RESTS_TIMES * (time.perf_counter() - began) if fetched else IDLES_SECONDS)
            if time.monotonic() - self._looked_at > LOOKS_EVERY_SECONDS:
                await self._look(consumer, followed)
                self._looked_at = time.monotonic()

    def _to_open(self) -> list[int]:
        now = time.monotonic()
        return [
            number
            for number in self._wanted
            if number not in self._followed and self._not_before.get(number, 0.0) <= now and self._is_free(number)
        ]

    async def _open_wanted(self) -> None:
        while numbers := self._to_open():
            try:
                self._followed[numbers[0]] = self._stores.open_store(numbers[0])
            except PartitionStopped as error:
                self._give_up(numbers[0], error)
            await asyncio.sleep(0)  # opening takes some 20 ms

    async def _assign(self, consumer: AIOKafkaConsumer, followed: dict[int, PartitionStore]) -> None:
        """Have each changelog read from where its store ends. A store that doesn't go with its changelog is let go."""
        sources = {number: self._stores.changelog_of(number) for number in followed}
        begins = await self._stores.offsets.beginning_offsets(list(sources.values()))
        ends = await self._stores.offsets.end_offsets(list(sources.values()))
        for number, store in followed.items():
            begin, end = begins[sources[number]], ends[sources[number]]
            try:
                check_belongs(store, sources[number], begin, end, self._stores.settings.accept_gap)
            except PartitionStopped as error:
                if self._followed.get(number) is store:
                    self._give_up(number, error)
        consumer.assign(list(sources.values()))
        for number, source in sources.items():
            consumer.seek(source, max(begins[source], followed[number].changelog + 1))
        self._looked_at = 0.0

    def _absorb(self, number: int, store: PartitionStore, records: Sequence[Record]) -> None:
        try:
            store.absorb(records, host_clock())
        except PartitionStopped as error:
            self._give_up(number, error)
        else:
            crash_points.reach("standing by")

    async def _look(self, consumer: AIOKafkaConsumer, followed: dict[int, PartitionStore]) -> None:
        """Tell how far behind each store is, and note which have come to where their changelogs ended at the last look."""
        asked_at, ends = self._asked_at, self._ends
        self._asked_at = host_clock()
        sources = {number: self._stores.changelog_of(number) for number in followed}
        self._ends = await self._stores.offsets.end_offsets(list(sources.values()))
        for number, store in followed.items():
            source = sources[number]
            position = await consumer.position(source)
            if self._followed.get(number) is not store:
                continue
            lag = max(0, self._ends[source] - position)
            self._stores.metrics.standby_lag_records.labels(self._stores.topic, str(number)).set(lag)
            if source in ends and position >= ends[source]:
                try:
                    await self._complete_timers(number, store)
                    if self._followed.get(number) is store:
                        store.confirm(asked_at)
                except PartitionStopped as error:
                    self._give_up(number, error)

    async def _complete_timers(self, number: int, store: PartitionStore) -> None:
        began = time.perf_counter()
        for _ in store.complete_timers():
            await asyncio.sleep(RESTS_TIMES * (time.perf_counter() - began))
            if self._followed.get(number) is not store:
                return  # the new owner begins them again
            began = time.perf_counter()

    def _give_up(self, number: int, error: PartitionStopped) -> None:
        """Leave a partition alone for a while. Its owner isn't concerned; whoever is given it next says what is wrong."""
        _log.warning(
            "not standing by for a partition",
            topic=self._stores.topic, partition=number, reason=str(error), again_in_seconds=TRIES_AGAIN_AFTER_SECONDS,
        )  # fmt: skip
        self._let_go(number)
        if isinstance(error, StoreDamaged):
            self._stores.set_store_aside(number)
        self._not_before[number] = time.monotonic() + TRIES_AGAIN_AFTER_SECONDS

    def _let_go(self, number: int) -> None:
        store = self._followed.pop(number, None)
        if store is not None:
            self._forget_lag(number)
            _close(store)

    def _forget_lag(self, number: int) -> None:
        self._stores.metrics.standby_lag_records.remove(self._stores.topic, str(number))


def _close(store: PartitionStore) -> None:
    with contextlib.suppress(PartitionStopped):  # a disk that is full or damaged: the changelog has it all
        store.close()
