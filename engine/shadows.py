"""How a version runs beside the active one without anybody noticing: its shadow.

A shadow answers "what if this version had been activated?" for every user, with what really happens to them. For each user
it folds the same inputs a second time, into a state of its own, `Shade`, under a catalog in which the version is current:

- A user is taken over when first heard from: with the runs, goals and entries that they had in the journey. So runs of
  earlier versions finish there, or move where `moves` says, as they would have.
- What is seen of the user is what is so: profile, consent, other journeys' messages (caps count them). Of the active
  version nothing is seen: what its runs set, emit, enter or send does not exist here. What the shadow's runs set or emit
  exists for them alone.
- Nothing leaves: no message, no call, no question to a quota (each grants at once), no input for anybody. What would have
  happened is told by journal entries marked `shadow`, which nobody counts but who asks for the shadow.
- A message that both sides ask for (the first "email:welcome" of one, the first of the other) is heard of together: the
  shadow is given the receipts of the real one. One that only the shadow asks for is never heard of, and a call that only the
  shadow knows is taken for answered, with nothing.

A shade is kept as long as it differs from what taking the user over anew would give. An exception in a run suspends that
run; any other gives the user up, and the real journeys go on as if nothing had been.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.catalog import Catalog, Shadow, schedule_of
from engine.order import give
from engine.policy import with_contact
from engine.profiles import encoded_size, merged
from engine.steps.sends import CALL_CHANNEL
from engine.turn import Turn
from schemas.inputs import Asked, Entered, Event, Granted, Input, Receipt, UserInput, WakeUp
from schemas.outputs import JournalEntry, Message
from schemas.state import Contact, Shade, User

MAX_SHADOWS = 4  # of a tenant at once: each is one fold more for whoever it concerns
MAX_PAIRS = 16  # per user: messages that may still be heard of
MAX_SHADE_BYTES = (
    131_072  # of one user in one shadow, encoded: twice the largest profile; it is part of the user's record
)
MAX_GIVEN_BACK = 64  # inputs that one input may lead to; more is a loop of emits
GIVEN_BY_A_RUN = re.compile(r"([a-z][a-z0-9_]*)\.[0-9]+\.[a-z2-7]{16}:[0-9]+\Z")  # the id of what a step gives its user


class Done(Struct, frozen=True):
    """What an input came to for the user, really."""

    before: User
    after: User
    input: UserInput
    messages: Sequence[Message]
    journal: Sequence[JournalEntry]
    now: int


def run_beside(catalog: Catalog, tenant: str, user_id: str, done: Done) -> tuple[User, Sequence[JournalEntry]]:
    """Return the user with what the same input came to for the tenant's shadows, and what is to be told of that."""
    after = done.after
    if after.erased:
        return after, list(_erased(catalog, tenant, user_id, done))
    shades: dict[str, Shade] = {}
    journal: list[JournalEntry] = []
    lanes = catalog.in_shadow.get(tenant, {})
    for name, shadow in catalog.shadows.get(tenant, {}).items():
        lane = lanes[name]
        kept = done.before.shadows.get(name)
        if kept is not None and (kept.version, kept.began_at) != (shadow.journey.version, shadow.began_at):
            kept = None  # of an earlier shadow
        if kept is None and not _concerns(name, lane, tenant, done):
            continue
        shade = kept or _take_over(done.before, shadow, lane, tenant)
        if not shade.failed:
            try:
                folding = _Folding(catalog, lane, tenant, user_id, shadow, done)
                shade = _bounded(folding.fold(shade))
                journal += folding.journal
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"[:500]
                shade = Shade(shade.version, shade.began_at, failed=reason)
                journal.append(_gave_up(tenant, user_id, shadow, done.now, reason))
        if shade != _take_over(after, shadow, lane, tenant):
            shades[name] = shade
    return (after if after.shadows == shades else replace(after, shadows=shades)), journal


def _bounded(shade: Shade) -> Shade:
    size = encoded_size(shade)
    if size is None or size > MAX_SHADE_BYTES:
        raise OverflowError(f"what the shadow keeps of this user takes {size} bytes; {MAX_SHADE_BYTES} is the limit")
    return shade


