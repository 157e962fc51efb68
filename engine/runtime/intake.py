"""Which records of `events` are inputs, and whose.

The ingress lets through only what is sound, but producers may write to the topic themselves. So the partition judges each
record once more, by what is in the record alone: a worker with another stack or less memory must come to the same answer.
Hence the limits; without one on nesting, where a value is too deep would depend on how deep the caller stands himself.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from engine.errors import InvalidInput
from schemas.inputs import Activated, Event, Input, UserInput
from schemas.records import Headers, Record

MAX_KEY_BYTES = 512
MAX_INPUT_BYTES = 131_072  # four times the largest event over HTTP
MAX_NESTING = 64  # levels, as over HTTP
MAX_NAME = 256  # characters of an event's name and id, as over HTTP: journal entries repeat them
TENANT = re.compile(rb"[a-z0-9-]{1,64}\Z")

_decode: Callable[[bytes], Input] = msgspec.json.Decoder(Input).decode


def input_of(record: Record) -> UserInput | Activated:
    """Return what a record holds. Raises InvalidInput, saying why it holds nothing that can be folded."""
    value = record.value
    if value is None:
        raise InvalidInput("the record has no value")
    if len(value) > MAX_INPUT_BYTES:
        raise InvalidInput(f"the record takes {len(value)} bytes; {MAX_INPUT_BYTES} is the limit")
    try:
        input = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"not an input: {error}") from None
    except RecursionError:
        raise InvalidInput(TOO_DEEP) from None
    if isinstance(input, Event):
        _check(input, value)
    return input


def owner_of(key: bytes, headers: Headers) -> tuple[str, str]:
    """Return (tenant, user) of a key. The key decides: a header that names another tenant makes the record invalid."""
    tenant, colon, user = key.partition(b":")
    if not colon or not user or len(key) > MAX_KEY_BYTES or not TENANT.match(tenant):
        raise InvalidInput("the key is not tenant:user")
    for name, value in headers:
        if name == "tenant" and value != tenant:
            raise InvalidInput("the header names another tenant than the key")
    try:
        return tenant.decode(), user.decode()
    except UnicodeDecodeError:
        raise InvalidInput("the key is not UTF-8") from None


TOO_DEEP = f"the event is nested more than {MAX_NESTING} levels deep"


def _check(event: Event, value: bytes) -> None:
    if not event.id:
        raise InvalidInput("the event has no id")
    if len(event.id) > MAX_NAME or len(event.name) > MAX_NAME:
        raise InvalidInput(f"the event's name or id takes more than {MAX_NAME} characters")
    # So few brackets can't be nested too deep: almost always there is nothing to look for.
    if value.count(b"{") + value.count(b"[") > MAX_NESTING and _depth([event.properties, event.profile]) > MAX_NESTING:
        raise InvalidInput(TOO_DEEP)


def _depth(values: list[Any]) -> int:
    """Return how many levels of objects and arrays the values have. Level by level: recursion has limits of its own."""
    depth = 0
    while values := [value for value in values if isinstance(value, dict | list)]:
        depth += 1
        values = [part for value in values for part in (value.values() if isinstance(value, dict) else value)]
    return depth
