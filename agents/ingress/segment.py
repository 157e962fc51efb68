"""Segment's tracking API: how its calls become our events.

| call | event | properties | profile |
|---|---|---|---|
| track | the call's `event` | its properties | |
| identify | `identify` | | its traits, `null` removes one |
| page, screen | `page`, `screen` | its properties, and `name` and `category` of the call | |
| group | `group` | the traits of the group, and `groupId` | |
| alias | `alias` | `previousId` | |

- The user is `userId`, a number being written out. A call with an `anonymousId` only belongs to `anon:<anonymousId>`, an
  actor of its own. An `identify` with both makes it stand for the user, who takes over what it has (`engine/merging.py`);
  `alias` does so with `previousId`, whether that was an anonymous id or a user's.
- The event's id is `messageId`, by which the engine knows what it has seen. All of Segment's SDKs send one. A call
  without gets a fresh UUID: should its sender repeat it because an answer was lost, it counts twice.
- `context`, `integrations` and `options` are not kept.
"""

from collections.abc import Callable
from typing import Any, Final

from msgspec import DecodeError, Struct
from msgspec.json import Decoder
from uuid_utils import uuid7

from agents.ingress import contents, timestamps
from agents.ingress.refusals import Refusal
from agents.ingress.timestamps import Timestamp
from schemas.inputs import Event

LARGEST_BATCH: Final = 500_000  # bytes
LONGEST_ALIAS: Final = 400  # bytes: with the tenant it still is a key
NAMING: Final = frozenset({"identify", "alias"})  # the events that name other ids of their user

Id = str | int | float | None


class Call(Struct, rename="camel"):
    """A call of the tracking API, all kinds; fields that are not here are skipped."""

    type: str | None = None
    message_id: Id = None
    user_id: Id = None
    anonymous_id: Id = None
    event: str | None = None
    name: str | None = None
    category: str | None = None
    properties: dict[str, Any] | None = None
    traits: dict[str, Any] | None = None
    group_id: Id = None
    previous_id: Id = None
    timestamp: Timestamp = None
    sent_at: Any = None


class _Around(Struct, rename="camel"):
    """What can be known of a call that is none."""

    write_key: Any = None
    user_id: Any = None


_calls = Decoder(Call)
_around = Decoder(_Around)


def decode(raw: bytes) -> Call:
    """Raises a Refusal if the bytes are no call: `not_json`, `too_deep`, or `type` where only a field is wrong."""
    if len(raw) > contents.LARGEST_EVENT:
        raise Refusal("too_large", f"the event is larger than {contents.LARGEST_EVENT:,} bytes", user_of(raw))
    try:
        return _calls.decode(raw)
    except (DecodeError, ValueError, RecursionError) as error:
        why = contents.undecodable(error)
        why.user = user_of(raw)
        raise why from None


def write_key_in(body: bytes) -> object:
    """The write key in a body that may be wrong in other ways. Raises a Refusal if it is not JSON."""
    try:
        return _around.decode(body).write_key
    except (DecodeError, ValueError, RecursionError) as error:
        raise contents.undecodable(error) from None


def user_of(raw: bytes) -> str:
    """Whose call it seems to be, for looking it up in `events.invalid`."""
    try:
        return contents.identifier(_around.decode(raw).user_id, "userId")
    except (DecodeError, ValueError, RecursionError, Refusal, TypeError):
        return ""


def read(raw: bytes, call: Call, kind: str | None, sent_at: object, received_at: int) -> tuple[str, Event]:
    """The user and the event of a call. `kind` is that of the path; in a batch each call names its own.

    Raises a Refusal that says what is missing or wrong.
    """
    user = contents.identifier(call.user_id, "userId")
    if not user:
        anonymous = contents.identifier(call.anonymous_id, "anonymousId")
        if not anonymous:
            raise Refusal("no_user", "userId or anonymousId is required")
        user = f"anon:{anonymous}"
    try:
        translate = KINDS.get(kind or call.type or "")
        if translate is None:
            raise Refusal("kind", f"type must be one of {', '.join(KINDS)}, not {str(call.type)[:40]!r}")
        name, properties, profile = translate(call)
        contents.check(raw, properties or profile)
        event = Event(
            id=contents.identifier(call.message_id, "messageId") or str(uuid7()),
            name=name,
            occurred_at=timestamps.occurred_at(call.timestamp, sent_at, received_at),
            properties=properties,
            profile=profile,
            aliases=_aliases(call, name) if name in NAMING and call.user_id else (),
        )
    except Refusal as why:
        why.user = user
        raise
    return user, event


_Content = tuple[str, dict[str, Any], dict[str, Any]]


def _track(call: Call) -> _Content:
    name = call.event
    if not name or not name.strip():
        raise Refusal("no_event", "event is required: the name of what happened")
    return contents.identifier(name, "event"), call.properties or {}, {}


def _identify(call: Call) -> _Content:
    return "identify", {}, call.traits or {}


def _page(call: Call) -> _Content:
    return "page", _named(call), {}


def _screen(call: Call) -> _Content:
    return "screen", _named(call), {}


def _named(call: Call) -> dict[str, Any]:
    properties = call.properties or {}
    for key, value in (("name", call.name), ("category", call.category)):
        if value:
            properties.setdefault(key, value)
    return properties


def _group(call: Call) -> _Content:
    group = contents.identifier(call.group_id, "groupId")
    if not group:
        raise Refusal("no_group", "groupId is required")
    return "group", {**(call.traits or {}), "groupId": group}, {}


def _alias(call: Call) -> _Content:
    previous = contents.identifier(call.previous_id, "previousId")
    if not previous:
        raise Refusal("no_previous", "previousId is required")
    return "alias", {"previousId": previous}, {}


def _aliases(call: Call, name: str) -> tuple[str, ...]:
    """Other ids of the user. One that is none can't have been used, so it names nobody and the call is good all the same."""
    try:
        other = contents.identifier(call.anonymous_id if name == "identify" else call.previous_id, "the other id")
    except Refusal:
        return ()
    if not other or len(other.encode()) > LONGEST_ALIAS:
        return ()
    return (f"anon:{other}",) if name == "identify" else (other, f"anon:{other}")


KINDS: Final[dict[str, Callable[[Call], _Content]]] = {
    "track": _track,
    "identify": _identify,
    "page": _page,
    "screen": _screen,
    "group": _group,
    "alias": _alias,
}
