"""How what a shadow would have done differs from what the active version did: from the journal of both.

The journal is given an entry at a time, partition by partition. Where it says that the shadow began, what was counted of
that partition before is forgotten, and where it says that the shadow ended, the counting ends: so both sides are counted over
the very same inputs.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from msgspec import Struct

from engine.actor import NOBODY
from engine.backtest import DAY_MS, Person, Tally
from engine.comparison import KINDS, Kind, difference_between
from engine.steps.sends import CALL_CHANNEL
from schemas.outputs import JournalEntry

TELLING = frozenset({"entered", "not_entered", "sent", "blocked", "held", "goal", "exited", "suspended"})


class Side(Struct):
    """What one side did with everybody. Counts are of what began, was sent or happened since the shadow began."""

    entered: int
    users_entered: int
    not_entered: dict[str, int]
    messages: dict[str, int]  # by channel
    templates: dict[str, int]  # by channel:template
    users_messaged: int
    blocked: dict[str, int]
    held: dict[str, int]
    exits: dict[str, int]
    goals: int
    goal_value: float
    calls: int
    suspended: dict[str, int]

    @property
    def sent(self) -> int:
        return sum(self.messages.values())


class Difference(Struct):
    """Users who are treated differently in one way, and one of them."""

    kind: Kind
    text: str
    users: int
    example: str


class Report(Struct):
    """The active version beside its shadow. Instants in ms; None where the journal doesn't say (any more)."""

    journey: str
    shadow_version: int
    active_versions: list[int]
    began_at: int | None  # in the first partition; None where it began before what the journal retains
    last_at: int | None
    has_ended: bool
    users: int  # whom either side concerned
    active: Side
    shadow: Side
    differing_users: int
    differences: list[Difference]


class Divergence:
    """What the journal says of one journey of a tenant. Give it the entries of a partition, then begin the next.

    `kept` names users whose stories are kept: (what happened, what would have happened).
    """

    def __init__(self, tenant: str, journey: str, kept: Collection[str] = ()) -> None:
        self.tenant = tenant
        self.journey = journey
        self.kept = kept
        self._partitions = [_Partition()]

    def begin_partition(self) -> None:
        """What is given from now on is of another partition."""
        self._partitions.append(_Partition())

    def give(self, entry: JournalEntry) -> None:
        """Count an entry of the journal, if it is of this journey."""
        if entry.journey != self.journey or entry.tenant != self.tenant:
            return
        partition = self._partitions[-1]
        if entry.kind != "shadowed":
            if not partition.has_ended:
                partition.note(entry, is_kept=entry.user in self.kept)
        elif entry.reason == "began":
            self._partitions[-1] = _Partition(entry.at, entry.version)
        else:
            partition.version, partition.has_ended = entry.version, True

    def report(self) -> Report:
        """Return what came of it so far."""
        found = self._partitions
        began = [each.began_at for each in found if each.began_at is not None]
        users: Counter[Kind] = Counter()
        examples: dict[Kind, tuple[int, str]] = {}
        for user, kind, length in (each for partition in found for each in partition.differences()):
            users[kind] += 1
            examples[kind] = min(examples.get(kind, (length, user)), (length, user))
        return Report(
            journey=self.journey,
            shadow_version=max((each.version for each in found), default=0),
            active_versions=sorted({version for each in found for version in each.active.versions}),
            began_at=min(began) if began else None,
            last_at=max((each.last_at for each in found if each.last_at), default=None),
            has_ended=any(each.has_ended for each in found),
            users=sum(len({**each.active.people, **each.shadow.people}) for each in found),
            active=_summed([each.active for each in found]),
            shadow=_summed([each.shadow for each in found]),
            differing_users=users.total(),
            differences=[
                Difference(kind, _said(kind), users[kind], examples[kind][1]) for kind in KINDS if users[kind]
            ],
        )

    def stories(self) -> dict[str, tuple[list[JournalEntry], list[JournalEntry]]]:
        """Return (what happened, what would have happened) for each of the users that were kept."""
        return {user: story for partition in self._partitions for user, story in partition.stories.items()}


class _Partition:
    def __init__(self, began_at: int | None = None, version: int = 0) -> None:
        self.began_at = began_at
        self.version = version
        self.last_at: int | None = None
        self.has_ended = False
        self.active = _Counted()
        self.shadow = _Counted()
        self.stories: dict[str, tuple[list[JournalEntry], list[JournalEntry]]] = {}

    def note(self, entry: JournalEntry, is_kept: bool) -> None:
        self.last_at = max(self.last_at or 0, entry.at)
        (self.shadow if entry.shadow else self.active).note(entry)
        if is_kept:
            self.stories.setdefault(entry.user, ([], []))[entry.shadow].append(entry)

    def differences(self) -> Iterator[tuple[str, Kind, int]]:
        """Yield (user, how the sides differ about them, length of their story)."""
        for user in {**self.active.people, **self.shadow.people}:
            active, shadow = self.active.person(user), self.shadow.person(user)
            kind = difference_between(active, shadow)
            if kind is not None:
                yield user, kind, active.length + shadow.length


class _Counted:
    """One side of one partition."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.people: dict[str, Person] = {}
        self.versions: set[int] = set()

    def person(self, user: str) -> Person:
        person = self.people.get(user)
        return self.people.setdefault(user, Person(user, NOBODY)) if person is None else person

    def note(self, entry: JournalEntry) -> None:
        if entry.kind not in TELLING:
            return
        self.tally.note(entry)
        self.versions.add(entry.version)
        person = self.person(entry.user)
        person.note(entry)
        if entry.kind == "sent":
            self._note_message(entry, person)

    def _note_message(self, entry: JournalEntry, person: Person) -> None:
        channel = str(entry.detail.get("channel", ""))
        if channel == CALL_CHANNEL:
            self.tally.calls += 1
            return
        what = f"{channel}:{str(entry.detail.get('template', '')).partition('@')[0]}"
        self.tally.messages[channel, entry.at // DAY_MS] += 1
        self.tally.templates[what] += 1
        person.sent += 1
        person.plot = hash((person.plot, what))
        person.times = hash((person.times, entry.at))


def _summed(parts: Sequence[_Counted]) -> Side:
    def added(counters: Iterable[Counter[str]]) -> dict[str, int]:
        total: Counter[str] = Counter()
        for counter in counters:
            total.update(counter)
        return dict(sorted(total.items(), key=lambda each: (-each[1], each[0])))

    channels: Counter[str] = Counter()
    for part in parts:
        for (channel, _), count in part.tally.messages.items():
            channels[channel] += count
    tallies = [part.tally for part in parts]
    people = [person for part in parts for person in part.people.values()]
    return Side(
        entered=sum(each.entered.total() for each in tallies),
        users_entered=sum(1 for person in people if person.entered),
        not_entered=added(each.not_entered for each in tallies),
        messages=added([channels]),
        templates=added(each.templates for each in tallies),
        users_messaged=sum(1 for person in people if person.sent),
        blocked=added(each.blocked for each in tallies),
        held=added(each.held for each in tallies),
        exits=added(each.exits for each in tallies),
        goals=sum(each.goals.total() for each in tallies),
        goal_value=round(sum(each.goal_value for each in tallies), 2),
        calls=sum(each.calls for each in tallies),
        suspended=added(each.suspended for each in tallies),
    )


def _said(kind: Kind) -> str:
    return KINDS[kind].replace("the new version", "the shadow").replace("the old version", "the active version")
