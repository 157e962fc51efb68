"""What two versions of a journey, or of a whole set of journeys, do with the same recorded events.

Each side is a *lane*: a catalog in which its versions are current, and the state of every user. A recorded input is folded
into both lanes by the `handle` that also folds in production. What a backtest adds is time and people:

- Time is that of the records. It never goes back for a user: what comes out of order is folded late, as in production.
- Timers fire on the way, each at its own time; at the end they run on to a horizon.
- Recorded receipts answer messages of other runs, so they are left out; `Reactions` say what becomes of messages here.
- Quotas grant at once: how many others ask at the same moment cannot be told from records that aren't ordered over users.
- What people did is as recorded. Nobody orders here because of a better mail, and nobody stays away because of a bad one:
  a backtest shows whom a version would reach, when and how often, not what they would make of it.

Memory holds the states of the users, and nothing per event.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from msgspec.structs import replace

from engine.actor import earliest_due, handle
from engine.catalog import Catalog
from engine.errors import JourneyError
from engine.journey import Journey
from engine.policy import Policy
from engine.reactions import Reactions
from engine.steps.sends import CALL_CHANNEL
from schemas.inputs import Activated, Asked, Controlled, Event, Granted, Input, Swept, UserInput, WakeUp
from schemas.outputs import JournalEntry, Message
from schemas.state import User

DAY_MS = 86_400_000
MAX_REASONS = 64  # of each kind in a tally: a reason may quote what differs from user to user
OTHER = "other reasons"
MAX_GIVEN_BACK = 1000  # inputs in a row at one instant that a user's runs may give rise to

NO_REACTIONS = Reactions()


Witness = Callable[[JournalEntry], None]


@dataclass(frozen=True, slots=True)
class Version:
    """A version to play, and what is active beside it: the policy, other journeys.

    `also` holds further journeys that are counted with it, and `name` says what all of them are called together. They share
    what a user shares: caps, the profile, the events that they emit.
    """

    journey: Journey
    beside: Sequence[Journey | Policy] = ()
    also: Sequence[Journey] = ()
    name: str = ""

    @property
    def counted(self) -> tuple[Journey, ...]:
        return (self.journey, *self.also)

    @property
    def label(self) -> str:
        return self.name or self.journey.label


@dataclass(frozen=True, slots=True)
class World:
    """What both versions meet: whose users, how they take messages, and what their profiles hold before the first record."""

    tenant: str = "default"
    reactions: Reactions = NO_REACTIONS
    profile: Mapping[str, Any] = field(default_factory=dict)


ORDINARY = World()


class Backtest:
    """Two lanes side by side. Give it every input, then `finish` it, then compare (`engine/comparison.py`)."""

    def __init__(self, old: Version, new: Version, world: World = ORDINARY) -> None:
        self.old = Lane(old, world)
        self.new = Lane(new, world)
        self.inputs = 0
        self.first_at: int | None = None
        self.last_at = 0
        self.until_at = 0
        self.disordered = 0  # inputs that lay before the one before of their user
        self.furthest_back_ms = 0

    def give(self, user_id: str, input: UserInput, at: int) -> None:
        """Fold an input into both lanes, after everything that was due before it. `at`: the time of its record (ms).

        Raises InvalidInput for what production would have refused, too.
        """
        back = self.old.person(user_id).clock - at
        if back > 0:
            self.disordered += 1
            self.furthest_back_ms = max(self.furthest_back_ms, back)
        self.notice(at)
        self.old.give(user_id, input, at)
        self.new.give(user_id, input, at)
        self.inputs += 1

    def notice(self, at: int) -> None:
        """Take note of a record's time, also of one that is played elsewhere: all parts of a recording end at one horizon."""
        if self.first_at is None or at < self.first_at:
            self.first_at = at
        self.last_at = max(self.last_at, at)

    def finish(self, until_at: int | None = None) -> Iterator[int]:
        """Let time pass for everybody until the horizon: the last record's time, or later. Yield how many users are done."""
        self.until_at = self.last_at if until_at is None else max(self.last_at, until_at)
        for done, user_id in enumerate(self.old.people, 1):
            self.old.pass_time(user_id, self.until_at)
            self.new.pass_time(user_id, self.until_at)
            yield done


