"""Which records of `events` are inputs, and whose.

The ingress lets through only what is sound, but producers may write to the topic themselves. So each record is judged once
more, by what is in the record alone: every worker must come to the same answer, however large its stack. What an event may
be like besides is judged by `engine.actor.check`.
"""

import re
from collections.abc import Callable

import msgspec

from engine.errors import InvalidInput
from engine.events import MAX_DEPTH
from schemas.inputs import Input
from schemas.records import Headers, Record

MAX_KEY_BYTES = 512
MAX_INPUT_BYTES = 131_072  # four times the largest event over HTTP
KINDS = (b"quota", b"campaign")
TENANT = re.compile(rb"[a-z0-9-]{1,64}\Z")

_decode: Callable[[bytes], Input] = msgspec.json.Decoder(Input).decode


def input_of(record: Record) -> Input:
    """Return what a record holds. Raises InvalidInput, saying why it holds nothing that can be folded."""
    value = record.value
    if value is None:
        raise InvalidInput("the record has no value")
    if len(value) > MAX_INPUT_BYTES:
        raise InvalidInput(f"the record takes {len(value)} bytes; {MAX_INPUT_BYTES} is the limit")
    try:
        return _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"not an input: {error}") from None
    except RecursionError:
        raise InvalidInput(f"the event nests deeper than {MAX_DEPTH} levels") from None


def tenant_of(key: bytes) -> bytes:
    """Return the tenant of an actor's key, whatever kind of actor it is."""
    return key.partition(b":")[0].partition(b"/")[0]


def check_tenant(headers: Headers, tenant: str) -> None:
    """Raise InvalidInput if a record's headers name another tenant than its key: the key decides."""
    for name, value in headers:
        if name == "tenant" and value != tenant.encode():
            raise InvalidInput("the header names another tenant than the key")


def owner_of(key: bytes) -> tuple[str, str, str]:
    """Return (tenant, kind, id) of a key; kind is empty for a user. Raises InvalidInput."""
    owner, colon, id = key.partition(b":")
    tenant, slash, kind = owner.partition(b"/")
    if not colon or not id or len(key) > MAX_KEY_BYTES or not TENANT.match(tenant) or (slash and kind not in KINDS):
        raise InvalidInput("the key is not tenant:user")
    try:
        return tenant.decode(), kind.decode(), id.decode()
    except UnicodeDecodeError:
        raise InvalidInput("the key is not UTF-8") from None
