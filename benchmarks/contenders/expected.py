"""Which commands must exist: the work written down a second time, as plainly as possible, and with none of the engine.

Of every user: the last 32 ids (one of them again is a repeat, and changes nothing), the profile, when the wait began, and
when the last run was entered. `order` less than 30 minutes after the run began asks for a message, a `cart` begins a run if
none waits and the last one began at least 24 hours ago. All times are the records' timestamps.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

TIMEOUT, REENTRY, REMEMBERED = 30 * 60_000, 24 * 3_600_000, 32


Given = TypeVar("Given", bound=tuple[int, bytes, bytes])


class Command(NamedTuple):
    """What tells one command from all others, whoever wrote it."""

    user: str  # <tenant>:<user>
    template: str
    requested_at: int


@dataclass(slots=True)
class _User:
    seen: list[str] = field(default_factory=list)
    profile: dict[str, str] = field(default_factory=dict)
    waiting_since: int | None = None
    entered_at: int | None = None


class Fold:
    """Folds records in the order of their partitions; `causes` says which event asked for a command."""

    def __init__(self) -> None:
        self.commands: Counter[Command] = Counter()
        self.causes: dict[Command, str] = {}
        self._users: dict[bytes, _User] = {}

    def feed(self, records: Iterable[tuple[int, bytes, bytes]]) -> None:
        """Take (timestamp, key, value) of events."""
        for at, key, value in records:
            event = json.loads(value)
            user = self._users.setdefault(key, _User())
            if event["id"] not in user.seen:
                user.seen = [*user.seen[-REMEMBERED + 1 :], event["id"]]
                self._fold(user, key.decode(), event, at)

    def feed_passing(self, records: Iterable[Given]) -> Iterator[Given]:
        """Take the records one by one as they are passed on."""
        for record in records:
            self.feed([record])
            yield record

    def _fold(self, user: _User, key: str, event: dict[str, object], at: int) -> None:
        changed = event.get("profile")
        if isinstance(changed, dict):
            user.profile |= changed
        if user.waiting_since is not None and at >= user.waiting_since + TIMEOUT:
            user.waiting_since = None
        if event["name"] == "order" and user.waiting_since is not None:
            user.waiting_since = None
            if "tier" in user.profile:
                gold = user.profile["tier"] == "gold" and user.profile.get("country") in ("DE", "FR")
                command = Command(key, "thanks_gold" if gold else "thanks", at)
                self.commands[command] += 1
                self.causes[command] = str(event["id"])
        elif event["name"] == "cart" and user.waiting_since is None and _may_enter(user, at):
            user.waiting_since = user.entered_at = at


def _may_enter(user: _User, at: int) -> bool:
    return user.entered_at is None or at >= user.entered_at + REENTRY
