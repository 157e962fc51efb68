"""When an event occurred, although the sender's clock may be wrong.

An SDK says when the event happened (`timestamp`) and when it sent it (`sentAt`), both by the clock of the device. The
difference is right even where the clock is not, so, as Segment does:

    occurred_at = received_at - (sent_at - timestamp)

Without `sentAt` the timestamp is taken as it is; without a timestamp the event occurred when it was received. What then
lies in the future is for the engine to clamp, which knows the time of the log.
"""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from agents.ingress.refusals import Refusal

Timestamp = str | int | float | None

_LAST: Final = 253_402_300_799_999  # the end of the year 9999, in milliseconds
_SECONDS_UNTIL: Final = 100_000_000_000  # A number below that is seconds (the year 5138), above it milliseconds (1973).


def occurred_at(timestamp: Timestamp, sent_at: object, received_at: int) -> int:
    """When an event occurred, ms. Raises a Refusal if the timestamp cannot be read; a bad `sentAt` is not used."""
    if timestamp is None or timestamp == "":
        return received_at
    at = read(timestamp)
    if sent_at and isinstance(sent_at, str | int | float):
        with suppress(Refusal):
            at += received_at - read(sent_at)
    return min(max(at, 0), _LAST)


def read(timestamp: str | int | float) -> int:
    """ISO 8601 (UTC if it names no zone), or a number of seconds or milliseconds since 1970, as milliseconds."""
    try:
        if isinstance(timestamp, str):
            moment = datetime.fromisoformat(timestamp.strip())
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            return round(moment.timestamp() * 1000)
        milliseconds = round(timestamp * 1000) if abs(timestamp) < _SECONDS_UNTIL else round(timestamp)
    except (ValueError, OverflowError):
        milliseconds = _LAST + 1
    if abs(milliseconds) > _LAST:
        raise Refusal("timestamp", f"{str(timestamp)[:40]!r} is not a time; write it like 2025-01-31T12:00:00Z")
    return milliseconds
