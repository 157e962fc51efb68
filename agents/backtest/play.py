"""How a backtest is played: every record once through both versions, then the examples once more, to tell their stories."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from zlib import crc32

from agents.backtest.recording import Recorded, Rejects
from engine.backtest import Backtest, Lane, Version, World
from engine.catalog import schedule_of
from engine.comparison import Comparison, Outcome, compare
from engine.errors import InvalidInput
from schemas.inputs import Entered, Erased, Event, Receipt
from schemas.outputs import JournalEntry

PLAYED = (Event, Entered, Erased)  # what came from outside; the rest answers runs that are played anew here
VISIT = re.compile(r"([a-z][a-z0-9_]*)\.[0-9]+\.[a-z2-7]{16}:[0-9]+\Z")  # the id of what a step gave its user
PATIENCE = 1000  # users between two reports of progress


class Recording(Protocol):
    """Where recorded inputs come from: files, or a log."""

    @property
    def size(self) -> int: ...

    def read(self, rejects: Rejects, progress: Callable[[int], None]) -> Iterable[Recorded]: ...


class Progress(Protocol):
    """What is told of a long work: its parts, each with a size, and how far it has come."""

    def begin(self, what: str, size: int) -> None: ...

    def advance(self, by: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Story:
    """What happened to one user in both versions."""

    user: str
    old: list[JournalEntry]
    new: list[JournalEntry]


@dataclass(slots=True)
class Played:
    """A backtest that was played: the comparison, the stories of its examples, and what was not played."""

    comparison: Comparison
    stories: dict[str, Story]
    rejects: Rejects
    left_out: Counter[str]  # kinds of input that were not played; receipts by their status
    scheduled: list[str]  # versions that a schedule enters and nobody did: only a log of entries can play them


@dataclass(frozen=True, slots=True)
class Part:
    """What playing the users of one share came to. `until_at`: the horizon, ms."""

    comparison: Comparison
    rejects: Rejects
    left_out: Counter[str]
    until_at: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be played: two versions in a world, to a horizon (ms; None: the last record), at these prices."""

    old: Version
    new: Version
    world: World
    until_at: int | None = None
    prices: Mapping[str, float] = field(default_factory=dict)


def play(plan: Plan, recording: Recording, progress: Progress, fold: "Fold | None" = None) -> Played:
    """Return what the two versions make of a recording. Raises InvalidInput if it can't be read.

    `fold` plays all users; by default that is done here, one share of one.
    """
    part = (fold or play_share)(plan, recording, progress)
    users = dict.fromkeys(difference.example for difference in part.comparison.differences)
    stories = _stories(list(users), plan, recording, progress, part.until_at)
    comparison = part.comparison
    scheduled = [*_scheduled(plan.old, comparison.old), *_scheduled(plan.new, comparison.new)]
    return Played(comparison, stories, part.rejects, part.left_out, list(dict.fromkeys(scheduled)))


def _scheduled(side: Version, outcome: Outcome) -> Iterator[str]:
    for journey in side.counted:
        entered = outcome.by_journey[journey.name]["entered"] if side.also else outcome.entered
        if schedule_of(journey) is not None and not entered:
            yield journey.label


Fold = Callable[[Plan, Recording, Progress], Part]


def play_share(plan: Plan, recording: Recording, progress: Progress, number: int = 0, shares: int = 1) -> Part:
    """Play the users of one share of so many; of the others' records only the time is noted."""
    backtest = Backtest(plan.old, plan.new, plan.world)
    rejects, left_out = Rejects(), Counter[str]()
    progress.begin("playing both versions", recording.size)
    recorded = recording.read(rejects if number == 0 else Rejects(), progress.advance)
    for user, at, input in _played(recorded, _names(plan.old, plan.new), left_out if number == 0 else Counter()):
        if shares > 1 and crc32(user.encode()) % shares != number:
            backtest.notice(at)
            continue
        try:
            backtest.give(user, input, at)
        except InvalidInput as error:
            rejects.add(f"an input of {user!r}", str(error))
    progress.begin("letting time run on", len(backtest.old.people))
    for done in backtest.finish(plan.until_at):
        if done % PATIENCE == 0:
            progress.advance(PATIENCE)
    return Part(compare(backtest, plan.prices), rejects, left_out, backtest.until_at)


def _stories(
    users: Sequence[str], plan: Plan, recording: Recording, progress: Progress, until_at: int
) -> dict[str, Story]:
    """Fold the examples once more, and this time keep their journals. Users don't concern each other, so they are the same."""
    stories = {user: Story(user, [], []) for user in users}
    if not stories:
        return stories
    lanes = (
        Lane(plan.old, plan.world, lambda entry: stories[entry.user].old.append(entry)),
        Lane(plan.new, plan.world, lambda entry: stories[entry.user].new.append(entry)),
    )
    progress.begin("telling the examples", recording.size)
    for user, at, input in _played(recording.read(Rejects(), progress.advance), _names(plan.old, plan.new), Counter()):
        if user not in stories:
            continue
        for lane in lanes:
            try:
                lane.give(user, input, at)
            except InvalidInput:  # counted in the first pass
                break
    for lane in lanes:
        for user in lane.people:
            lane.pass_time(user, until_at)
    return stories


def _names(*versions: Version) -> frozenset[str]:
    return frozenset(each.name for version in versions for each in (*version.counted, *version.beside))


def _played(
    recorded: Iterable[Recorded], names: frozenset[str], left_out: Counter[str]
) -> Iterator[tuple[str, int, Event | Entered | Erased]]:
    """Yield what came from outside. What a run of these journeys gave its user is left out: here their runs do that anew."""
    for user, at, input in recorded:
        if isinstance(input, Receipt):
            left_out[f"receipt {input.status}"] += 1
        elif not isinstance(input, PLAYED):
            left_out[type(input).__name__] += 1
        elif ":" in input.id and (visit := VISIT.match(input.id)) and visit[1] in names:
            left_out["given by a run"] += 1
        else:
            yield user, at, input
