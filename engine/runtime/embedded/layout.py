"""Which keys the embedded host keeps in which family, and how records become bytes.

| family | key | value |
|---|---|---|
| log | topic 0 partition(2) last offset(8) | a *group* of records appended together: last timestamp(8), msgpack |
| tables | topic 0 key | the latest record of that key, msgpack: the compacted topics |
| states | topic 0 partition(2) key | what the loop of that partition keeps |
| timers | topic 0 partition(2) due(8) hash(8) actor | nothing: see `engine/runtime/timers.py` |
| meta | `partitions` | how many partitions a topic has(2), fixed when the directory is made |
| meta | `position` topic 0 partition(2) | the offset through which a partition is folded(8) |
| meta | `end` topic | the next offset of a compacted topic(8) |

All numbers are big-endian, so that keys sort by them. Topics have the names the engine knows: `events`, `journal` ...
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

import msgspec

from engine.runtime.store import KeyValueStore, after_prefix
from schemas.records import Record

FORMAT = "equeengage embedded 1"
LOG, TABLES, STATES, TIMERS, META = FAMILIES = ("log", "tables", "states", "timers", "meta")
COMPACTED = frozenset({"definitions", "suppressions"})  # kept as tables, in one partition
PARTITIONS_KEY = b"partitions"

_encoder = msgspec.msgpack.Encoder()
_group_decoder = msgspec.msgpack.Decoder(list[Record])
_record_decoder = msgspec.msgpack.Decoder(Record)


def store_path(data: Path) -> Path:
    """Where in a data directory the store is; the rest of the directory belongs to others."""
    return data / "store"


def partition_of(key: bytes, count: int) -> int:
    return crc32(key) % count


def partition_prefix(topic: str, number: int) -> bytes:
    return topic.encode() + b"\0" + number.to_bytes(2)


def group_key(prefix: bytes, last_offset: int) -> bytes:
    return prefix + last_offset.to_bytes(8)


def encode_group(records: Sequence[Record]) -> bytes:
    return records[-1].timestamp.to_bytes(8) + _encoder.encode(records)


def decode_group(value: bytes) -> list[Record]:
    return _group_decoder.decode(memoryview(value)[8:])


def last_timestamp(group: bytes) -> int:
    return int.from_bytes(group[:8])


def last_offset(key: bytes) -> int:
    return int.from_bytes(key[-8:])


def table_prefix(topic: str) -> bytes:
    return topic.encode() + b"\0"


def encode_record(record: Record) -> bytes:
    return _encoder.encode(record)


def decode_record(value: bytes) -> Record:
    return _record_decoder.decode(value)


def position_key(topic: str, number: int) -> bytes:
    return b"position" + partition_prefix(topic, number)


def end_key(topic: str) -> bytes:
    return b"end" + topic.encode()


def read_number(store: KeyValueStore, key: bytes, otherwise: int) -> int:
    """Return a number of the family `meta`."""
    value = store.get(META, key)
    return otherwise if value is None else int.from_bytes(value)


def read_groups(store: KeyValueStore, prefix: bytes, from_offset: int) -> Iterator[list[Record]]:
    """Yield the groups of a partition, the first being the one that holds `from_offset` or follows it."""
    for _, value in store.scan(LOG, group_key(prefix, from_offset), after_prefix(prefix)):
        yield decode_group(value)


def read_table(store: KeyValueStore, topic: str) -> Iterator[Record]:
    prefix = table_prefix(topic)
    for _, value in store.scan(TABLES, prefix, after_prefix(prefix)):
        yield decode_record(value)
