"""What every store promises, on RocksDB and in memory; and what RocksDB says when it can't."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import Options, Rdict

from engine.runtime.host import PartitionStopped
from engine.runtime.store import Keyspace, KeyValueStore, Memory, MemoryStore, RocksStore, Write, after_prefix

FAMILIES = ("one", "two")
ROOT = Path(__file__).parent.parent.parent


def open_rocks(path: Path, **options: bool) -> RocksStore:
    return RocksStore.open(path, FAMILIES, "test 1", Memory(1 << 20, 4 << 20), **options)


class Bench:
    """A store, and how to find it again."""

    def __init__(self, kind: str, path: Path) -> None:
        self.path = path
        self.store: KeyValueStore = MemoryStore(FAMILIES) if kind == "memory" else open_rocks(path)

    def reopen(self) -> KeyValueStore:
        if isinstance(self.store, MemoryStore):
            self.store = self.store.reopen()
        else:
            self.store.close()
            self.store = open_rocks(self.path)
        return self.store


@pytest.fixture(params=["memory", "rocksdb"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(request.param, tmp_path / "store")
    yield bench
    bench.store.close()


def test_a_write_is_seen_at_once_in_its_family_alone(bench: Bench) -> None:
    bench.store.write([("one", b"a", b"1")])

    assert bench.store.get("one", b"a") == b"1"
    assert bench.store.get("two", b"a") is None


def test_of_two_writes_to_a_key_in_one_batch_the_later_counts(bench: Bench) -> None:
    bench.store.write([("one", b"a", b"1"), ("one", b"a", None), ("one", b"b", None), ("one", b"b", b"2")])

    assert list(bench.store.scan("one")) == [(b"b", b"2")]


def test_an_empty_value_is_a_value(bench: Bench) -> None:
    bench.store.write([("one", b"a", b"")])

    assert bench.store.get("one", b"a") == b""


def test_a_scan_goes_from_start_to_before_stop_in_order(bench: Bench) -> None:
    bench.store.write([("one", bytes([letter]), b"") for letter in b"ecadb"])

    assert [key for key, _ in bench.store.scan("one", b"b", b"e")] == [b"b", b"c", b"d"]
    assert [key for key, _ in bench.store.scan("one", b"b", b"e", backwards=True)] == [b"d", b"c", b"b"]
    assert [key for key, _ in bench.store.scan("one", backwards=True)] == [b"e", b"d", b"c", b"b", b"a"]


def test_a_long_scan_misses_and_repeats_nothing(bench: Bench) -> None:
    keys = [number.to_bytes(4) for number in range(5000)]
    bench.store.write([("one", key, b"") for key in keys])

    assert [key for key, _ in bench.store.scan("one")] == keys
    assert [key for key, _ in bench.store.scan("one", backwards=True)] == keys[::-1]


def test_what_a_scan_has_yet_to_reach_may_be_deleted_under_it(bench: Bench) -> None:
    bench.store.write([("one", number.to_bytes(4), b"") for number in range(3000)])
    seen = []
    for key, _ in bench.store.scan("one"):
        seen.append(key)
        bench.store.write([("one", key, None)])

    assert len(seen) == 3000
    assert list(bench.store.scan("one")) == []


def test_a_range_is_deleted_as_one(bench: Bench) -> None:
    bench.store.write([("one", bytes([letter]), b"") for letter in b"abcde"])
    bench.store.delete_range("one", b"b", b"d")

    assert [key for key, _ in bench.store.scan("one")] == [b"a", b"d", b"e"]


def test_a_store_is_found_again_as_it_was_left(bench: Bench) -> None:
    bench.store.write([("one", b"a", b"1"), ("two", b"b", b"2")])
    bench.store.delete_range("two", b"a", b"c")
    found = bench.reopen()

    assert list(found.scan("one")) == [(b"a", b"1")]
    assert list(found.scan("two")) == []


def test_a_scan_left_halfway_does_not_keep_the_store(bench: Bench) -> None:
    bench.store.write([("one", number.to_bytes(2), b"") for number in range(100)])
    scan = bench.store.scan("one")
    next(scan)
    bench.reopen()  # RocksDB would refuse, were an iterator still alive

    with pytest.raises((PartitionStopped, KeyError)):
        list(scan)


def test_a_keyspace_shows_the_keys_behind_its_prefix(bench: Bench) -> None:
    bench.store.write([("one", b"p1a", b"1"), ("one", b"p1b", b"2"), ("one", b"p2a", b"3")])
    space = Keyspace(bench.store, "one", b"p1")

    assert space.get(b"a") == b"1"
    assert list(space.scan()) == [(b"a", b"1"), (b"b", b"2")]
    assert list(space.scan(b"b")) == [(b"b", b"2")]
    assert list(space.scan(b"a", b"b")) == [(b"a", b"1")]


@given(prefix=st.binary(max_size=3), key=st.binary(max_size=5))
def test_a_key_lies_below_the_end_of_a_prefix_when_it_begins_with_it(prefix: bytes, key: bytes) -> None:
    end = after_prefix(prefix)

    assert (prefix <= key and (end is None or key < end)) == (
        key.startswith(prefix) if end is not None else key >= prefix
    )


keys = st.binary(min_size=1, max_size=2)
writes = st.lists(st.tuples(st.sampled_from(FAMILIES), keys, st.none() | st.binary(max_size=3)), max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.one_of(writes, st.tuples(keys, keys), st.just("reopen")), max_size=12),
    bounds=st.tuples(keys, keys),
)
@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
def test_a_store_equals_a_dict(kind: str, batches: list[object], bounds: tuple[bytes, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(kind, Path(folder) / "store")
        expected: dict[str, dict[bytes, bytes]] = {family: {} for family in FAMILIES}
        for batch in batches:
            if batch == "reopen":
                bench.reopen()
            elif isinstance(batch, tuple):
                start, stop = sorted(batch)
                bench.store.delete_range("one", start, stop)
                expected["one"] = {key: value for key, value in expected["one"].items() if not start <= key < stop}
            else:
                assert isinstance(batch, list)
                bench.store.write(batch)
                _apply(expected, batch)
        start, stop = sorted(bounds)
        for family in FAMILIES:
            inside = sorted((key, value) for key, value in expected[family].items() if start <= key < stop)
            assert list(bench.store.scan(family)) == sorted(expected[family].items())
            assert list(bench.store.scan(family, start, stop)) == inside
            assert list(bench.store.scan(family, start, stop, backwards=True)) == inside[::-1]
        bench.store.close()


def _apply(expected: dict[str, dict[bytes, bytes]], batch: list[Write]) -> None:
    for family, key, value in batch:
        if value is None:
            expected[family].pop(key, None)
        else:
            expected[family][key] = value


# What the store in memory is for: losing what no sync has covered.


def test_a_crash_loses_what_was_not_synced_and_nothing_else() -> None:
    store = MemoryStore(FAMILIES)
    store.write([("one", b"a", b"1"), ("one", b"b", b"1")])
    store.sync()
    store.write([("one", b"a", b"2"), ("one", b"b", None), ("two", b"c", b"3")])
    found = store.crash()

    assert list(found.scan("one")) == [(b"a", b"1"), (b"b", b"1")]
    assert list(found.scan("two")) == []
    with pytest.raises(PartitionStopped):
        store.get("one", b"a")


@given(batches=st.lists(writes, max_size=8), synced=st.integers(0, 8), surviving=st.integers(0, 8))
def test_a_crash_leaves_all_writes_up_to_some_point_and_none_after(
    batches: list[list[Write]], synced: int, surviving: int
) -> None:
    store = MemoryStore(FAMILIES)
    for number, batch in enumerate(batches):
        if number == synced:
            store.sync()
        store.write(batch)
    kept = min((synced if synced < len(batches) else 0) + surviving, len(batches))
    expected: dict[str, dict[bytes, bytes]] = {family: {} for family in FAMILIES}
    for batch in batches[:kept]:
        _apply(expected, batch)
    found = store.crash(surviving)

    assert {family: dict(found.scan(family)) for family in FAMILIES} == expected


# What RocksDB says when it can't: what was found, and what to do.


def test_a_directory_is_refused_while_another_process_has_it(tmp_path: Path) -> None:
    store = open_rocks(tmp_path / "store")
    said = _open_elsewhere(tmp_path / "store")
    store.close()

    assert "in use by another process: stop that one" in said
    assert _open_elsewhere(tmp_path / "store") == "opened"


def test_a_directory_is_refused_a_second_time_in_one_process(tmp_path: Path) -> None:
    store = open_rocks(tmp_path / "store")
    with pytest.raises(PartitionStopped, match="in use"):
        open_rocks(tmp_path / "store")
    store.close()


def test_a_reader_sees_the_store_as_it_is_while_a_writer_has_it(tmp_path: Path) -> None:
    store = open_rocks(tmp_path / "store")
    store.write([("one", b"a", b"1")])
    reader = open_rocks(tmp_path / "store", read_only=True)
    store.write([("one", b"a", b"2")])

    assert reader.get("one", b"a") == b"1"
    with pytest.raises(PartitionStopped, match="read only"):
        reader.write([("one", b"a", b"3")])
    reader.close()
    store.close()


def test_a_reader_is_told_where_there_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(PartitionStopped, match="holds no store"):
        open_rocks(tmp_path / "store", read_only=True)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("families", "format"), [(FAMILIES, "test 2"), (("one",), "test 1")])
def test_another_versions_directory_is_refused(tmp_path: Path, families: tuple[str, ...], format: str) -> None:
    open_rocks(tmp_path / "store").close()
    with pytest.raises(PartitionStopped, match="another data directory"):
        RocksStore.open(tmp_path / "store", families, format, Memory())
    open_rocks(tmp_path / "store").close()  # and left as it was


@pytest.mark.parametrize("raw", [True, False])
def test_a_strangers_rocksdb_is_refused(tmp_path: Path, raw: bool) -> None:
    options = Options(raw_mode=raw)
    options.create_if_missing(True)
    db = Rdict(str(tmp_path / "store"), options)
    db[b"a"] = b"1"
    db.close()
    with pytest.raises(PartitionStopped, match="another data directory"):
        RocksStore.open(tmp_path / "store", (), "test 1", Memory())


def test_a_file_is_refused_as_a_directory(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(PartitionStopped, match="is a file: give a directory"):
        open_rocks(tmp_path / "store")


def test_a_directory_one_may_not_write_to_is_refused_with_the_reason() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        path = Path(folder) / "store"
        open_rocks(path).close()
        path.parent.chmod(0o755)
        path.chmod(0o555)
        said = _open_elsewhere(path, before="import os, pickle; os.geteuid() or os.seteuid(65534)")
        path.chmod(0o755)

    assert "may not be written by this user: change its owner" in said


def test_damage_is_noticed_when_it_is_read_and_never_passes_for_an_end(tmp_path: Path) -> None:
    path = tmp_path / "store"
    _write_files(path)
    largest = max(path.glob("*.sst"), key=lambda file: file.stat().st_size)
    data = bytearray(largest.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = os.urandom(64)
    largest.write_bytes(data)
    store = open_rocks(path)

    for backwards in (False, True):
        with pytest.raises(PartitionStopped, match="is damaged: check the disk"):
            list(store.scan("one", backwards=backwards))
    with pytest.raises(PartitionStopped, match="is damaged: check the disk"):
        _ = [store.get("one", number.to_bytes(4)) for number in range(20_000)]
    store.close()


@pytest.mark.parametrize("missing", ["*.sst", "CURRENT", "MANIFEST*"])
def test_a_directory_with_a_file_missing_is_refused(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "store"
    _write_files(path)
    next(path.glob(missing)).unlink()

    with pytest.raises(PartitionStopped, match="damaged"):
        open_rocks(path)


def test_a_disk_that_takes_no_more_is_an_error_that_stays(tmp_path: Path) -> None:
    said = _elsewhere(
        f"""