class Person:
    """One user in one lane: the state, what is still to be heard of messages, and a summary of what happened.

    `plot` and `times` are hashes over the messages in order, without and with their times; `rest` over all else.
    """

    __slots__ = (
        "clock", "due_at", "entered", "goals", "heard", "id", "length", "older", "pending", "plot", "rest", "sent", "state",
        "times",
    )  # fmt: skip

    def __init__(self, id: str, state: User) -> None:
        self.id = id
        self.state = state
        self.older = b""
        self.clock = 0
        self.due_at: int | None = None
        self.pending: list[tuple[int, int, UserInput]] = []  # receipts, and what steps gave back
        self.heard: dict[str, int] | None = None  # channel:template -> messages so far
        self.entered = 0
        self.sent = 0
        self.goals = 0
        self.plot = 0
        self.times = 0
        self.rest = 0
        self.length = 0  # of the story: entries of the journal

    def note(self, entry: JournalEntry) -> None:
        """Add what happened to the summary; of messages, `plot` and `times` are for who knows them to add."""
        self.length += 1
        match entry.kind:
            case "entered":
                self.entered += 1
            case "goal":
                self.goals += 1
            case "blocked" | "exited":
                self.rest = hash((self.rest, entry.kind, entry.reason))


class Tally:
    """What a lane came to, counted over all users. Days are days of UTC since 1970."""

    def __init__(self) -> None:
        self.entered: Counter[int] = Counter()  # by day
        self.not_entered: Counter[str] = Counter()
        self.messages: Counter[tuple[str, int]] = Counter()  # channel, day
        self.templates: Counter[str] = Counter()  # channel:template
        self.receipts: Counter[str] = Counter()
        self.blocked: Counter[str] = Counter()
        self.held: Counter[str] = Counter()
        self.exits: Counter[str] = Counter()
        self.suspended: Counter[str] = Counter()
        self.goals: Counter[int] = Counter()  # by day
        self.goal_value = 0.0
        self.calls = 0

    def note(self, entry: JournalEntry) -> None:
        """Count one entry of the journal."""
        match entry.kind:
            case "entered":
                self.entered[entry.at // DAY_MS] += 1
            case "goal":
                self.goals[entry.at // DAY_MS] += 1
                self.goal_value += _number(entry.detail.get("value"))
            case "not_entered":
                _count(self.not_entered, entry.reason)
            case "blocked":
                _count(self.blocked, entry.reason)
            case "held":
                _count(self.held, entry.reason.partition(" until ")[0])
            case "exited":
                _count(self.exits, entry.reason)
            case "suspended":
                # An error that names the version would never be the same in both.
                _count(self.suspended, entry.reason.replace(f"{entry.journey} v{entry.version}: ", ""))
            case "receipt":
                self.receipts[entry.reason] += 1


class Lane:
    """One side, and what it does with everybody. `tallies` has one for each journey, where several are counted."""

    def __init__(self, version: Version, world: World, witness: Witness | None = None) -> None:
        catalog = Catalog()
        self.names = frozenset(journey.name for journey in version.counted)
        for other in version.beside:
            if isinstance(other, Policy):
                catalog = catalog.activate_policy(world.tenant, other)
            elif other.name not in self.names:
                catalog = catalog.activate(world.tenant, other)
        for journey in version.counted:
            catalog = catalog.activate(world.tenant, journey)
        self.catalog = catalog
        self.label = version.label
        self.tenant = world.tenant
        self.reactions = world.reactions
        self.nobody = User(profile=dict(world.profile))
        self.witness = witness
        self.people: dict[str, Person] = {}
        self.tally = Tally()
        self.tallies = {journey.name: Tally() for journey in version.counted} if version.also else {}
        self._ticket = 0

    def person(self, user_id: str) -> Person:
        person = self.people.get(user_id)
        if person is None:
            person = self.people[user_id] = Person(user_id, self.nobody)
        return person

    def give(self, user_id: str, input: UserInput, at: int) -> None:
        if isinstance(input, Event) and input.aliases:  # each id is a user of its own here
            input = replace(input, aliases=())
        person = self.person(user_id)
        self._pass_time(person, max(at, person.clock))
        person.clock = max(at, person.clock)
        self._fold(person, input, person.clock)

    def pass_time(self, user_id: str, until_at: int) -> None:
        """Let a user's timers fire and receipts come that are due until then, each at its own time."""
        self._pass_time(self.person(user_id), until_at)

    def _pass_time(self, person: Person, until_at: int) -> None:
        at_once = 0
        while True:
            due_at, pending_at = person.due_at, person.pending[0][0] if person.pending else None
            if due_at is not None and due_at <= until_at and (pending_at is None or due_at <= pending_at):
                following: UserInput = WakeUp(due_at)
                at = due_at
            elif pending_at is not None and pending_at <= until_at:
                at, _, following = heappop(person.pending)
            else:
                return
            at_once = 0 if at > person.clock else at_once + 1
            if at_once > MAX_GIVEN_BACK:
                raise JourneyError(
                    f"{self.label}: for {person.id!r} more than {MAX_GIVEN_BACK} inputs in a row come of each other"
                    " at one instant; do an Emit or an Enter lead back to where they came from?"
                )
            person.clock = max(person.clock, at)
            self._fold(person, following, person.clock)

    def _fold(self, person: Person, input: UserInput, now: int) -> None:
        handled = handle(self.catalog, self.tenant, person.id, person.state, input, now, person.older)
        person.older = handled.older
        if handled.user is not person.state:
            person.state = handled.user
            person.due_at = earliest_due(handled.user)
        for entry in handled.journal:
            if entry.journey in self.names:
                self.tally.note(entry)
                if self.tallies:
                    self.tallies[entry.journey].note(entry)
                person.note(entry)
                if self.witness is not None:
                    self.witness(entry)
        for message in handled.messages:
            self._deliver(person, message)
        for _, given in handled.inputs:
            self._give_back(person, given)

    def _give_back(self, person: Person, given: Input) -> None:
        """Let the user's next input be what a step gave them, or the answer to what it asked."""
        if isinstance(given, Asked):
            self._expect(person, person.clock, Granted(given.id, person.clock))
        elif not isinstance(given, Activated | Controlled | Swept):
            self._expect(person, person.clock, given)

    def _expect(self, person: Person, at: int, input: UserInput) -> None:
        self._ticket += 1  # of two at the same time, first the one that was there first
        heappush(person.pending, (at, self._ticket, input))

    def _deliver(self, person: Person, message: Message) -> None:
        what = f"{message.channel}:{message.template.partition('@')[0]}"
        if person.heard is None:
            person.heard = {}
        nth = person.heard[what] = person.heard.get(what, 0) + 1
        for at, receipt in self.reactions.to(message, nth):
            self._expect(person, at, receipt)
        if message.journey not in self.names:
            return
        if message.channel == CALL_CHANNEL:
            self.tally.calls += 1
            return
        day = message.requested_at // DAY_MS
        self.tally.messages[message.channel, day] += 1
        if self.tallies:
            self.tallies[message.journey].messages[message.channel, day] += 1
        self.tally.templates[what] += 1
        person.sent += 1
        person.plot = hash((person.plot, what))
        person.times = hash((person.times, message.requested_at))


def _count(counter: Counter[str], reason: str) -> None:
    if reason not in counter and len(counter) >= MAX_REASONS:
        reason = OTHER
    counter[reason] += 1


def _number(value: Any) -> float:
    """Return a goal's value as a number; a text such as "12.50" counts, what is no number doesn't."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if abs(number) < 1e300 else 0.0  # neither nan nor infinite
