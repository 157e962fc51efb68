"""What one input does to one user: the fold.

    handle(catalog, tenant, user_id, user, input, now) -> Handled

`now` is the record's timestamp. Per input, in this order:

1. *Due timers*: every timer due at or before `now` fires first, in the order of their times, each at its own time. An order
   that arrives at 12:00 does not save a wait that ended at 11:00, even if the worker was down in between.
2. *Duplicates*: an event whose id is known changes nothing more.
3. *The profile* takes what the event sets.
4. *Goals and exits*, then *waits*: every run gets every event, oldest run first; a keyed run only those with its key. A
   receipt concerns the run whose message it is about.
5. *Entries*. A run never sees the input that created it.

An exception inside a run suspends that run, as it was before the input, and the others go on: a wrong definition harms
nobody else. A suspended run notes its receipts and obeys its exit, and does nothing else until an operator resumes it.
Nothing here does I/O, so production, replay, simulation and explanation are this one function.
"""

from base64 import b32encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec.structs import replace

from engine import duplicates, machine
from engine.catalog import Catalog
from engine.conditions import Facts, read
from engine.durations import milliseconds
from engine.errors import InvalidInput
from engine.journey import Journey
from engine.machine import Move, Place
from schemas.inputs import Event, Receipt, Resumed, UserInput
from schemas.outputs import JournalEntry, JournalKind, Message
from schemas.state import OpenGoal, Run, Sent, User

MAX_RUNS = 64  # live runs per user
MAX_GOALS = 128  # goals that may still be reached per user; the oldest is forgotten
MAX_ENTERED = 256  # journeys and keys whose last entry is remembered per user; the oldest is forgotten
MAX_FIRINGS = 1000  # timers of one run in one input: a loop of short delays must not stop the partition after an outage
MAX_ATTRIBUTES = 512
MAX_PROFILE_BYTES = 65_536  # encoded; twice the largest event
MAX_CARRIED_BYTES = 2048  # what a run keeps of the event that began it
MAX_NAME = 256  # characters of an event's name and of its id: both are repeated in every journal entry it causes
MAX_DEPTH = 64  # levels: what nests deeper than the interpreter's stack could be stored and not be read again
MAX_WORTH = 64  # characters of a goal's value that is a text, such as "12.50"

NESTED = frozenset({dict, list})

NOBODY = User()


@dataclass(slots=True)
class Handled:
    """What an input came to. `user` is the very same object if nothing about the user has changed."""

    user: User
    older: bytes = b""  # seen ids that are not part of `user`; to be stored if it isn't what was given
    messages: list[Message] = field(default_factory=list)
    journal: list[JournalEntry] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)  # of the runs that were suspended


def handle(
    catalog: Catalog, tenant: str, user_id: str, user: User, input: UserInput, now: int, older: bytes = b""
) -> Handled:
    """Fold one input into a user. Raises InvalidInput if the input must not be folded; nothing has changed then."""
    turn = _Turn(catalog, tenant, user_id, user, now, older)
    resumed = isinstance(input, Resumed) and turn.unsuspend(input.run)
    turn.fire_due_timers()
    if isinstance(input, Event):
        turn.take_event(input)
    elif isinstance(input, Receipt):
        turn.take_receipt(input)
    elif isinstance(input, Resumed) and resumed:
        turn.look_again(input.run)
    return turn.finish()


def earliest_due(user: User) -> int | None:
    """Return when the user's next timer is due, or None. A suspended run has no timer."""
    dues = [run.due_at for run in user.runs if run.due_at is not None and not run.suspended]
    return min(dues) if dues else None


def run_id(tenant: str, user_id: str, journey: Journey, event_id: str, key: str | None, now: int) -> str:
    """Return `<journey>.<version>.<16 letters>`: 80 bits of BLAKE2b over what makes the run the one it is."""
    told = "\0".join([tenant, user_id, journey.name, str(journey.version), event_id, key or "", str(now)])
    letters = b32encode(blake2b(told.encode(), digest_size=10).digest()).decode().lower()
    return f"{journey.name}.{journey.version}.{letters}"