import resource
store = RocksStore.open(Path({str(tmp_path / "store")!r}), ("one", "two"), "test 1", Memory())
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
written = 0
for attempt in range(1000):
    try:
        store.write([("one", attempt.to_bytes(4), bytes(1000))])
        store.sync()
        assert attempt == written, "a write after a failed one went through"
        written += 1
    except PartitionStopped as error:
        said = str(error)
try:
    store.close()
except PartitionStopped as error:
    said = str(error)
print(written, said)
"""
    )
    written, _, message = said.partition(" ")
    assert "cannot grow" in message
    store = open_rocks(tmp_path / "store")
    found = [int.from_bytes(key) for key, _ in store.scan("one")]
    store.close()
    assert found[: int(written)] == list(range(int(written))), "what was synced is there"
    assert 0 < int(written) < 1000


def _write_files(path: Path) -> None:
    """Leave a store with tables on the disk, larger than a block."""
    store = open_rocks(path)
    for start in range(0, 20_000, 1000):
        store.write([("one", number.to_bytes(4), os.urandom(500)) for number in range(start, start + 1000)])
    store.close()


def _open_elsewhere(path: Path, before: str = "") -> str:
    return _elsewhere(
        f"""
{before}
try:
    RocksStore.open(Path({str(path)!r}), ("one", "two"), "test 1", Memory()).close()
    print("opened")
except PartitionStopped as error:
    print(error)
"""
    )


def _elsewhere(code: str) -> str:
    """Return what code prints in another process."""
    imports = """
from pathlib import Path
from engine.runtime.host import PartitionStopped
from engine.runtime.store import Memory, RocksStore
"""
    done = subprocess.run([sys.executable, "-c", imports + code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
