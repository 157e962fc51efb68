"""Actors each of whom is in a partition of its own, whose records are folded whenever somebody says so.

So a link and its answer take as long as they like and cross each other in every way, as between partitions that lag. A
record's time is when it was appended; a partition's clock never goes back.
"""

from collections import defaultdict, deque
from collections.abc import Iterable

from engine.actor import NOBODY, earliest_due, handle
from engine.catalog import Catalog
from engine.errors import InvalidInput
from engine.journey import Journey
from engine.quotas import ask
from schemas.inputs import Asked, Input, UserInput, WakeUp
from schemas.outputs import JournalEntry, Message
from schemas.state import Quota, User

TENANT = "shop"
BEGIN = 1_767_600_000_000
MAX_RECORDS = 20_000  # of one life: more is an input that is passed on for ever


class Scattered:
    """Some actors, by their id."""

    def __init__(self, *journeys: Journey) -> None:
        self.catalog = Catalog()
        for journey in journeys:
            self.catalog = self.catalog.activate(TENANT, journey)
        self.wall = BEGIN
        self.logs: dict[str, deque[tuple[int, UserInput]]] = defaultdict(deque)
        self.states: dict[str, User] = {}
        self.older: dict[str, bytes] = {}
        self.clocks: dict[str, int] = {}
        self.quotas: dict[str, Quota] = {}
        self.journal: list[JournalEntry] = []
        self.messages: list[Message] = []
        self.errors: list[Exception] = []
        self.folded = 0

    def append(self, user: str, input: UserInput) -> None:
        self.logs[user].append((self.wall, input))

    def fold(self, user: str) -> None:
        """Fold an actor's next record, if there is one."""
        if not self.logs[user]:
            return
        at, input = self.logs[user].popleft()
        now = self.clocks[user] = max(at, self.clocks.get(user, 0))
        self.folded += 1
        assert self.folded < MAX_RECORDS
        before = self.states.get(user, NOBODY)
        try:
            handled = handle(self.catalog, TENANT, user, before, input, now, self.older.get(user, b""))
        except InvalidInput:
            return
        self.states[user], self.older[user] = handled.user, handled.older
        self.journal += handled.journal
        self.messages += handled.messages
        self.errors += handled.errors
        for key, given in handled.inputs:
            self._give(key, given)

    def fold_all(self, users: Iterable[str] | None = None) -> None:
        """Fold whatever there is, in turns."""
        while any(self.logs[user] for user in users or list(self.logs)):
            for user in users or list(self.logs):
                self.fold(user)

    def wait(self, ms: int) -> None:
        """Let time pass. Who has something due by then is sent a wake-up."""
        self.wall += ms
        for user, state in list(self.states.items()):
            due_at = earliest_due(state, self.catalog, TENANT)
            if due_at is not None and due_at <= self.wall:
                self.append(user, WakeUp(due_at))

    def settle(self, ms: int) -> None:
        """Fold everything, and so much time more, with the timers on the way."""
        until = self.wall + ms
        self.fold_all()
        while True:
            due = [at for state in self.states.values() if (at := earliest_due(state, self.catalog, TENANT))]
            if not due or min(due) > until:
                break
            self.wait(max(0, min(due) - self.wall))
            self.fold_all()
        self.wait(max(0, until - self.wall))
        self.fold_all()

    def person(self, user: str) -> str:
        """Return who an actor is in the end. Fails for a circle."""
        passed = [user]
        while (identity := self.states.get(user, NOBODY).identity) is not None and identity.alias_of:
            user = identity.alias_of
            assert user not in passed, f"{passed} is a circle"
            passed.append(user)
        return user

    def _give(self, key: str, given: Input) -> None:
        if isinstance(given, Asked):
            self.quotas[key], granted = ask(self.quotas.get(key, Quota()), given, self.wall)
            self.append(given.user, granted)
        else:
            self.append(key.partition(":")[2], given)  # type: ignore[arg-type]
