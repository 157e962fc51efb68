"""A record of the log, as both hosts read and write it."""

from typing import Final

from msgspec import Struct

Headers = tuple[tuple[str, bytes], ...]
JSON_TYPE: Final = ("content-type", b"application/json")


class Record(Struct, frozen=True, array_like=True, gc=False):
    """A record that was read. Has the attribute names of aiokafka's ConsumerRecord, which is used in its place."""

    offset: int
    timestamp: int  # milliseconds, given by the log when the record was appended
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class NewRecord(Struct, frozen=True, array_like=True, gc=False):
    """A record to append. `topic` is a logical name: "events", "messages.email", "journal" ...

    `partition` is None where the key decides. A record without a value is a tombstone.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