class _Turn:
    """One call of `handle`: the user as it is so far, and what was asked for on the way."""

    __slots__ = (
        "before",
        "catalog",
        "entered",
        "goals",
        "now",
        "profile",
        "result",
        "runs",
        "seen",
        "tenant",
        "user_id",
    )

    def __init__(self, catalog: Catalog, tenant: str, user_id: str, user: User, now: int, older: bytes) -> None:
        self.catalog = catalog
        self.tenant = tenant
        self.user_id = user_id
        self.now = now
        self.before = user
        self.profile = user.profile
        self.runs = list(user.runs)
        self.entered = user.entered
        self.goals = user.goals
        self.seen = user.seen
        self.result = Handled(user, older)

    # Timers

    def fire_due_timers(self) -> None:
        firings: dict[str, int] = {}
        while (run := self._next_due()) is not None:
            assert run.due_at is not None
            firings[run.id] = firings.get(run.id, 0) + 1
            place = self._place(run.due_at, "timer")
            if firings[run.id] > MAX_FIRINGS:
                reason = f"more than {MAX_FIRINGS} timers were due at once; resume the run to let it go on"
                self._suspend(run, RuntimeError(reason), place)
            else:
                self._move(run, place, machine.time_out)

    def _next_due(self) -> Run | None:
        """Return the run whose timer is due first, the oldest run among equals."""
        first = None
        for run in self.runs:
            if run.due_at is None or run.due_at > self.now or run.suspended:
                continue
            if first is None or first.due_at is None or run.due_at < first.due_at:
                first = run
        return first

    # Events

    def take_event(self, event: Event) -> None:
        check(event)
        place = self._place(self.now, f"event {event.name} #{event.id}")
        cell = duplicates.cell(event.id, self.now)
        if duplicates.is_known(self.seen, cell) or duplicates.is_known(self.result.older, cell):
            self._journal("dropped", place, reason="duplicate")
            return
        self.seen += cell
        if event.profile:
            self.profile = place.profile = merged(self.profile, event.profile)
        facts = Facts(self.profile, event.name, event.properties)
        if self.goals:
            self._reach_goals(facts, place, lambda goal: self._hears(goal, event))
        for run in tuple(self.runs):
            if run.key is None or self._hears(run, event):
                self._show(run, facts, place)
        for journey in self.catalog.beginning_with(self.tenant, event.name):
            if journey.entry.holds(Facts(self.profile, event.name, event.properties)):
                self._enter(journey, event, place)

    def _hears(self, run: Run | OpenGoal, event: Event) -> bool:
        """Does this event concern a run, or its goal? A keyed run hears only what has its key."""
        return run.key is None or run.key == key_of(self._journey(run), event)

    def _reach_goals(self, facts: Facts, place: Place, concerns: Callable[[OpenGoal], bool]) -> None:
        """Count each open goal that is reached now, once. Goals whose time is over are forgotten."""
        sends = {run.id: run.sends for run in self.runs}
        still_open = []
        for goal in self.goals:
            definition = self._journey(goal).goal
            if definition is None or goal.until_at < self.now:
                continue
            facts.sends = sends.get(goal.run, {})
            if definition.condition.holds(facts) and concerns(goal):
                worth = worth_of(facts.properties, definition.value)
                self._journal(
                    "goal", place, journey=goal.journey, version=goal.version, run=goal.run,
                    detail={} if worth is None else {"value": worth},
                )  # fmt: skip
            else:
                still_open.append(goal)
        if len(still_open) < len(self.goals):
            self.goals = tuple(still_open)

    def _enter(self, journey: Journey, event: Event, place: Place) -> None:
        key = key_of(journey, event)
        slot = journey.name if key is None else f"{journey.name}|{key}"
        if refusal := self._refusal(journey, event, key, slot):
            self._journal("not_entered", place, journey=journey.name, version=journey.version, reason=refusal)
            return
        run = Run(
            id=run_id(self.tenant, self.user_id, journey, event.id, key, self.now),
            journey=journey.name,
            version=journey.version,
            step=journey.start,
            visit=0,
            entered_at=self.now,
            arrived_at=self.now,
            due_at=self.now,  # so that a run suspended before its first step starts when it is resumed
            key=key,
            event=carried(event.properties),
        )
        self.runs.append(run)
        self._remember_entry(slot)
        if journey.goal is not None:
            until_at = self.now + milliseconds(journey.goal.within)
            goal = OpenGoal(run.id, journey.name, journey.version, until_at, key)
            self.goals = (*self.goals, goal)[-MAX_GOALS:]
        self._journal(
            "entered", place, journey=journey.name, version=journey.version, run=run.id,
            detail={} if key is None else {"key": key},
        )  # fmt: skip
        self._move(run, place, machine.start)

    def _refusal(self, journey: Journey, event: Event, key: str | None, slot: str) -> str:
        """Say why this event doesn't begin a run, or nothing."""
        if journey.key is not None and key is None:
            return f"the event has no {journey.key}"
        if self.now - event.occurred_at > milliseconds(journey.late_after):
            return "the event came too late"
        if any([run.journey == journey.name and run.key == key for run in self.runs]):
            return "already in it"
        if not journey.reentry.allows(self.entered.get(slot), self.now):
            return f"re-entry is {journey.reentry}"
        if len(self.runs) >= MAX_RUNS:
            return f"{MAX_RUNS} runs are live already"
        return ""

    def _remember_entry(self, slot: str) -> None:
        entered = {name: at for name, at in self.entered.items() if name != slot}
        entered[slot] = self.now
        while len(entered) > MAX_ENTERED:
            # Keys go first: three hundred carts must not make a customer new again.
            del entered[next((name for name in entered if "|" in name), next(iter(entered)))]
        self.entered = entered

    # Receipts

    def take_receipt(self, receipt: Receipt) -> None:
        run_id, _, visit = receipt.message.rpartition(":")
        run = self._find(run_id)
        step = next((name for name, sent in run.sends.items() if str(sent.visit) == visit), "") if run else ""
        if run is not None and step and receipt.status in run.sends[step].statuses:
            return  # Receipts are sets: the second of a kind is no news.
        place = self._place(self.now, f"receipt {receipt.status}")
        journey, _, version = run_id.rpartition(".")[0].rpartition(".")
        self._journal(
            "receipt", place, message=receipt.message, run=run_id, journey=journey, step=step,
            version=int(version) if version.isdecimal() else 0, reason=receipt.status,
            detail={"channel": receipt.channel, **({"detail": receipt.detail} if receipt.detail else {})},
        )  # fmt: skip
        if run is None or not step:
            return
        sent = Sent(run.sends[step].visit, tuple(sorted({*run.sends[step].statuses, receipt.status})))
        informed = replace(run, sends={**run.sends, step: sent})
        self._replace(run, informed)
        facts = Facts(self.profile, None, informed.event)
        self._reach_goals(facts, place, lambda goal: goal.run == run_id)
        self._show(informed, facts, place)

    # Operators

    def unsuspend(self, run_id: str) -> bool:
        """Let a run's timers fire again. Return False if it isn't suspended, or gone."""
        run = self._find(run_id)
        if run is None or not run.suspended:
            return False
        self._replace(run, replace(run, suspended=""))
        place = self._place(self.now, "operator")
        self._journal("resumed", place, journey=run.journey, version=run.version, run=run.id, step=run.step)
        return True

    def look_again(self, run_id: str) -> None:
        """Show a resumed run what came while it stood still: its receipts, and what the profile is by now."""
        run = self._find(run_id)
        if run is not None and not run.suspended:
            self._show(run, Facts(self.profile, None, run.event), self._place(self.now, "operator"))

    # Moving runs

    def _show(self, run: Run, facts: Facts, place: Place) -> None:
        """Let a run see what is the case, and what became of its own messages."""
        facts.sends = run.sends
        facts.here = run.sends.get(run.step)
        self._move(run, place, machine.resume, facts)

    def _move(self, run: Run, place: Place, move: Callable[..., Move | None], *given: Facts) -> None:
        """Move one run, all or nothing: if it fails, it stands suspended as it was."""
        journey = self._journey(run)
        try:
            moved = move(journey, run, place, *given)
        except Exception as error:
            self._suspend(run, error, place)
            return
        if moved is None:
            return
        self._replace(run, moved.run)
        self.result.messages += moved.messages
        self.result.journal += moved.journal

    def _suspend(self, run: Run, error: Exception, place: Place) -> None:
        reason = f"{type(error).__name__}: {error}"[:500]
        self._replace(run, replace(run, suspended=reason))
        self._journal(
            "suspended", place, journey=run.journey, version=run.version, run=run.id, step=run.step, reason=reason
        )
        self.result.errors.append(error)

    def _find(self, run_id: str) -> Run | None:
        return next((run for run in self.runs if run.id == run_id), None)

    def _replace(self, run: Run, by: Run | None) -> None:
        at = next(index for index, each in enumerate(self.runs) if each.id == run.id)
        if by is None:
            del self.runs[at]
        else:
            self.runs[at] = by

    def _journey(self, run: Run | OpenGoal) -> Journey:
        """Return the version that a run began with. That it isn't there would be our fault, not the run's."""
        return self.catalog.journeys[self.tenant, run.journey, run.version]

    def _place(self, at: int, cause: str) -> Place:
        return Place(self.tenant, self.user_id, self.profile, at, self.now, cause)

    def _journal(self, kind: JournalKind, place: Place, **more: Any) -> None:
        entry = JournalEntry(kind, place.at, self.tenant, self.user_id, place.cause, **more)
        self.result.journal.append(entry)

    def finish(self) -> Handled:
        result, user = self.result, self.before
        has_older = user.has_older
        if duplicates.overflows(self.seen):
            self.seen, result.older = duplicates.spill(self.seen, result.older, self.now)
            has_older = bool(result.older)
        runs = tuple(self.runs)
        if self.seen != user.seen or runs != user.runs or self.profile is not user.profile or self.goals != user.goals:
            result.user = User(self.profile, runs, self.entered, self.goals, self.seen, has_older)
        return result


