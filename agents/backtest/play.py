"""How a backtest is played: every record once through both versions, then the examples once more, to tell their stories."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agents.backtest.recording import Recorded, Rejects
from engine.backtest import Backtest, Lane, Version, World
from engine.catalog import schedule_of
from engine.comparison import Comparison, compare
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
    scheduled: list[str]  # versions that a schedule enters, which only a log of entries can play


def play(
    old: Version,
    new: Version,
    world: World,
    recording: Recording,
    progress: Progress,
    until_at: int | None = None,
    prices: Mapping[str, float] = {},
) -> Played:
    """Return what the two versions make of a recording. Raises InvalidInput if it can't be read."""
    backtest = Backtest(old, new, world)
    rejects = Rejects()
    left_out: Counter[str] = Counter()
    progress.begin("playing both versions", recording.size)
    for user, at, input in _played(recording.read(rejects, progress.advance), _names(old, new), left_out):
        try:
            backtest.give(user, input, at)
        except InvalidInput as error:
            rejects.add(f"an input of {user!r}", str(error))
    progress.begin("letting time run on", len(backtest.old.people))
    for done in backtest.finish(until_at):
        if done % PATIENCE == 0:
            progress.advance(PATIENCE)
    comparison = compare(backtest, prices)
    until_at = backtest.until_at
    del backtest  # the states of all users: the second pass needs only those of the examples
    users = dict.fromkeys(difference.example for difference in comparison.differences)
    stories = _stories(list(users), old, new, world, recording, progress, until_at)
    scheduled = [each.journey.label for each in (old, new) if schedule_of(each.journey) is not None]
    return Played(comparison, stories, rejects, left_out, scheduled)


def _stories(
    users: Sequence[str],
    old: Version,
    new: Version,
    world: World,
    recording: Recording,
    progress: Progress,
    until_at: int,
) -> dict[str, Story]:
    """Fold the examples once more, and this time keep their journals. Users don't concern each other, so they are the same."""
    stories = {user: Story(user, [], []) for user in users}
    if not stories:
        return stories
    lanes = (
        Lane(old, world, lambda entry: stories[entry.user].old.append(entry)),
        Lane(new, world, lambda entry: stories[entry.user].new.append(entry)),
    )
    progress.begin("telling the examples", recording.size)
    for user, at, input in _played(recording.read(Rejects(), progress.advance), _names(old, new), Counter()):
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
    return frozenset(each.name for version in versions for each in (version.journey, *version.beside))


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
