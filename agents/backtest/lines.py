"""How a line of a recorded file becomes an input: in our own form, as kcat writes the topic, or in Segment's.

Our own form is what the topic `events` holds, with the user beside it, and the time of the record where that is known:

    {"user": "ada", "type": "event", "id": "m1", "name": "order_placed", "occurred_at": 1767603600000, "properties": {...}}

Instead of `user` there may be the record's `key` (`tenant:user`); `at` is the record's time, else it is the event's own.
Times are milliseconds, or ISO 8601. `kcat -C -e -J -t equeengage.events` writes a record of the topic a line, its value as text
in `payload`. Segment's form is what its SDKs send and its warehouses keep: one call a line.
"""

from collections.abc import Callable
from typing import Any, get_args

import msgspec
from msgspec import Struct

from agents.backtest.recording import Recorded
from agents.ingress import segment, timestamps
from agents.ingress.refusals import Refusal
from engine.errors import InvalidInput
from schemas.inputs import Event, UserInput

Read = Callable[[bytes, str], Recorded | None]
OURS = frozenset(kind.__struct_config__.tag for kind in get_args(UserInput))


class _Around(Struct):
    type: Any = None
    user: str | int | None = None
    key: str | None = None
    at: str | int | float | None = None
    occurred_at: str | int | float | None = None


class _Record(Struct):
    """A record of the topic as kcat writes it with -J. Those addressed to a partition have no key."""

    payload: str | None
    ts: int
    key: str | None = None


class _Received(Struct):
    """What Segment's archive knows beside the call: the time at which it was received."""

    receivedAt: str | int | float | None = None  # noqa: N815 - as it is written there
    sentAt: str | int | float | None = None  # noqa: N815


class _Named(Struct):
    """An event of ours whose time is written as a text, which the topic would not hold."""

    name: str
    id: str = ""
    properties: dict[str, Any] = {}
    profile: dict[str, Any] = {}


_record = msgspec.json.Decoder(_Record).decode
_around = msgspec.json.Decoder(_Around).decode
_input = msgspec.json.Decoder(UserInput).decode
_named = msgspec.json.Decoder(_Named).decode
_call = msgspec.json.Decoder(segment.Call).decode
_received = msgspec.json.Decoder(_Received).decode


def reader(first: bytes, tenant: str) -> Read:
    """Return what reads the lines of a file that begins with this one.

    It returns None for another tenant's line and raises InvalidInput where a line is no input; its second argument names the
    place, and stands in for an id where there is none.
    """
    try:
        kind = _around(first).type
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the first line is not a JSON object: {error}") from None
    if kind in segment.KINDS:
        return _read_segment
    if kind is None and _is_record(first):
        return lambda line, place: _read_record(line, tenant)
    if kind in OURS or kind is None:
        return lambda line, place: _read_ours(line, place, tenant)
    raise InvalidInput(
        f'the first line has "type": {kind!r}; it is {", ".join(sorted(OURS))} in our form, {", ".join(segment.KINDS)}'
        " in Segment's"
    )


def _read_ours(line: bytes, place: str, tenant: str) -> Recorded | None:
    try:
        around = _around(line)
        user = "" if around.user is None else str(around.user)
        if not user and around.key:
            owner, _, user = around.key.partition(":")
            if owner != tenant:
                return None
        if not user:
            raise InvalidInput("the line names no user: add user, or key")
        if isinstance(around.occurred_at, int) and around.type is not None:
            input = _input(line)
            if isinstance(input, Event) and not input.id:
                input = msgspec.structs.replace(input, id=place)
        elif around.type in (None, "event"):
            named = _named(line)
            at = around.occurred_at if around.occurred_at is not None else around.at
            input = Event(named.id or place, named.name, _time(at), named.properties, named.profile)
        else:
            input = _input(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not an input: {error}") from None
    at = around.at if around.at is not None else getattr(input, "occurred_at", None)
    return Recorded(user, _time(at), input)


def _is_record(line: bytes) -> bool:
    try:
        return bool(_record(line).ts)
    except msgspec.DecodeError:
        return False


def _read_record(line: bytes, tenant: str) -> Recorded | None:
    try:
        record = _record(line)
        owner, _, user = (record.key or "").partition(":")
        if owner != tenant or not user or record.payload is None:
            return None
        return Recorded(user, record.ts, _input(record.payload))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not a record of events: {error}") from None


def _read_segment(line: bytes, place: str) -> Recorded | None:
    try:
        call, received = _call(line), _received(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not a call: {error}") from None
    if not call.message_id:
        call.message_id = place
    known = next((at for at in (call.timestamp, received.receivedAt, received.sentAt) if at), None)
    at = _time(known)
    user, event = segment.read(line, call, None, None, at)
    return Recorded(user, event.occurred_at, event)


def _time(value: str | int | float | None) -> int:
    if value is None:
        raise InvalidInput("the line has no time: add occurred_at, or at")
    try:
        return timestamps.read(value)
    except Refusal as refusal:
        raise InvalidInput(refusal.detail) from None
