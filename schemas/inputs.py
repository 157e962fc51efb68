"""What an actor is given, one struct a kind; on the wire each is a JSON object whose `type` names the kind.

The record's key says whose input it is (`tenant:user`), the record's timestamp says when it is; neither is repeated
here.
"""

from typing import Any, Literal

from msgspec import Struct

ReceiptStatus = Literal[
    "accepted",  # the provider took it
    "delivered",  # the provider says it arrived
    "opened",
    "clicked",
    "bounced",  # refused for good: the address does not work
    "failed",  # refused for good, for another reason, or given up after the last retry
    "complained",  # marked as spam
    "unsubscribed",
    "dropped",  # a channel's own rule kept it back: suppressed, expired
    "unknown",  # the connection was lost after the request was written: it may have arrived
]


class Event(Struct, frozen=True, tag="event", tag_field="type", omit_defaults=True):
    """A fact about a user, from outside. Producers may write it to the `events` topic directly.

    `id` is the producer's and is what duplicates are recognised by. `profile` holds attributes to set on the user
    (`None` removes one): that is how `identify` arrives, under the name "identify".
    """

    id: str
    name: str
    occurred_at: int
    properties: dict[str, Any] = {}
    profile: dict[str, Any] = {}


class Receipt(Struct, frozen=True, tag="receipt", tag_field="type", omit_defaults=True):
    """What became of a message. Receipts are a set per message: one that comes twice changes nothing."""

    message: str
    status: ReceiptStatus
    occurred_at: int
    channel: str
    detail: str = ""


class WakeUp(Struct, frozen=True, tag="wake_up", tag_field="type"):
    """Sees to it that an actor's due timers fire although nobody is heard from. One too many changes nothing."""

    due_at: int


class Resumed(Struct, frozen=True, tag="resumed", tag_field="type"):
    """An operator lets a suspended run go on, from where it stood before the input on which it failed."""

    run: str


class Activated(Struct, frozen=True, tag="activated", tag_field="type"):
    """From this record on, a definition is the current one of its name. Addressed to a partition: no key."""

    tenant: str
    kind: str
    name: str
    version: int
    hash: str


UserInput = Event | Receipt | WakeUp | Resumed
Input = UserInput | Activated
