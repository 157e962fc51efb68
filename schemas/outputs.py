"""What a fold returns besides state: commands to channels, journal entries, suppressions."""

from typing import Any, Literal

from msgspec import Struct

JournalKind = Literal[
    "entered",  # a run began
    "step",  # a run arrived at a step
    "sent",  # a message was asked for
    "blocked",  # the policy kept a message back; `reason` says why
    "receipt",  # something became of a message
    "goal",  # what the journey was for has happened
    "exited",  # a run ended; `reason` says how
    "suspended",  # a run raised an exception and stands still until it is resumed
    "resumed",
    "held",  # the policy lets a message wait; `reason` says until when and why
    "moved",  # a new version took the run over, at the step it says
    "updated",  # the profile was changed by a step
    "asked",  # a quota was asked, or an answer awaited
    "not_entered",  # the entry matched and the re-entry rule or a limit said no
    "dropped",  # an input changed nothing: a duplicate, too large, malformed
    "linked",  # the actor stands for another user from now on: `detail.user`
    "absorbed",  # what an alias had has come over to its user: `detail.alias`
    "not_linked",  # an alias that was named stays what it is; `reason` says why
    "attempt",  # a channel worker is about to call its provider
    "retry",  # the provider said "later"
    "shadowed",  # a partition began or ended a shadow, as `reason` says: of no user, and without a key
]


class Message(Struct, frozen=True, omit_defaults=True, gc=False):
    """A command: asks a channel to send one message to one person. `id` is `<run>:<visit>`, the idempotency key."""

    id: str
    tenant: str
    user: str
    channel: str
    address: str
    template: str  # <name>@<hash>, a key of the definitions
    journey: str
    version: int
    step: str
    run: str
    requested_at: int
    expires_at: int
    profile: dict[str, Any] = {}
    event: dict[str, Any] = {}
    topic: str = "marketing"
    transactional: bool = False
    call: dict[str, Any] = {}  # for the channel `call`: method, url, body


class JournalEntry(Struct, frozen=True, omit_defaults=True, gc=False):
    """One thing that happened to a user, and its cause. Keyed like the user it is about."""

    kind: JournalKind
    at: int
    tenant: str
    user: str
    cause: str = ""  # the input: "event cart_updated #m1", "timer", "receipt clicked", "operator"
    journey: str = ""
    version: int = 0
    run: str = ""
    step: str = ""
    message: str = ""
    reason: str = ""
    detail: dict[str, Any] = {}
    shadow: bool = False  # it only would have happened: see `engine/shadows.py`


class Suppression(Struct, frozen=True, omit_defaults=True):
    """No more messages to an address. Keyed `tenant:channel:address` in the compacted topic `suppressions`."""

    scope: str  # "all", or the topic that is suppressed
    at: int
    reason: str = ""
