"""A host in memory, small enough to be seen through: lists are the log, a dict is the store.

It keeps the promises of `engine.runtime.host` in the plainest way, and checks what loops promise in return: a batch's
timers must say truly when an actor was due before.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from zlib import crc32

from engine.runtime.host import Batch, Fenced, Store
from schemas.definitions import Definition
from schemas.records import Headers, NewRecord, Record


class MemoryLog:
    """All topics. Records are appended at `now`, which tests move."""

    def __init__(self, count: int = 1, now: int = 1_767_600_000_000) -> None:
        self.count = count
        self.now = now
        self._records: dict[tuple[str, int], list[Record]] = {}
        self.appended = asyncio.Event()

    def add(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = (), partition: int | None = None
    ) -> Record:
        """Append one record and return it as a reader will see it."""
        number = partition if partition is not None else self.partition_for(key or b"")
        records = self._records.setdefault((topic, number), [])
        record = Record(len(records), self.now, key, value, headers)
        records.append(record)
        self.appended.set()
        return record

    def append(self, records: Iterable[NewRecord]) -> None:
        for new in records:
            self.add(new.topic, new.key, new.value, new.headers, new.partition)

    def partition_for(self, key: bytes) -> int:
        return crc32(key) % self.count

    def of(self, topic: str, number: int | None = None) -> list[Record]:
        """The records of one partition, or those of all of them, one partition after the other."""
        numbers = range(self.count) if number is None else [number]
        return [record for each in numbers for record in self._records.get((topic, each), [])]

    def copy(self, other: "MemoryLog", topic: str) -> None:
        """Take over the records of a topic of another log, with their timestamps."""
        for number in range(self.count):
            self._records[topic, number] = other.of(topic, number)

    def topics(self) -> list[str]:
        return sorted({topic for topic, _ in self._records})


class MemoryStates:
    """The durable states of one partition."""

    def __init__(self, values: dict[bytes, bytes] | None = None) -> None:
        self.values: dict[bytes, bytes] = values if values is not None else {}

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def scan(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(self.values):
            if key >= start and (stop is None or key < stop):
                yield key, self.values[key]

    def apply(self, changes: dict[bytes, bytes | None]) -> None:
        for key, value in changes.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value


class MemoryPartition:
    """One partition of `events`. `reopen()` gives what the next process would find; this one is fenced then."""

    topic = "events"

    def __init__(
        self, log: MemoryLog, number: int = 0, store: MemoryStates | None = None, timers: dict[bytes, int] | None = None
    ) -> None:
        self.log = log
        self.number = number
        self.count = log.count
        self.states = store or MemoryStates()
        self.store: Store = self.states
        self.timers: dict[bytes, int] = timers if timers is not None else {}
        self.position = -1
        self.fails_with: Exception | None = None  # what the next commits raise; nothing of their batch is applied then
        self.batches: list[Batch] = []
        self.is_idle = asyncio.Event()  # a poll has found nothing more to read
        self._next = 0
        self._is_owner = True

    def reopen(self) -> "MemoryPartition":
        self._is_owner = False
        partition = MemoryPartition(self.log, self.number, self.states, self.timers)
        partition.position, partition._next = self.position, self.position + 1
        return partition

    async def poll(self, limit: int, timeout_seconds: float) -> Sequence[Record]:
        self._check_owner()
        records = self.log.of(self.topic, self.number)[self._next : self._next + limit]
        if not records:
            self.log.appended.clear()
            self.is_idle.set()
            await self.log.appended.wait()
            return []
        self.is_idle.clear()
        self._next = records[-1].offset + 1
        return records

    def wake(self) -> None:
        self.log.appended.set()

    async def commit(self, batch: Batch) -> None:
        self._check_owner()
        if self.fails_with is not None:
            raise self.fails_with
        self.batches.append(batch)
        self.states.apply(batch.states)
        for actor, (before, now) in batch.timers.items():
            assert self.timers.get(actor) == before, f"{actor!r} was due at {self.timers.get(actor)}, not {before}"
            assert before != now
            if now is None:
                del self.timers[actor]
            else:
                self.timers[actor] = now
        self.log.append(batch.outputs)
        if batch.through >= 0:
            self.position = batch.through

    async def durable(self) -> None:
        """Memory is as durable as it gets."""

    def partition_for(self, key: bytes) -> int:
        return self.log.partition_for(key)

    def _check_owner(self) -> None:
        if not self._is_owner:
            raise Fenced(f"{self.topic}-{self.number} was opened once more")


class MemoryDefinitions:
    """The bodies that have arrived so far."""

    def __init__(self) -> None:
        self._bodies: dict[str, Definition] = {}
        self.asked_for: list[str] = []  # what somebody had to wait for
        self._arrived = asyncio.Event()

    def find(self, key: str) -> Definition | None:
        return self._bodies.get(key)

    async def wait(self, key: str) -> Definition:
        while (found := self.find(key)) is None:
            self.asked_for.append(key)
            self._arrived.clear()
            await self._arrived.wait()
        return found

    def all(self) -> Iterable[Definition]:
        return list(self._bodies.values())

    def arrive(self, definition: Definition) -> None:
        self._bodies[definition.key] = definition
        self._arrived.set()

    def forget(self) -> None:
        """As in a process that has just begun to read them."""
        self._bodies.clear()
