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


class Event(Struct, frozen=True, tag="event", tag_field="type", omit_defaults=True, gc=False):
    """A fact about a user, from outside. Producers may write it to the `events` topic directly.

    `id` is the producer's and is what duplicates are recognised by. `profile` holds attributes to set on the user
    (`None` removes one): that is how `identify` arrives, under the name "identify". `aliases` are other ids of this user:
    from here on each of them stands for the user (see `engine/merging.py`).
    """

    id: str
    name: str
    occurred_at: int
    properties: dict[str, Any] = {}
    profile: dict[str, Any] = {}
    aliases: tuple[str, ...] = ()


class Receipt(Struct, frozen=True, tag="receipt", tag_field="type", omit_defaults=True, gc=False):
    """What became of a message. Receipts are a set per message: one that comes twice changes nothing."""

    message: str
    status: ReceiptStatus
    occurred_at: int
    channel: str
    detail: str = ""
    answer: dict[str, Any] = {}  # what a Call's receiver said, up to 4 KiB


class WakeUp(Struct, frozen=True, tag="wake_up", tag_field="type", gc=False):
    """Sees to it that an actor's due timers fire although nobody is heard from. One too many changes nothing."""

    due_at: int


class Resumed(Struct, frozen=True, tag="resumed", tag_field="type"):
    """An operator lets a suspended run go on, from where it stood before the input on which it failed."""

    run: str


class Entered(Struct, frozen=True, tag="entered", tag_field="type", omit_defaults=True, gc=False):
    """Begin a run of a journey, if its rules allow: asked for by API, by another journey's run, or by a schedule.

    `local` is a time on the user's own clock ("2026-05-01T09:00") at which the run starts; without it, at once.
    """

    id: str
    journey: str
    by: str  # "api", "schedule", or the run that asked
    properties: dict[str, Any] = {}
    local: str = ""


class Asked(Struct, frozen=True, tag="asked", tag_field="type", omit_defaults=True, gc=False):
    """A run asks a quota: for the next free moment (`every_ms`), or for one of `most` places within `within_ms`."""

    id: str  # <run>:<visit>
    user: str
    every_ms: int = 0
    most: int = 0
    within_ms: int = 0


class Granted(Struct, frozen=True, tag="granted", tag_field="type", omit_defaults=True, gc=False):
    """A quota's answer to a run: go on at `at`, or None: there is no place."""

    id: str
    at: int | None = None


class Erased(Struct, frozen=True, tag="erased", tag_field="type", omit_defaults=True):
    """The user is to be forgotten: runs, timers and state go, a mark stays, and later inputs are dropped.

    `user` is who an alias stood for, where the erasure of that user reaches it.
    """

    id: str
    user: str = ""


class Linked(Struct, frozen=True, tag="linked", tag_field="type"):
    """Stand for a user from now on: hand over what is kept about you, and forward to them what comes."""

    user: str


class Absorbed(Struct, frozen=True, tag="absorbed", tag_field="type", omit_defaults=True):
    """What an alias hands over to its user: all at once, or in parts of which `left` follow. Or why it hands over nothing."""

    id: str
    alias: str
    state: bytes = b""  # msgpack of a `User`; on the wire in base64
    left: int = 0
    refused: str = ""


class Forwarded(Struct, frozen=True, tag="forwarded", tag_field="type"):
    """An input that an alias passes on to who it stands for. `path` holds the ids it came by, the first one first."""

    path: tuple[str, ...]
    input: Event | Receipt | Resumed | Entered | Granted | Erased | Absorbed


class Swept(Struct, frozen=True, tag="swept", tag_field="type", omit_defaults=True):
    """Go through the users of a partition, a chunk at a time, and give each a wake-up or an entry. No key."""

    id: str
    tenant: str
    after: str = ""  # the last user of the chunk before
    entered: Entered | None = None


class Controlled(Struct, frozen=True, tag="controlled", tag_field="type"):
    """An operator pauses, resumes, stops or retires a journey. Addressed to a partition: no key."""

    tenant: str
    journey: str
    action: Literal["pause", "resume", "stop", "retire"]


class Activated(Struct, frozen=True, tag="activated", tag_field="type"):
    """From this record on, a definition is the current one of its name. Addressed to a partition: no key."""

    tenant: str
    kind: str
    name: str
    version: int
    hash: str


UserInput = Event | Receipt | WakeUp | Resumed | Entered | Granted | Erased | Linked | Absorbed | Forwarded
PartitionInput = Activated | Controlled | Swept
Input = UserInput | Asked | PartitionInput
