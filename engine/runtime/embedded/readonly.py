"""How another process reads a data directory while a server runs on it: as it was when opened."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.runtime.embedded import layout, log
from engine.runtime.embedded.tables import EmbeddedDefinitions
from engine.runtime.store import Memory, RocksStore
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

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
