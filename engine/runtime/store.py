"""How bytes are kept: ordered maps in families, written atomically, in RocksDB or (for tests) in memory.

What every store promises:

- A *family* is an ordered map of bytes to bytes. `write` applies writes to any families, all of them or none.
- A write is visible at once, and survives a crash of the process. It survives a crash of the machine from the first
  `sync` on that began after it. What is lost in a crash is a suffix of the writes, never a part of one.
- A scan yields each key at most once, in order. It reads in pieces and holds nothing open between them, so it never
  outlives `close` (a RocksDB iterator left alive would keep the lock on the directory). What is written during a scan
  may or may not be seen by it.
- A store that cannot be opened, or fails later, raises `PartitionStopped` with what was found and what to do.

All stores of a process share one block cache and one budget for memtables: see `Memory`.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol, Self

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    ColumnFamily,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
)

from engine.runtime.host import PartitionStopped

Write = tuple[str, bytes, bytes | None]  # family, key, value; None deletes
Pair = tuple[bytes, bytes]

FORMAT_KEY = b"format"  # in the family that RocksDB always has
SMALLEST_PIECE, LARGEST_PIECE = 8, 1024  # pairs a scan reads at a time: few for who stops early, many for who goes on
LARGE_PIECE_BYTES = 1 << 20
OPENING_ATTEMPTS = 20  # of a reader beside a writer; one is enough unless the writer makes a file just then


class StoreDamaged(PartitionStopped):
    """What is on the disk is not what was written. Where it can be made again, it need not be mended."""


class StoreUnwritable(PartitionStopped):
    """The disk takes nothing at the moment. What was written before is sound, and once there is room all goes on."""


class KeyValueStore(Protocol):
    """The promises above, as methods."""

    def get(self, family: str, key: bytes) -> bytes | None: ...

    def scan(
        self, family: str, start: bytes = b"", stop: bytes | None = None, *, backwards: bool = False
    ) -> Iterator[Pair]:
        """Yield the pairs with start <= key < stop; `backwards`: the last one first."""
        ...

    def write(self, writes: Iterable[Write]) -> None: ...

    def delete_range(self, family: str, start: bytes, stop: bytes) -> None:
        """Delete all keys with start <= key < stop, at the price of one write. The disk space comes back by and by."""
        ...

    def sync(self) -> None:
        """Return when everything written before the call is on the disk. May be called in a thread."""
        ...

    def close(self) -> None: ...


class Keyspace:
    """The keys of a family that begin with a prefix, seen without it. What `PartitionHost.store` is made of."""

    def __init__(self, store: KeyValueStore, family: str, prefix: bytes = b"") -> None:
        self.store, self.family, self.prefix = store, family, prefix

    def get(self, key: bytes) -> bytes | None:
        return self.store.get(self.family, self.prefix + key)

    def scan(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[Pair]:
        cut = len(self.prefix)
        end = after_prefix(self.prefix) if stop is None else self.prefix + stop
        for key, value in self.store.scan(self.family, self.prefix + start, end):
            yield key[cut:], value


def after_prefix(prefix: bytes) -> bytes | None:
    """Return the smallest key above all keys that begin with `prefix`; None if there is none."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else None


class Memory:
    """What all stores of a process share: a block cache, and a budget for what is written and not yet in files.

    RocksDB alone would take 64 MiB of memtables for each family of each store. The figures are those that keep a whole
    server under 250 MB.
    """

    def __init__(self, cache_bytes: int = 64 << 20, write_buffer_bytes: int = 48 << 20) -> None:
        self.cache = Cache(cache_bytes)
        self.write_buffer_bytes = write_buffer_bytes
        self.write_buffers = WriteBufferManager(write_buffer_bytes, False)