def check(event: Event) -> None:
    """Raise InvalidInput for an event that can't be folded, whoever wrote it into the log."""
    if not 0 < len(event.id) <= MAX_NAME or not 0 < len(event.name) <= MAX_NAME:
        raise InvalidInput(f"an event has an id and a name, each of 1 to {MAX_NAME} characters")
    for values in (event.properties, event.profile):
        if not NESTED.isdisjoint(map(type, values.values())) and nests_too_deep(values):
            raise InvalidInput(f"the event nests deeper than {MAX_DEPTH} levels")


def nests_too_deep(values: dict[str, Any]) -> bool:
    """Are there objects or arrays below `MAX_DEPTH` levels of them?"""
    level: list[Any] = [values]
    for _ in range(MAX_DEPTH):
        members = [list(item.values()) if type(item) is dict else item for item in level]
        level = [item for items in members for item in items if type(item) in NESTED]
        if not level:
            return False
    return True


def key_of(journey: Journey, event: Event) -> str | None:
    """Return the value of the journey's key in an event, as a text; None if there is no key or the event lacks it."""
    if journey.key is None:
        return None
    value = read(event.properties, journey.key)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return str(value)[:128]


def worth_of(properties: Mapping[str, Any], name: str | None) -> float | str | None:
    """Return what a goal is worth: a number, or a short text such as "12.50"; None if the event doesn't say."""
    value = read(properties, name) if name else None
    if isinstance(value, str):
        return value if len(value) <= MAX_WORTH else None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return value
    return None