def _concerns(name: str, lane: Catalog, tenant: str, done: Done) -> bool:
    """Can an input concern the shadow, for a user whom it has not come to differ about?"""
    for user in (done.before, done.after):
        if any([run.journey == name for run in user.runs]) or any([goal.journey == name for goal in user.goals]):
            return True
    if done.after.profile is not done.before.profile and lane.changes.get(tenant):
        return True
    match done.input:
        case Event(name=event):
            return bool(lane.beginning_with(tenant, event) or lane.tracking(tenant, event))
        case Entered(journey=journey):
            return journey == name
    return False


def _take_over(user: User, shadow: Shadow, lane: Catalog, tenant: str) -> Shade:
    """Return how a user begins in a shadow."""
    name = shadow.journey.name
    asked = {tracker.id for trackers in lane.trackers.values() for tracker in trackers}
    return Shade(
        shadow.journey.version,
        shadow.began_at,
        tuple(run for run in user.runs if run.journey == name),
        {slot: at for slot, at in user.entered.items() if slot.partition("|")[0] == name},
        tuple(goal for goal in user.goals if goal.journey == name),
        {id: track for id, track in user.history.items() if id in asked},
        user.contacts,
    )


class _Folding:
    """One input folded into one shadow of one user."""

    def __init__(self, catalog: Catalog, lane: Catalog, tenant: str, user_id: str, shadow: Shadow, done: Done) -> None:
        self.lane = lane
        self.tenant = tenant
        self.user_id = user_id
        self.name = shadow.journey.name
        self.active = catalog.of(tenant, self.name)
        self.has_its_schedule = schedule_of(shadow.journey) == schedule_of(self.active)
        self.done = done
        self.policy = catalog.policy_of(tenant)
        self.journal: list[JournalEntry] = []
        self.messages: list[Message] = []

    def fold(self, shade: Shade) -> Shade:
        """Return the shade after the input, and after what its own runs gave back."""
        before, after = self.done.before, self.done.after
        own = {name: value for name, value in shade.profile.items() if name not in self._set_by_others()}
        user = User(
            merged(before.profile, shade.profile) if shade.profile else before.profile,
            shade.runs, shade.entered, shade.goals,
            history=shade.history,
            contacts=self._with_others_contacts(shade.contacts),
            refused=after.refused,
        )  # fmt: skip
        following: deque[UserInput] = deque([self._given(shade)])
        others = self._updates(self.done.journal, ours=False)
        for _ in range(MAX_GIVEN_BACK):
            if not following:
                break
            user = self._fold_one(user, following.popleft(), following, others)
            others = {}
        else:
            raise RuntimeError(f"more than {MAX_GIVEN_BACK} inputs in a row come of each other")
        for name in self._set_by_runs():
            own[name] = user.profile.get(name)
        return Shade(
            shade.version, shade.began_at, user.runs, user.entered, user.goals, user.history, user.contacts,
            {name: value for name, value in own.items() if value != after.profile.get(name)},
            self._paired(shade.pairs),
        )  # fmt: skip

    def _fold_one(self, user: User, input: UserInput, following: deque[UserInput], others: Mapping[str, Any]) -> User:
        """Fold one input, and add to `following` what it gives back. `others`: what other journeys have set meanwhile."""
        now = self.done.now
        turn = Turn(self.lane, self.tenant, self.user_id, user, now, b"")
        give(turn, input)
        if others:
            if turn.changed_by_steps is None:
                turn.changed_by_steps = turn.profile
            turn.profile = merged(turn.profile, others)
        turn.settle()
        after, _ = turn.finish()
        self.journal += [replace(entry, shadow=True) for entry in turn.journal if entry.kind != "dropped"]
        self.messages += turn.messages
        following.extend(self._given_back(turn.inputs))
        following.extend(self._answers(turn.messages))
        return replace(after, seen=b"", has_older=False)

    # What the shadow is given

    def _given(self, shade: Shade) -> UserInput:
        """Return the input as it would be if the active version's runs were not there; nothing is a wake-up."""
        nothing = WakeUp(self.done.now)
        match self.done.input:
            case Event() | Entered() as input if self._is_duplicate() or self._is_of_its_runs(input.id):
                return nothing
            case Entered() as input if input.journey != self.name or (
                input.by == "schedule" and not self.has_its_schedule
            ):
                return nothing
            case Receipt() as input:
                own = self._counterpart(shade, input.message)
                return nothing if own is None else replace(input, message=own)
            case input:
                return input

    def _is_duplicate(self) -> bool:
        return any([entry.kind == "dropped" and entry.reason == "duplicate" for entry in self.done.journal])

    def _is_of_its_runs(self, id: str) -> bool:
        return ":" in id and (found := GIVEN_BY_A_RUN.match(id)) is not None and found[1] == self.name

    def _counterpart(self, shade: Shade, message: str) -> str | None:
        """Return the shadow's message that hears what becomes of a real one."""
        for _, real, own in shade.pairs:
            if real == message:
                return own or None
        run_id = message.rpartition(":")[0]  # sent before the user was taken over
        return message if any([run.id == run_id for run in shade.runs]) else None

    def _given_back(self, inputs: Sequence[tuple[str, Input]]) -> list[UserInput]:
        given: list[UserInput] = []
        for _, input in inputs:
            match input:
                case Asked():
                    given.append(Granted(input.id, self.done.now))
                case Event():
                    given.append(input)
                case Entered() if input.journey == self.name:
                    given.append(input)
        return given

    def _answers(self, messages: Sequence[Message]) -> list[UserInput]:
        """Answer the calls that the active version doesn't make."""
        known = self.active.steps if self.active is not None else {}
        return [
            Receipt(message.id, "accepted", self.done.now, CALL_CHANNEL)
            for message in messages
            if message.channel == CALL_CHANNEL and getattr(known.get(message.step), "kind", "") != "call"
        ]

    # What others did

    def _updates(self, journal: Sequence[JournalEntry], ours: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for entry in journal:
            if entry.kind == "updated" and (entry.journey == self.name) is ours:
                found |= entry.detail
        return found

    def _set_by_others(self) -> Mapping[str, Any]:
        """Return what was set in the profile by the event, or by steps of other journeys."""
        found = self._updates(self.done.journal, ours=False)
        if isinstance(self.done.input, Event) and not self._is_of_its_runs(self.done.input.id):
            found |= self.done.input.profile
        return found

    def _set_by_runs(self) -> Mapping[str, Any]:
        """Return what runs of this journey have set, on either side."""
        return self._updates(self.done.journal, ours=True) | self._updates(self.journal, ours=True)

    def _with_others_contacts(self, contacts: tuple[Contact, ...]) -> tuple[Contact, ...]:
        if not self.policy.caps:
            return contacts
        for message in self.done.messages:
            if message.journey != self.name and not message.transactional:
                contacts = with_contact(self.policy, contacts, Contact(self.done.now, message.channel, message.topic))
        return contacts

    # Which messages belong together

    def _paired(self, pairs: tuple[tuple[str, str, str], ...]) -> tuple[tuple[str, str, str], ...]:
        found = list(pairs)
        for message in self.done.messages:
            if message.journey == self.name:
                _pair(found, _which(message), real=message.id)
        for message in self.messages:
            _pair(found, _which(message), own=message.id)
        return tuple(found[-MAX_PAIRS:])


def _pair(pairs: list[tuple[str, str, str]], which: str, real: str = "", own: str = "") -> None:
    """Put a message beside the oldest of the other side that is alone so far."""
    for at, (each, its_real, its_own) in enumerate(pairs):
        if each == which and not (its_real if real else its_own):
            pairs[at] = (which, real or its_real, own or its_own)
            return
    pairs.append((which, real, own))


def _which(message: Message) -> str:
    return f"{message.channel}:{message.template.partition('@')[0] or message.step}"


def _erased(catalog: Catalog, tenant: str, user_id: str, done: Done) -> Iterator[JournalEntry]:
    """End what would have been, too, when a user is forgotten."""
    for name, shadow in catalog.shadows.get(tenant, {}).items():
        kept = done.before.shadows.get(name)
        for run in done.before.runs if kept is None or kept.began_at != shadow.began_at else kept.runs:
            if run.journey == name:
                yield JournalEntry(
                    "exited", done.now, tenant, user_id, "erasure", name, run.version, run.id, run.step,
                    reason="erased", shadow=True,
                )  # fmt: skip


def _gave_up(tenant: str, user_id: str, shadow: Shadow, now: int, reason: str) -> JournalEntry:
    journey = shadow.journey
    return JournalEntry(
        "suspended", now, tenant, user_id, "shadow", journey.name, journey.version, reason=reason, shadow=True
    )