class RocksStore:
    """A store in a directory of its own, which one process at a time may write to."""

    def __init__(self, path: Path, db: Rdict, families: Sequence[str]) -> None:
        self.path = path
        self._db = db
        self._families: dict[str, Rdict] = {name: db.get_column_family(name) for name in families}
        self._handles: dict[str, ColumnFamily] = {name: db.get_column_family_handle(name) for name in families}

    @classmethod
    def open(cls, path: Path, families: Sequence[str], format: str, memory: Memory, *, read_only: bool = False) -> Self:
        """Open the store in `path`, making it if it is not there. `format` names what is kept and how: a directory
        stamped with another one is refused.

        `read_only` works while another process writes: it shows the store as it is now, and later writes are not seen.
        """
        try:
            if read_only:
                db = _open_beside_a_writer(path, families, memory)
            else:
                path.mkdir(parents=True, exist_ok=True)
                _refuse_foreign_directory(path)
                db = _open_rocksdb(path, families, memory, read_only=False)
            store = cls(path, db, families)
        except Exception as error:
            raise _explained(path, error) from error
        try:
            store._check_format(format, read_only)
        except Exception as error:
            store.close()
            raise _explained(path, error) from error
        return store

    def get(self, family: str, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._families[family].get(key)
        except Exception as error:
            raise _explained(self.path, error) from error
        return value

    def scan(
        self, family: str, start: bytes = b"", stop: bytes | None = None, *, backwards: bool = False
    ) -> Iterator[Pair]:
        size = SMALLEST_PIECE
        while True:
            piece = self._read_piece(family, start, stop, backwards, size)
            if backwards and piece and piece[-1][0] < start:
                yield from [pair for pair in piece if pair[0] >= start]
                return
            yield from piece
            if len(piece) < size:
                return
            if backwards:
                stop = piece[-1][0]
            else:
                start = piece[-1][0] + b"\0"
            octets = sum([len(value) for _, value in piece])
            size = min(2 * size, LARGEST_PIECE) if octets < LARGE_PIECE_BYTES else max(1, size // 2)

    def write(self, writes: Iterable[Write]) -> None:
        batch = WriteBatch(raw_mode=True)
        put, delete, handles = batch.put, batch.delete, self._handles
        for family, key, value in writes:
            if value is None:
                delete(key, handles[family])
            else:
                put(key, value, handles[family])
        self._write(batch)

    def delete_range(self, family: str, start: bytes, stop: bytes) -> None:
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(start, stop, self._handles[family])
        self._write(batch)

    def sync(self) -> None:
        try:
            self._db.flush_wal(True)
        except Exception as error:
            raise _explained(self.path, error) from error

    def close(self) -> None:
        """Let go of the directory. Raises PartitionStopped if what was written last can't be brought to files; if it was
        synced, it is not lost."""
        opened, failure = [*self._families.values(), self._db], None
        self._handles.clear()  # each handle and family holds the database, and with it the lock
        self._families.clear()
        while opened:
            try:
                opened.pop(0).close()
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise _explained(self.path, failure) from failure

    def _write(self, batch: WriteBatch) -> None:
        try:
            self._db.write(batch)
        except Exception as error:
            raise _explained(self.path, error) from error

    def _read_piece(self, family: str, start: bytes, stop: bytes | None, backwards: bool, size: int) -> list[Pair]:
        try:
            column = self._families[family]
            bounds = ReadOptions()
            if stop is not None:
                bounds.set_iterate_upper_bound(stop)
            # No lower bound, also not backwards: with one, rocksdict 0.3.29 ends scans early and says nothing.
            piece: list[Pair] = list(islice(column.items(backwards, stop if backwards else start, bounds), size))
            if len(piece) < size:
                _check_end(column, bounds, piece[-1][0] if piece else None, backwards)
        except Exception as error:
            raise _explained(self.path, error) from error
        return piece

    def _check_format(self, format: str, read_only: bool) -> None:
        stamp = self._db.get(FORMAT_KEY)
        if stamp is None and not read_only and self._db.latest_sequence_number() == 0:
            self._db.put(FORMAT_KEY, format.encode())
            self.sync()
        elif stamp != format.encode():
            found = "no format stamp" if stamp is None else f"the format {stamp.decode(errors='replace')!r}"
            raise PartitionStopped(
                f"{self.path} has {found}, this version reads {format!r}: "
                "use the version that wrote it, or another data directory"
            )


def _open_beside_a_writer(path: Path, families: Sequence[str], memory: Memory) -> Rdict:
    """Open for reading while another process may write.

    RocksDB reads which files there are (the manifest), then the write-ahead logs. If the writer turns a log into a file
    in between, we would see neither, without any error. The manifest grows then; so what was opened counts only if it
    did not.
    """
    if not (path / "CURRENT").exists():
        raise PartitionStopped(f"{path} holds no store (yet); give the data directory of a server that has run")
    for attempt in range(OPENING_ATTEMPTS):
        manifest = _manifest(path)
        try:
            db = _open_rocksdb(path, families, memory, read_only=True)
        except Exception as error:
            if "No such file" not in str(error) or attempt == OPENING_ATTEMPTS - 1:
                raise
            continue
        if _manifest(path) == manifest:
            return db
        db.close()
    raise PartitionStopped(f"{path} changes too fast to be read: try again when the server has less to do")


def _manifest(path: Path) -> tuple[str, int]:
    """Return which manifest counts, and its size."""
    name = (path / "CURRENT").read_text().strip()
    try:
        return name, (path / name).stat().st_size
    except FileNotFoundError:  # replaced just now
        return name, -1


def _open_rocksdb(path: Path, families: Sequence[str], memory: Memory, read_only: bool) -> Rdict:
    access = AccessType.read_only(False) if read_only else AccessType.read_write()
    options = _options(memory)
    options.create_if_missing(not read_only)
    options.create_missing_column_families(not read_only)
    options.set_max_total_wal_size(memory.write_buffer_bytes)  # bounds what is replayed after a crash
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(3)  # RocksDB's own diary, of use after a disaster only
    options.set_max_log_file_size(4 << 20)
    options.set_stats_dump_period_sec(0)
    return Rdict(str(path), options, {name: _options(memory) for name in families}, access)


def _options(memory: Memory) -> Options:
    blocks = BlockBasedOptions()
    blocks.set_block_cache(memory.cache)
    blocks.set_cache_index_and_filter_blocks(True)  # so that they count towards the budget, too
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    blocks.set_bloom_filter(10, False)
    blocks.set_block_size(16 << 10)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_manager(memory.write_buffers)
    options.set_write_buffer_size(16 << 20)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_level_compaction_dynamic_level_bytes(True)
    return options


def _refuse_foreign_directory(path: Path) -> None:
    if not (path / "CURRENT").exists() and any(name.suffix == ".sst" for name in path.iterdir()):
        raise StoreDamaged(
            f"{path} is damaged: RocksDB's file CURRENT is missing. Restore a copy, or use another directory"
        )


def _check_end(column: Rdict, bounds: ReadOptions, last: bytes | None, backwards: bool) -> None:
    """Raise if a scan ended because of damage: `items` ends silently then, only a plain iterator tells."""
    iterator = column.iter(bounds)
    if last is None:
        iterator.seek_to_last() if backwards else iterator.seek_to_first()
    else:
        iterator.seek(last)
        iterator.prev() if backwards else iterator.next()
    iterator.status()


def _explained(path: Path, error: BaseException) -> PartitionStopped:
    if isinstance(error, PartitionStopped):
        return error
    text = str(error)
    for words, advice in _ADVICE.items():
        if words in text:
            return _KINDS.get(words, PartitionStopped)(f"{path} {advice} [{text}]")
    return PartitionStopped(f"{path}: RocksDB says: {text}")


_ADVICE = {
    "No space left": "is on a full disk: make room, then start again; nothing acknowledged is lost",
    "Disk quota exceeded": "may not grow beyond its quota: raise it, then start again; nothing acknowledged is lost",
    "File too large": "cannot grow: lift the file size limit (ulimit -f), then start again",
    "Read-only file system": "is on a read-only file system: mount it writable, or use another data directory",
    "Permission denied": "may not be written by this user: change its owner, or use another data directory",
    "Operation not permitted": "may not be written by this user: change its owner, or use another data directory",
    "LOCK": "is in use by another process: stop that one, or use another data directory",
    "lock hold": "is in use by another process: stop that one, or use another data directory",
    "Column families not opened": "was written by another version: use that one, or another data directory",
    "comparator": "was written by another program: use another data directory",
    "File exists": "is a file: give a directory",
    "Not a directory": "is a file: give a directory",
    "No such file": "is damaged, a file is missing: restore a copy (on Kafka it is set aside and made anew)",
    "Corruption": "is damaged: check the disk and restore a copy (on Kafka it is set aside and made anew)",
    "already closed": "was closed while in use: this is a bug",
}
_KINDS: dict[str, type[PartitionStopped]] = {
    "No such file": StoreDamaged,
    "Corruption": StoreDamaged,
    **dict.fromkeys(
        (
            "No space left",
            "Disk quota exceeded",
            "File too large",
            "Read-only file system",
            "Permission denied",
            "Operation not permitted",
        ),
        StoreUnwritable,
    ),
}


class MemoryStore:
    """A store in memory that loses in a crash what a machine would lose: everything not synced.

    For tests: the page cache survives kill -9, so with RocksDB alone no test could tell a missing sync.
    """

    def __init__(self, families: Sequence[str]) -> None:
        self._values: dict[str, dict[bytes, bytes]] = {name: {} for name in families}
        self._keys: dict[str, list[bytes]] = {name: [] for name in families}
        self._unsynced: list[list[Write]] = []  # for each write not synced: what undoes it, the newest last
        self._closed = False
        self.fails_with: PartitionStopped | None = None  # set it, and the next writes and syncs raise it

    def get(self, family: str, key: bytes) -> bytes | None:
        self._check_usable()
        return self._values[family].get(key)

    def scan(
        self, family: str, start: bytes = b"", stop: bytes | None = None, *, backwards: bool = False
    ) -> Iterator[Pair]:
        self._check_usable()
        keys = self._keys[family]
        chosen = keys[bisect_left(keys, start) : len(keys) if stop is None else bisect_left(keys, stop)]
        for key in reversed(chosen) if backwards else chosen:
            self._check_usable()
            value = self._values[family].get(key)
            if value is not None:
                yield key, value

    def write(self, writes: Iterable[Write]) -> None:
        self._check_usable(writing=True)
        undo: list[Write] = []
        for family, key, value in writes:
            undo.append((family, key, self._values[family].get(key)))
            self._put(family, key, value)
        self._unsynced.append(undo[::-1])

    def delete_range(self, family: str, start: bytes, stop: bytes) -> None:
        self.write([(family, key, None) for key, _ in self.scan(family, start, stop)])

    def sync(self) -> None:
        covered = len(self._unsynced)
        self._check_usable(writing=True)
        del self._unsynced[:covered]

    def close(self) -> None:
        self._closed = True

    def crash(self, surviving_writes: int = 0) -> "MemoryStore":
        """Return the store as it is found after the machine's crash; this one is dead. Of the writes that were not
        synced, the oldest `surviving_writes` happened to reach the disk all the same."""
        for undo in reversed(self._unsynced[surviving_writes:]):
            for family, key, value in undo:
                self._put(family, key, value)
        self._unsynced.clear()
        return self.reopen()

    def reopen(self) -> "MemoryStore":
        """Return the store as the next process finds it; this one is dead. What isn't synced may still be lost."""
        found = MemoryStore(list(self._values))
        found._values, found._keys, found._unsynced = self._values, self._keys, self._unsynced
        self._values, self._keys, self._unsynced = {}, {}, []
        self._closed = True
        return found

    def _put(self, family: str, key: bytes, value: bytes | None) -> None:
        values, keys = self._values[family], self._keys[family]
        if value is None:
            if values.pop(key, None) is not None:
                del keys[bisect_left(keys, key)]
        else:
            if key not in values:
                insort(keys, key)
            values[key] = value

    def _check_usable(self, writing: bool = False) -> None:
        if self._closed:
            raise PartitionStopped("the store was closed while in use: this is a bug")
        if writing and self.fails_with is not None:
            raise self.fails_with
