"""What RocksDB holds for an actor."""

from typing import Any

from msgspec import Struct


class Sent(Struct, frozen=True, array_like=True):
    """The last message a step of a run asked for, and what became of it so far (each status once, sorted)."""

    visit: int
    statuses: tuple[str, ...] = ()


class Run(Struct, frozen=True, array_like=True):
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


class OpenGoal(Struct, frozen=True, array_like=True):
    """A run's goal that may still be reached, also after the run has ended."""

    run: str
    journey: str
    version: int
    until_at: int
    key: str | None = None


class User(Struct, frozen=True, array_like=True):
    """Everything kept about one user. `seen` holds 12-byte cells, newest last: see `engine/duplicates.py`."""

    profile: dict[str, Any] = {}
    runs: tuple[Run, ...] = ()  # oldest first
    entered: dict[str, int] = {}  # journey, or journey and key -> when last entered
    goals: tuple[OpenGoal, ...] = ()
    seen: bytes = b""
    has_older: bool = False  # more seen ids are in a record of their own
