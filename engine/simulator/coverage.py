"""Which steps of a journey, and which ways between them, simulated users have passed.

The fold is not asked and not slowed. What is simulated is a copy of the journey in which every way out spells its target
with a text of its own: equal to the step's name, but another object. A run takes that object along, and so the journal's
entry about an arrival tells by which way it came, two ways to the same step included. Names of a single character have no
copies, nor have names that a step makes up anew: where they leave a doubt, every way from the step before counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

from engine.catalog import Catalog
from engine.definitions import dump
from engine.journey import Journey
from schemas.outputs import JournalEntry

T = TypeVar("T")

BEGIN, ANYWHERE = "[*]", "any step"
EXIT_ON, GOAL = "exit_on", "goal"


class Way(NamedTuple):
    """From which step a way leads where; the exit and the goal count as ways from anywhere."""

    source: str
    label: str
    target: str

    def __str__(self) -> str:
        return f"{self.source} > {self.target} ({self.label})"


@dataclass
class JourneyCoverage:
    """What was passed of one version of a journey."""

    journey: Journey
    ways: tuple[Way, ...]
    steps_passed: set[str] = field(default_factory=set)
    ways_passed: set[Way] = field(default_factory=set)

    @property
    def missing(self) -> list[str]:
        """What nobody passed: steps, then ways between steps that were passed, in the order of the table."""
        steps = [step for step in self.journey.steps if step not in self.steps_passed]
        reached = {*self.steps_passed, BEGIN, ANYWHERE}
        ways = [way for way in self.ways if way not in self.ways_passed and way.source in reached]
        return [*steps, *(str(way) for way in ways if way.target not in steps)]

    @property
    def passed(self) -> int:
        return len(self.steps_passed) + len(self.ways_passed)

    @property
    def total(self) -> int:
        return len(self.journey.steps) + len(self.ways)


class Coverage:
    """What was passed of every journey that was simulated."""

    def __init__(self) -> None:
        self._by_body: dict[bytes, JourneyCoverage] = {}
        self._copies: dict[
            int, tuple[Journey, Journey]
        ] = {}  # of an original: it, so that its id stays its own; the copy
        self._covered: dict[int, JourneyCoverage] = {}  # of a copy
        self._ways: dict[int, list[tuple[JourneyCoverage, Way]]] = {}  # of a target's text

    @property
    def journeys(self) -> list[JourneyCoverage]:
        """Every version that was simulated, by name and number."""
        return sorted(self._by_body.values(), key=lambda each: (each.journey.name, each.journey.version))

    def watched(self, journey: Journey) -> Journey:
        """Return the copy of a journey to simulate in its place."""
        if id(journey) in self._covered:
            return journey
        known = self._copies.get(id(journey))
        if known is not None:
            return known[1]
        body = dump(journey)
        covered = self._by_body.get(body)
        if covered is None:
            copy, ways = _with_own_targets(journey)
            covered = self._by_body[body] = JourneyCoverage(copy, tuple(dict.fromkeys(ways)))
            self._covered[id(copy)] = covered
            for way in ways:
                self._ways.setdefault(id(way.target), []).append((covered, way))
        self._copies[id(journey)] = (journey, covered.journey)
        return covered.journey

    def note(self, journal: Iterable[JournalEntry], catalog: Catalog, places: dict[str, str]) -> None:
        """Note what a fold has told of a user. `places`: where the user's runs are, kept by the caller between folds."""
        for entry in journal:
            covered = self._covered_by(entry, catalog)
            if covered is None:
                continue
            if entry.kind == "step":
                covered.steps_passed.add(entry.step)
                covered.ways_passed.update(self._ways_to(covered, entry.step, places.get(entry.run, BEGIN)))
                places[entry.run] = entry.step
            elif entry.kind == "moved":
                places[entry.run] = ""  # a move is no way of the table
            elif entry.kind == "goal" or (entry.kind == "exited" and entry.reason == "exit_on"):
                kind = GOAL if entry.kind == "goal" else EXIT_ON
                covered.ways_passed.update(way for way in covered.ways if way.target == kind and way.source == ANYWHERE)
            if entry.kind == "exited":
                places.pop(entry.run, None)

    def _covered_by(self, entry: JournalEntry, catalog: Catalog) -> JourneyCoverage | None:
        journey = catalog.journeys.get((entry.tenant, entry.journey, entry.version)) if entry.run else None
        return None if journey is None else self._covered.get(id(journey))

    def _ways_to(self, covered: JourneyCoverage, step: str, before: str) -> Sequence[Way]:
        certain = [way for each, way in self._ways.get(id(step), ()) if each is covered]
        if len(certain) == 1:
            return certain
        return [way for way in covered.ways if way.target == step and way.source == before]


def _with_own_targets(journey: Journey) -> tuple[Journey, list[Way]]:
    """Return the copy of a journey whose every way out is told by its text, and the ways."""
    steps = {name: _copied(step, journey.steps) for name, step in journey.steps.items()}
    start = _respelt(journey.start, journey.steps)
    ways = [Way(BEGIN, str(journey.entry), start)]
    ways += [Way(name, label, target) for name, step in steps.items() for label, target in step.edges()]
    if journey.exit_on is not None:
        ways.append(Way(ANYWHERE, str(journey.exit_on), EXIT_ON))
    if journey.goal is not None:
        ways.append(Way(ANYWHERE, str(journey.goal), GOAL))
    copy = object.__new__(Journey)
    copy.__dict__.update({each.name: getattr(journey, each.name) for each in fields(journey)})
    copy.__dict__.update(steps=steps, start=start)
    return copy, ways


def _copied(step: T, names: Mapping[str, Any]) -> T:
    copy = object.__new__(type(step))
    parts = {each.name: _respelt(getattr(step, each.name), names) for each in fields(step)}  # type: ignore[arg-type]
    copy.__dict__.update(parts)
    return copy


def _respelt(value: Any, names: Mapping[str, Any]) -> Any:
    """Return the value with every text that is the name of a step as another object. Conditions name steps, but no targets."""
    if isinstance(value, str):
        return value.encode().decode() if value in names else value
    if type(value) in (tuple, list):
        return type(value)(_respelt(item, names) for item in value)
    if type(value) is dict:
        return {_respelt(key, names): _respelt(item, names) for key, item in value.items()}
    return value