def merged(profile: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the profile with the changes; None removes an attribute. Raises InvalidInput if it grows beyond its limits."""
    after = {name: value for name, value in {**profile, **changes}.items() if value is not None}
    if len(after) > MAX_ATTRIBUTES:
        raise InvalidInput(f"the profile would have {len(after)} attributes; {MAX_ATTRIBUTES} is the limit")
    size = encoded_size(after)
    if size is None:
        raise InvalidInput("the profile would hold a number beyond 64 bits, or be nested too deep")
    if size > MAX_PROFILE_BYTES:
        raise InvalidInput(f"the profile would take {size} bytes; {MAX_PROFILE_BYTES} is the limit")
    return after


def carried(properties: dict[str, Any]) -> dict[str, Any]:
    """Return what a run keeps of its event: all properties in their order as long as they fit into 2 KiB, encoded."""
    size = encoded_size(properties)
    if size is not None and size <= MAX_CARRIED_BYTES:
        return properties
    kept: dict[str, Any] = {}
    room = MAX_CARRIED_BYTES
    for name, value in properties.items():
        size = encoded_size({name: value})
        if size is not None and size <= room:
            kept[name] = value
            room -= size
    return kept


def encoded_size(value: Any) -> int | None:
    """Return how many bytes a value takes in a state, or None if a state can't hold it."""
    try:
        return len(msgspec.msgpack.encode(value))
    except (OverflowError, RecursionError, ValueError, TypeError):
        return None
