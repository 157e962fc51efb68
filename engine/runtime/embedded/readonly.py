"""How another process reads a data directory while a server runs on it: as it was when opened."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.runtime.embedded import layout, log
from engine.runtime.embedded.tables import EmbeddedDefinitions
from engine.runtime.store import Keyspace, Memory, RocksStore, after_prefix
from schemas.records import Record


class ReadOnlyLog:
    """What the log and the definitions held when the directory was opened, also what no sync has covered yet."""

    def __init__(self, store: RocksStore) -> None:
        self._store = store
        self._count = layout.read_number(store, layout.PARTITIONS_KEY, 1)
        self.definitions = EmbeddedDefinitions(store)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the data directory. Raises PartitionStopped where there is none, or it can't be read."""
        memory = Memory(8 << 20, 8 << 20)
        return cls(RocksStore.open(layout.store_path(path), layout.FAMILIES, layout.FORMAT, memory, read_only=True))

    def partitions(self, topic: str) -> int:
        return 1 if topic in layout.COMPACTED else self._count

    def read(self, topic: str, key: bytes) -> Iterator[Record]:
        """Yield the retained records of the partition that `key` belongs to, oldest first."""
        return log.read(self._store, self._count, topic, key)

    def read_partition(self, topic: str, number: int) -> Iterator[Record]:
        """Yield the retained records of one partition, oldest first."""
        for records in layout.read_groups(self._store, layout.partition_prefix(topic, number), 0):
            yield from records

    def offsets(self, topic: str, number: int) -> tuple[int, int]:
        """Return the offset of the first retained record of a partition, and the one after its last; equal if there is none."""
        prefix = layout.partition_prefix(topic, number)
        first = next((records[0].offset for records in layout.read_groups(self._store, prefix, 0)), None)
        if first is None:
            return 0, 0
        last = next(key for key, _ in self._store.scan(layout.LOG, prefix, after_prefix(prefix), backwards=True))
        return first, layout.last_offset(last) + 1

    def partition_of(self, key: bytes) -> int:
        return layout.partition_of(key, self._count)

    def folded(self, topic: str, number: int) -> tuple[int, Keyspace]:
        """Return through which offset a partition is folded (-1: not at all), and the states as of then."""
        position = self._store.get(layout.META, layout.position_key(topic, number))
        states = Keyspace(self._store, layout.STATES, layout.partition_prefix(topic, number))
        return -1 if position is None else int.from_bytes(position), states

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
