"""How the embedded log is written, and read at its end.

A record is *staged* first: it has its offset and timestamp, and the reader of its partition is given it from memory. It is
*written* with the next write to the store, which takes everything staged along, in one atomic batch, and stores what one
partition got as one group. And it is *durable* after a sync that began later. So three things hold that all else rests on:
what is staged together is written together; a fold's outputs are never written without its states; and no record is
confirmed before its sync.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from engine.runtime.embedded import layout
from engine.runtime.embedded.group_sync import GroupSync
from engine.runtime.host import Overloaded, PartitionStopped, Unavailable
from engine.runtime.metrics import Metrics
from engine.runtime.store import KeyValueStore, Write, after_prefix
from schemas.records import NewRecord, Record

MOST_UNFOLDED_RECORDS = 100_000  # 4 s of work for one core
MOST_UNFOLDED_BYTES = 64 << 20
MOST_TAIL_BYTES = 4 << 20  # kept in memory for the reader of one partition; what is beyond is read from the store


def wall_clock() -> int:
    return time.time_ns() // 1_000_000


class EmbeddedLog:
    """The log of one data directory (see `engine.runtime.host.Log`). Belongs to one event loop."""

    def __init__(self, store: KeyValueStore, count: int, clock: Callable[[], int], metrics: Metrics) -> None:
        self.clock = clock
        self.count = count
        self.failure: PartitionStopped | None = None
        self._metrics = metrics
        self._store = store
        self._partitions: dict[tuple[str, int], PartitionLog] = {}
        self._ends = {topic: layout.read_number(store, layout.end_key(topic), 0) for topic in layout.COMPACTED}
        self._events = [self.partition("events", number) for number in range(count)]
        self._staged: list[PartitionLog] = []  # those with records not written yet
        self._staged_rows: list[Write] = []  # changes of tables not written yet
        self.has_unsynced = False
        self._sync = GroupSync(self._write_before_sync, self._measured_sync, self._fail)
        self._listeners: list[Callable[[str, Record], None]] = []
        self._mourners: list[Callable[[PartitionStopped], None]] = []

    async def append(self, records: Sequence[NewRecord]) -> None:
        for record in records:
            if record.topic == "events":
                self._refuse_if_overloaded()
                break
        began = time.perf_counter()
        try:
            self.stage(records)
            await self._sync.durable()
        except PartitionStopped as error:
            raise Unavailable(str(error)) from error
        self._metrics.log_append_seconds.observe(time.perf_counter() - began)

    async def append_atomically(self, records: Sequence[NewRecord]) -> None:
        await self.append(records)  # what is staged together is written together

    async def durable(self) -> None:
        """Return when all that was staged or written before the call survives a crash of the machine."""
        await self._sync.durable()

    def partitions(self, topic: str) -> int:
        return 1 if topic in layout.COMPACTED else self.count

    def read(self, topic: str, key: bytes) -> Iterator[Record]:
        """What was appended in the last moment may still be missing."""
        return read(self._store, self.count, topic, key)

    def stage(self, records: Sequence[NewRecord]) -> None:
        """Give the records their offsets and timestamps, and their readers the records. They are written with the next
        `write`, all of them in one."""
        if self.failure is not None:
            raise self.failure
        now = self.clock()
        destinations = [self._destination(record) for record in records]  # first: an error must leave nothing half done
        appended: dict[PartitionLog, list[Record]] = {}
        for record, partition in zip(records, destinations, strict=True):
            if partition is None:
                self._stage_row(record, now)
            elif partition in appended:
                appended[partition].append(partition.place(record, now))
            else:
                appended[partition] = [partition.place(record, now)]
        for partition, placed in appended.items():
            if not partition.staged:
                self._staged.append(partition)
            partition.stage(placed)

    def write(self, writes: Sequence[Write] = ()) -> None:
        """Write these, and everything staged with them, in one atomic batch. A failure stops the log for good."""
        if self.failure is not None:
            raise self.failure
        if not self._staged and not self._staged_rows:
            if not writes:
                return
            batch = list(writes)
        else:
            batch = [partition.write() for partition in self._staged]
            batch += self._staged_rows
            batch += writes
            self._staged.clear()
            self._staged_rows.clear()
        try:
            self._store.write(batch)
        except PartitionStopped as error:
            self._sync.fail(error)
            raise
        self.has_unsynced = True

    def partition(self, topic: str, number: int) -> "PartitionLog":
        partition = self._partitions.get((topic, number))
        if partition is None:
            if topic in layout.COMPACTED:
                raise ValueError(f"the compacted topic {topic!r} is kept as a table: nobody reads it record by record")
            if not 0 <= number < self.count:
                raise ValueError(f"topic {topic!r} has {self.count} partitions, there is none with number {number}")
            partition = self._partitions[topic, number] = PartitionLog(self._store, topic, number, self._metrics)
        return partition

    def listen(self, listener: Callable[[str, Record], None]) -> None:
        """Have `listener(topic, record)` called for each record that is staged for a compacted topic."""
        self._listeners.append(listener)

    def on_failure(self, mourner: Callable[[PartitionStopped], None]) -> None:
        """Have `mourner(error)` called once, when the log fails."""
        self._mourners.append(mourner)

    def fail(self, error: PartitionStopped) -> None:
        """Confirm and write nothing from now on."""
        self._sync.fail(error)

    async def close(self) -> None:
        """Bring everything to the disk, unless the log has failed."""
        await self._sync.close()

    def _write_before_sync(self) -> None:
        self.write()
        self.has_unsynced = False

    def _measured_sync(self) -> None:
        with self._metrics.log_sync_seconds.time():
            self._store.sync()

    def _destination(self, record: NewRecord) -> "PartitionLog | None":
        """Return where a record goes; None for a table."""
        topic, number = record.topic, record.partition
        if topic in layout.COMPACTED:
            if record.key is None:
                raise ValueError(f"a record of the compacted topic {topic!r} needs a key")
            return None
        if number is None:
            number = layout.partition_of(record.key or b"", self.count)
        return self._partitions.get((topic, number)) or self.partition(topic, number)

    def _stage_row(self, new: NewRecord, now: int) -> None:
        topic, key = new.topic, new.key or b""
        offset = self._ends[topic]
        self._ends[topic] = offset + 1
        record = Record(offset, now, key, new.value, new.headers)
        row = layout.encode_record(record) if new.value is not None else None
        self._staged_rows.append((layout.TABLES, layout.table_prefix(topic) + key, row))
        self._staged_rows.append((layout.META, layout.end_key(topic), (offset + 1).to_bytes(8)))
        for listener in self._listeners:
            listener(topic, record)

    def _refuse_if_overloaded(self) -> None:
        records = octets = 0
        for partition in self._events:
            if partition.has_reader:  # one that stands still must not stop the others: its records wait on the disk
                records += partition.unfolded_records()
                octets += partition.unfolded_bytes
        if records > MOST_UNFOLDED_RECORDS or octets > MOST_UNFOLDED_BYTES:
            raise Overloaded()

    def _fail(self, error: Exception) -> None:
        self.failure = PartitionStopped(f"the log has stopped, and nothing is confirmed any more: {error}")
        for partition in self._partitions.values():
            partition.wake()
        for mourner in self._mourners:
            mourner(self.failure)


class PartitionLog:
    """The end of one partition: what is appended next, what is not written yet, and what its reader is given next."""

    def __init__(self, store: KeyValueStore, topic: str, number: int, metrics: Metrics) -> None:
        self.prefix = layout.partition_prefix(topic, number)
        self.staged: list[Record] = []
        self._appended = metrics.log_records_appended.labels(topic)
        self.unfolded_bytes = 0
        self._store = store
        self._sizes: deque[tuple[int, int]] = deque()  # last offset and bytes of what is not folded yet
        self.end, self.last_at = 0, 0
        for key, group in store.scan(layout.LOG, self.prefix, after_prefix(self.prefix), backwards=True):
            self.end, self.last_at = layout.last_offset(key) + 1, layout.last_timestamp(group)
            break
        self.position = layout.read_number(store, layout.position_key(topic, number), -1)
        self.next_offset = self.position + 1  # what the reader is given next
        self._tail: deque[Record] = deque()
        self._tail_end = self.next_offset  # one past the last record of the tail
        self._tail_bytes = 0  # since it was empty
        self.has_reader = False
        self.wake: Callable[[], None] = _nothing

    def place(self, new: NewRecord, now: int) -> Record:
        """Give a record the next offset, at `now` or, if the clock went back, at the last record's time."""
        if now > self.last_at:
            self.last_at = now
        offset = self.end
        self.end = offset + 1
        return Record(offset, self.last_at, new.key, new.value, new.headers)

    def stage(self, records: list[Record]) -> None:
        self.staged += records
        self._appended.inc(len(records))
        if not self.has_reader:
            return
        size = sum([len(record.value or b"") + len(record.key or b"") for record in records])
        self.unfolded_bytes += size
        self._sizes.append((records[-1].offset, size))
        if self._tail_end == records[0].offset and self._tail_bytes < MOST_TAIL_BYTES:
            self._tail += records
            self._tail_end = records[-1].offset + 1
            self._tail_bytes += size
        self.wake()

    def write(self) -> Write:
        """Return the group to write for what was staged."""
        records, self.staged = self.staged, []
        return layout.LOG, layout.group_key(self.prefix, records[-1].offset), layout.encode_group(records)

    def attach(self, wake: Callable[[], None]) -> None:
        """A reader begins after the position; `wake` is called when there is something to read."""
        self.has_reader, self.wake = True, wake
        self.next_offset = self._tail_end = self.position + 1
        self._tail.clear()
        self._tail_bytes = 0

    def detach(self) -> None:
        """The reader is gone."""
        self.has_reader, self.wake = False, _nothing
        self._tail.clear()

    def has_more(self) -> bool:
        return self.next_offset < self.end

    def take(self, limit: int) -> list[Record]:
        """Return the next records for the reader, at most `limit`, from memory if they are there. Everything staged
        must have been written, if they are not."""
        tail = self._tail
        if not tail:
            self._tail_bytes = 0
            if not self.has_more():
                return []
            self._fill_tail(limit)
        if len(tail) <= limit:
            records = list(tail)
            tail.clear()
        else:
            records = [tail.popleft() for _ in range(limit)]
        self.next_offset = records[-1].offset + 1
        return records

    def needs_store(self) -> bool:
        """Whether `take` would have to read from the store."""
        return not self._tail and self.has_more()

    def fold_through(self, offset: int) -> None:
        self.position = offset
        sizes = self._sizes
        while sizes and sizes[0][0] <= offset:
            self.unfolded_bytes -= sizes.popleft()[1]

    def unfolded_records(self) -> int:
        return self.end - self.position - 1

    def _fill_tail(self, limit: int) -> None:
        for records in layout.read_groups(self._store, self.prefix, self.next_offset):
            if records[0].offset < self.next_offset:
                records = records[self.next_offset - records[0].offset :]
            self._tail += records
            self._tail_end = records[-1].offset + 1
            if len(self._tail) >= limit:
                return


def read(store: KeyValueStore, count: int, topic: str, key: bytes) -> Iterator[Record]:
    """Yield the retained records of the partition that `key` belongs to, oldest first."""
    if topic in layout.COMPACTED:
        yield from layout.read_table(store, topic)
        return
    for records in layout.read_groups(store, layout.partition_prefix(topic, layout.partition_of(key, count)), 0):
        yield from records


def _nothing() -> None: ...
