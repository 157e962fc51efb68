"""How entries stand in a record of the journal: lines of JSON, all that one input did to one user in one record.

An entry a line (NDJSON), in the order in which it happened. A record of one line is what records of the journal were
before they had lines, so both are read in the same way; and whoever loads lines of JSON can load what records hold.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from schemas.outputs import JournalEntry

LINES_TYPE: Final = ("content-type", b"application/x-ndjson")
MOST_BYTES: Final = 256 * 1024  # of a record: a quarter of what a topic takes by Kafka's default

_encode_lines = msgspec.json.Encoder().encode_lines
_decode_lines = msgspec.json.Decoder(JournalEntry).decode_lines


def write_entries(entries: Sequence[JournalEntry]) -> list[bytes]:
    """Return the values of the records that tell these entries, in order; none for no entries, and almost always one.

    More than 256 KiB are told in several records. Only an entry that is larger by itself makes a larger one.
    """
    if not entries:
        return []
    lines = _encode_lines(entries)[:-1]  # parted, not ended: what prints a record a line shows no empty ones
    return [lines] if len(lines) <= MOST_BYTES else list(_split(lines))


def read_entries(value: bytes | None) -> list[JournalEntry]:
    """Return the entries of a record, in order. Raises msgspec.DecodeError if it holds anything else."""
    return _decode_lines(value) if value else []


def _split(lines: bytes) -> Iterator[bytes]:
    begin = 0
    while len(lines) - begin > MOST_BYTES:
        end = lines.rfind(b"\n", begin, begin + MOST_BYTES + 1)  # Within JSON the end of a line is escaped.
        if end < 0:  # The line is larger by itself.
            end = lines.find(b"\n", begin)
        if end < 0:
            break
        yield lines[begin:end]
        begin = end + 1
    yield lines[begin:]
