"""Why a user is, or isn't, in a journey: their inputs folded once more, with every condition watched.

There is no second engine here. What is watched is the *definition*: a copy of each version in which every condition is of a
subclass that notes what it saw and then answers as ever. `handle` folds with these copies as it does in production, and
doesn't know. So what is told is what happened, also for kinds of step that this file has never heard of, and production
pays nothing for it.

For a "no", each part that alone decided it is flipped in the definition, and the same input is folded once more into the same
state: only what that fold does counts. A condition may hold and the re-entry rule still say no.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from msgspec import Struct
from msgspec.structs import replace

from engine.actor import Handled, earliest_due, handle
from engine.catalog import Catalog
from engine.conditions import event_names
from engine.errors import InvalidInput
from engine.journey import Journey
from engine.judging import Judged, decisive, part_at
from engine.policy import Policy
from engine.watching import Address, Seen, Watch, flipped_catalog, watched_catalog
from schemas.inputs import (
    Absorbed,
    Activated,
    Asked,
    Controlled,
    Event,
    Forwarded,
    Granted,
    Input,
    Receipt,
    Swept,
    UserInput,
    WakeUp,
)
from schemas.outputs import JournalEntry
from schemas.state import Run, User

MAX_MOMENTS = 1000  # the newest are kept
MAX_FLIPS = 16  # of one condition that are tried
MAX_GIVEN_BACK = 1000  # inputs that one input may lead to

Happening = tuple[int, "UserInput | Journey | Policy | Controlled"]  # when; what came in, was activated, or was done


class Flip(Struct, frozen=True):
    """A part of a condition that alone stood in the way; and what the fold does where it says the opposite."""

    text: str
    saw: str
    is_enough: bool
    otherwise: str = ""  # why it isn't enough


class Look(Struct, frozen=True):
    """One condition that was judged. `place` is "entry", "exit_on", "goal", or the name of a step."""

    place: str
    version: int
    judged: Judged
    flips: tuple[Flip, ...] = ()


class Moment(Struct, frozen=True):
    """One input, and what the journey made of it. `at` in ms."""

    at: int
    input: str
    looks: tuple[Look, ...]
    journal: tuple[JournalEntry, ...]


@dataclass
class Explanation:
    """What is known of a user and a journey. Instants in ms."""

    journey: str
    user: str
    until_at: int
    moments: list[Moment]
    forgotten: int  # older moments that were not kept
    passed_over: Counter[str]  # events that concerned nothing in this journey, by name
    refused: Counter[str]  # inputs that could not be folded, by reason
    state: User  # as it is in the end
    versions: dict[int, Journey] = field(default_factory=dict)
    active: list[str] = field(
        default_factory=list
    )  # the names of all journeys of the tenant that are current in the end

    @property
    def runs(self) -> list[Run]:
        return [run for run in self.state.runs if run.journey == self.journey]


def explain(
    tenant: str,
    user_id: str,
    journey: str,
    happenings: Iterable[Happening],
    *,
    catalog: Catalog | None = None,
    until_at: int | None = None,
    alone: bool = False,
) -> Explanation:
    """Return what the happenings up to `until_at` came to for one user and one journey, by its name.

    Happenings are in order. A log has all of them. A recorded file has not: with `alone`, timers fire on the way, each at its
    own time, and what steps give their user comes back at once.
    """
    return _Explainer(tenant, user_id, journey, catalog or Catalog(), alone).run(happenings, until_at)


class _Explainer:
    def __init__(self, tenant: str, user_id: str, journey: str, catalog: Catalog, alone: bool) -> None:
        self.tenant = tenant
        self.user_id = user_id
        self.journey = journey
        self.named = (tenant, journey)
        self.catalog = catalog
        self.alone = alone
        self.watch = Watch()
        self.watched = watched_catalog(catalog, tenant, journey, self.watch)
        self.state = User()
        self.older = b""
        self.now = 0
        self.moments: deque[Moment] = deque(maxlen=MAX_MOMENTS)
        self.told = 0
        self.last: dict[Address, Judged] = {}  # what a condition without an event saw the last time
        self.passed_over: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def run(self, happenings: Iterable[Happening], until_at: int | None) -> Explanation:
        for at, happening in happenings:
            if until_at is not None and at > until_at:
                break
            self._pass_time(at)
            self.now = max(self.now, at)
            match happening:
                case Journey():
                    self._change(self.catalog.activate(self.tenant, happening, self.now))
                case Policy():
                    self._change(self.catalog.activate_policy(self.tenant, happening))
                case Controlled():
                    self._change(self.catalog.control(self.tenant, happening.journey, happening.action, self.now))
                case _:
                    self._give(happening)
        if until_at is not None:
            self._pass_time(until_at)
            self.now = max(self.now, until_at)
        return self._explanation()

    def _explanation(self) -> Explanation:
        mine = [each for (tenant, name, _), each in self.catalog.journeys.items() if (tenant, name) == self.named]
        return Explanation(
            journey=self.journey,
            user=self.user_id,
            until_at=self.now,
            moments=list(self.moments),
            forgotten=self.told - len(self.moments),
            passed_over=self.passed_over,
            refused=self.refused,
            state=self.state,
            versions={each.version: each for each in mine},
            active=[name for tenant, name in sorted(self.catalog.current) if tenant == self.tenant],
        )

    def _change(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.watched = watched_catalog(catalog, self.tenant, self.journey, self.watch)

    def _pass_time(self, until_at: int) -> None:
        while self.alone:
            due_at = earliest_due(self.state, self.catalog, self.tenant)
            if due_at is None or due_at > until_at:
                return
            self.now = max(self.now, due_at)
            self._give(WakeUp(due_at))

    def _give(self, input: UserInput) -> None:
        """Fold an input; without a log to read them from, also what steps give back and what quotas would answer."""
        if self.alone and isinstance(input, Event) and input.aliases:
            input = replace(input, aliases=())  # what the others have isn't known here
        following = deque([input])
        for _ in range(MAX_GIVEN_BACK):
            if not following:
                return
            for _, given in self._fold(following.popleft()):
                if not self.alone or isinstance(given, Activated | Controlled | Swept):
                    continue
                following.append(Granted(given.id, self.now) if isinstance(given, Asked) else given)

    def _fold(self, input: UserInput) -> Sequence[tuple[str, Input]]:
        """Fold an input, keep what is worth telling of it, and return what it gave rise to."""
        self.watch.looks.clear()
        before, older = self.state, self.older
        try:
            handled = handle(self.watched, self.tenant, self.user_id, before, input, self.now, older)
        except InvalidInput as error:  # production has put it aside, and so it changes nothing
            self.refused[str(error)] += 1
            return []
        self.state, self.older = handled.user, handled.older
        journal = tuple(entry for entry in handled.journal if entry.journey == self.journey)
        looks = [each for each in self.watch.looks if self._is_news(each)]
        if not journal and not looks:
            if isinstance(input, Forwarded):
                input = input.input
            if isinstance(input, Event):
                self.passed_over[input.name] += 1
            return handled.inputs

        def refolded(catalog: Catalog) -> Handled:
            return handle(catalog, self.tenant, self.user_id, before, input, self.now, older)

        told = tuple(self._with_flips(each, handled, refolded) for each in looks)
        self.told += 1
        self.moments.append(Moment(self.now, _named(input), told, journal))
        return handled.inputs

    def _is_news(self, seen: Seen) -> bool:
        """Is a verdict worth telling? A wait for orders has nothing to say about a visit, nor an exit that doesn't come, nor
        a condition that saw the same the last time."""
        if seen.judged.holds:
            return True
        if seen.place in ("exit_on", "goal"):
            return False
        names = event_names(seen.original)
        if names is not None and seen.place != "entry":
            return seen.name in names
        before, self.last[seen.where] = self.last.get(seen.where), seen.judged
        return before != seen.judged or seen.place == "entry"

    def _with_flips(self, seen: "Seen", handled: Handled, refolded: Callable[[Catalog], Handled]) -> Look:
        """Try each part that alone decided a "no" of an entry or a step, by folding the same input once more."""
        flips: list[Flip] = []
        is_about_this = seen.name in (event_names(seen.original) or ())
        is_still_awaited = not is_about_this and any(
            run.journey == self.journey and run.step == seen.place for run in handled.user.runs
        )
        if not seen.judged.holds and seen.place not in ("exit_on", "goal") and not is_still_awaited:
            for path in list(decisive(seen.judged))[:MAX_FLIPS]:
                part = part_at(seen.judged, path)
                other = refolded(flipped_catalog(self.catalog, self.tenant, seen.where, path))
                is_enough, otherwise = self._differs(seen.place, handled, other)
                flips.append(Flip(part.text, part.saw, is_enough, otherwise))
        return Look(seen.place, seen.version, seen.judged, tuple(flips))

    def _differs(self, place: str, was: Handled, other: Handled) -> tuple[bool, str]:
        """Say whether the other fold went another way at this place, and if not, why."""
        ours = [entry for entry in other.journal if entry.journey == self.journey]
        if place == "entry":
            if any(entry.kind == "entered" for entry in ours):
                return True, ""
            return False, next((entry.reason for entry in ours if entry.kind == "not_entered"), "")
        return _trail(ours) != _trail(entry for entry in was.journal if entry.journey == self.journey), ""


def _named(input: UserInput) -> str:
    match input:
        case Event():
            return f"event {input.name}"
        case Receipt():
            return f"receipt {input.status}"
        case WakeUp():
            return "timer"
        case Forwarded():
            return f"{_named(input.input)} by way of {input.path[0]}"
        case Absorbed():
            return f"the merge with {input.alias}"
        case _:
            return type(input).__name__.lower()


def _trail(journal: Iterable[JournalEntry]) -> list[tuple[str, str]]:
    return [(entry.kind, entry.step) for entry in journal if entry.kind in ("step", "exited")]
