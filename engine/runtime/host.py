"""What a host gives to the loops that run on it: a log, and partitions with a store.

Two hosts exist, with the same promises and one contract test-suite: `embedded` (one process, RocksDB is log and state)
and `kafka`. A loop takes a batch of records from its partition, folds it, and hands back one `Batch`; the host makes the
batch's outputs, states and position durable together or not at all.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from schemas.definitions import Definition
from schemas.records import NewRecord, Record


class Overloaded(Exception):  # noqa: N818 - says what is the case
    """The log takes no more at the moment: answer 429 and ask to come back."""

    def __init__(self, retry_after_seconds: float = 1.0) -> None:
        super().__init__(f"the log is full for the moment; retry in {retry_after_seconds:g} s")
        self.retry_after_seconds = retry_after_seconds


class Unavailable(Exception):  # noqa: N818 - says what is the case
    """The log cannot be reached at all (the broker is down): answer 503. Nothing is known to be appended."""


class Fenced(Exception):  # noqa: N818 - says what is the case
    """Another worker owns this partition now. Nothing of the batch was written; stop at once."""


class PartitionStopped(Exception):  # noqa: N818 - says what is the case
    """The partition must not go on until an operator has looked: the message says what was found and what to do."""


@dataclass(slots=True)
class Batch:
    """What folding some records came to. `through` is the offset of the last record folded, or -1 if none was read."""

    through: int
    states: dict[bytes, bytes | None] = field(default_factory=dict)  # None deletes
    outputs: list[NewRecord] = field(default_factory=list)
    timers: dict[bytes, tuple[int | None, int | None]] = field(default_factory=dict)  # actor -> due before, due now


class Store(Protocol):
    """The durable states of one partition: an ordered map of bytes."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs with start <= key < stop in order. Close or exhaust it before the store is closed."""
        ...


class PartitionHost(Protocol):
    """One partition of one topic, with the store that belongs to it, while we own it."""

    topic: str
    number: int
    count: int  # how many partitions the topic has
    store: Store

    async def poll(self, limit: int, timeout_seconds: float) -> Sequence[Record]:
        """Return up to `limit` records in order, those after the last committed batch's and not returned before;
        an empty sequence after the timeout. `wake()` ends a waiting poll early."""
        ...

    def wake(self) -> None: ...

    async def commit(self, batch: Batch) -> None:
        """Apply the batch: states, outputs, timers and position, all or nothing.

        When it returns, the outputs can be read by others. Embedded, the batch may not have reached the disk yet: call
        `durable()` before anything leaves the process because of it. Raises Fenced when the partition was lost.
        """
        ...

    async def durable(self) -> None:
        """Return when all that was committed or appended so far survives a crash of the machine."""
        ...

    def partition_for(self, key: bytes) -> int:
        """The partition of `topic` that a key belongs to."""
        ...


class Log(Protocol):
    """Where anybody may append records, and what the small tables kept beside the log hold."""

    async def append(self, records: Sequence[NewRecord]) -> None:
        """Append in the given order and return when they are durable. Raises Overloaded or Unavailable."""
        ...

    async def append_atomically(self, records: Sequence[NewRecord]) -> None:
        """Append all records or none, durably (on Kafka: one transaction of `<app>-publisher`). For publishing."""
        ...

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        ...

    def read(self, topic: str, key: bytes) -> Iterable[Record]:
        """Yield the retained records of the partition that `key` belongs to, oldest first (for `trace`).

        Blocking: call it from a command or a thread, not from a server's event loop.
        """
        ...


class Definitions(Protocol):
    """The bodies of definitions, read from the compacted topic `definitions`."""

    def find(self, key: str) -> Definition | None: ...

    async def wait(self, key: str) -> Definition:
        """Return the body, waiting for it if it has not arrived yet."""
        ...

    def all(self) -> Iterable[Definition]: ...


class Suppressions(Protocol):
    """Which addresses get nothing more."""

    async def scope(self, tenant: str, channel: str, address: str, topic: str) -> str | None:
        """Return "all" or the topic if a suppression covers this message, else None.

        The answer takes into account everything appended up to a second before the call.
        """
        ...
