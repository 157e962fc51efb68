"""What one partition keeps on this machine: its states, their timers, and how far both go.

The changelog decides, the store is a copy of it that can be made again. With the states it holds two stamps: through
which offset of the source they go (written to the changelog, too, in the states' own transaction) and through which
offset of the changelog. A store is thrown away and made anew where it may have missed a tombstone (the erased would come
back) or belongs to something else. One that is damaged is set aside by whoever opens it.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.runtime.host import Batch
from engine.runtime.states import USER, check_format
from engine.runtime.store import Keyspace, Memory, RocksStore, Write
from engine.runtime.timers import TimerIndex
from schemas.records import Record

FORMAT = "kafka partition 1"
STATES, TIMERS, META = "states", "timers", "meta"
SOURCE = b"\0source"  # in the changelog, where no state's key begins with a NUL
_THROUGH, _CHANGELOG, _WRITTEN_AT, _IDENTITY = b"through", b"changelog", b"written_at", b"identity"
AFTER_USERS = b"v"


class PartitionStore:
    """The store of one partition, open. `has_timers`: its states are users, who may wait for a time."""

    def __init__(self, store: RocksStore, has_timers: bool) -> None:
        self._store = store
        self._has_timers = has_timers
        self.states = Keyspace(store, STATES)
        self.timers = TimerIndex(store, TIMERS, META)
        self.through = self._number(_THROUGH, -1)
        self.changelog = self._number(_CHANGELOG, -1)
        self.written_at = self._number(_WRITTEN_AT, 0)
        self._belongs_to = store.get(META, _IDENTITY)

    @classmethod
    def open(
        cls, path: Path, memory: Memory, identity: str, not_before: int, has_timers: bool
    ) -> "tuple[PartitionStore, str]":
        """Open the store in `path`, and say why it had to begin anew ("" if it had not).

        `identity` names what it belongs to: cluster, app, partition. One last written before `not_before` (ms) is
        thrown away. Raises StoreDamaged, or PartitionStopped if the directory cannot be used.
        """
        store = cls._open(path, memory, has_timers)
        reason = store._unusable_because(identity, not_before)
        if reason:
            store.close()
            shutil.rmtree(path)
            store = cls._open(path, memory, has_timers)
        store._store.write([(META, _IDENTITY, identity.encode())])
        return store, reason

    @classmethod
    def _open(cls, path: Path, memory: Memory, has_timers: bool) -> "PartitionStore":
        store = RocksStore.open(path, (STATES, TIMERS, META), FORMAT, memory)
        try:
            return cls(store, has_timers)
        except BaseException:
            store.close()
            raise

    def apply(self, batch: Batch, through: int, changelog: int, now_at: int) -> None:
        """Take over what a batch came to, at once, after its transaction was committed."""
        writes: list[Write] = [(STATES, key, value) for key, value in batch.states.items()]
        if batch.timers:
            writes += self.timers.writes(batch.timers)
        self._write(writes, through, changelog, now_at)

    def absorb(self, records: Sequence[Record], now_at: int) -> None:
        """Take over what was read from the changelog.

        How long the store may be away counts from when the reading began, or from when it was last up to date: what it
        reads now was written long ago, and deletions after it may be forgotten. Raises PartitionStopped for states of a format
        that this version doesn't know: nothing of these records is taken over then.
        """
        through = self.through
        latest: dict[bytes, bytes | None] = {}
        for record in records:
            assert record.key is not None
            if record.key == SOURCE:
                through = int(record.value or b"-1")
            else:
                if self._has_timers and record.value and record.key.startswith(USER):
                    check_format(record.value)
                latest[record.key] = record.value
        writes: list[Write] = [(STATES, key, value) for key, value in latest.items()]
        if self._has_timers and self.timers.is_complete:
            writes += self.timers.writes(
                {
                    key[1:]: (_due_at(self.states.get(key)), _due_at(value))
                    for key, value in latest.items()
                    if key.startswith(USER)
                }
            )
        self._write(writes, through, records[-1].offset, self.written_at if self.changelog >= 0 else now_at)

    def complete_timers(self) -> Iterator[None]:
        """Make the index of timers from the states where there is none yet, in steps."""
        if not self.timers.is_complete:
            for _ in self.timers.rebuild(self.states.scan(USER, AFTER_USERS) if self._has_timers else ()):
                yield

    def confirm(self, now_at: int) -> None:
        """Note that the store goes to where the changelog ended then."""
        self._write([], self.through, self.changelog, now_at)

    def close(self) -> None:
        self._store.close()

    def _write(self, writes: list[Write], through: int, changelog: int, now_at: int) -> None:
        writes += (
            (META, _THROUGH, b"%d" % through),
            (META, _CHANGELOG, b"%d" % changelog),
            (META, _WRITTEN_AT, b"%d" % now_at),
        )
        self._store.write(writes)
        self.through, self.changelog, self.written_at = through, changelog, now_at

    def _number(self, key: bytes, default: int) -> int:
        value = self._store.get(META, key)
        return default if value is None else int(value)

    def _unusable_because(self, identity: str, not_before: int) -> str:
        found = self._belongs_to
        if found is not None and found.decode() != identity:
            return f"it belongs to {found.decode()}, not to {identity}"
        if self.changelog >= 0 and self.written_at < not_before:
            return "it was away for so long that it may have missed deletions"
        return ""


def set_aside(path: Path) -> Path:
    """Move a store out of the way, for whoever wants to know what became of it; return where to. The one before goes."""
    aside = path.with_name(f"{path.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    return aside


def _due_at(state: bytes | None) -> int | None:
    return int.from_bytes(state[1:9]) or None if state else None
