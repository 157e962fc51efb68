"""What RocksDB holds for an actor."""

from typing import Any, Literal

from msgspec import Struct


class Sent(Struct, frozen=True, array_like=True, gc=False):
    """The last message a step of a run asked for, and what became of it so far (each status once, sorted)."""

    visit: int
    statuses: tuple[str, ...] = ()


class Run(Struct, frozen=True, array_like=True, gc=False):
    """One user's passage through one version of a journey. `visit` counts the arrivals, the present one included."""

    id: str
    journey: str
    version: int
    step: str
    visit: int
    entered_at: int
    arrived_at: int
    due_at: int | None = None
    key: str | None = None
    event: dict[str, Any] = {}  # the properties of the event that began it, up to 2 KiB
    sends: dict[str, Sent] = {}
    suspended: str = ""  # why it stands still
    look_at: int | None = None  # when time alone may end the wait, before it is over
    answers: dict[str, Any] = {}  # step -> what its call was answered
    mode: Literal["", "held", "asked", "granted"] = ""  # held: judged anew when due; the others: by a quota


class Track(Struct, frozen=True, array_like=True, gc=False):
    """How often something that a definition asks about has happened. `recent` holds (when, worth), oldest first."""

    first_at: int
    count: int
    total: float = 0
    recent: tuple[tuple[int, float], ...] = ()


class OpenGoal(Struct, frozen=True, array_like=True, gc=False):
    """A run's goal that may still be reached, also after the run has ended."""

    run: str
    journey: str
    version: int
    until_at: int
    key: str | None = None


class Contact(Struct, frozen=True, array_like=True, gc=False):
    """A message that was asked for, as far as frequency caps need to know."""

    at: int
    channel: str
    topic: str


class Shade(Struct, frozen=True, array_like=True):
    """A user as they would be in one journey if the version that runs as its shadow had been activated.

    `profile` holds what differs from the user's own; None where it would not be there. `pairs` holds messages of one
    channel and template that both sides asked for, or one so far: (which, id of the real one, id of the shadow's).
    """

    version: int
    began_at: int
    runs: tuple[Run, ...] = ()
    entered: dict[str, int] = {}
    goals: tuple[OpenGoal, ...] = ()
    history: dict[str, Track] = {}
    contacts: tuple[Contact, ...] = ()
    profile: dict[str, Any] = {}
    pairs: tuple[tuple[str, str, str], ...] = ()  # oldest first
    failed: str = ""  # why the shadow gave this user up


class Identity(Struct, frozen=True, array_like=True):
    """What an actor needs to know while it is not simply a user: it stands for one, or waits for one who stands for it.

    See `engine/merging.py`. While `awaited` isn't empty, inputs are kept.
    """

    alias_of: str = ""  # the user it stands for
    awaited: tuple[str, ...] = ()  # aliases that have not handed over yet
    linked_at: int = 0  # since when it is waited for them
    until_at: int = 0  # and how long at most
    kept: tuple[tuple[int, bytes], ...] = ()  # (when it came, JSON of an input), oldest first
    brought: tuple[tuple[str, bytes], ...] = ()  # (alias, msgpack of a part of its `User`) that has come so far
    late: tuple[str, ...] = ()  # aliases that were waited for in vain; what they have may come yet


class User(Struct, frozen=True, array_like=True, gc=False):
    """Everything kept about one user. `seen` holds 12-byte cells, newest last: see `engine/duplicates.py`."""

    profile: dict[str, Any] = {}
    runs: tuple[Run, ...] = ()  # oldest first
    entered: dict[str, int] = {}  # journey, or journey and key -> when last entered
    goals: tuple[OpenGoal, ...] = ()
    seen: bytes = b""
    has_older: bool = False  # more seen ids are in a record of their own
    history: dict[str, Track] = {}
    contacts: tuple[Contact, ...] = ()  # messages asked for, oldest first, as far back as a cap looks
    refused: tuple[str, ...] = ()  # "channel:topic" the user has unsubscribed from
    erased: bool = False
    shadows: dict[str, Shade] = {}  # journey -> how things would be there; nothing else looks at it
    aliases: dict[str, bool] = {}  # ids that were named as this user's -> do they stand for the user?
    identity: Identity | None = None  # of most users there is none


class Quota(Struct, frozen=True, array_like=True):
    """What a quota actor has given out."""

    next_at: float = 0  # the next free moment
    places: tuple[tuple[int, int], ...] = ()  # (slice of the window, places taken in it), oldest first


class Campaign(Struct, frozen=True, array_like=True):
    """When a journey's schedule comes next."""

    tenant: str
    journey: str
    version: int
    next_at: int
