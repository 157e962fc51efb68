"""What makes a difference to journeys: the events, properties, attributes, answers and durations that they speak of.

Random inputs seldom meet a journey: an event of another name, a total that isn't near the limit. From its own conditions can
be read what would: for `where("total", ">", 100)` the totals 99, 100 and 101.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from typing import Any

from engine.conditions import Answer, Did, On, Profile, Where, leaves
from engine.durations import milliseconds
from engine.entries import Api, Changed, Schedule
from engine.journey import Journey
from engine.operators import RELATIVE
from engine.policy import Policy
from engine.steps import Call, DelayUntil, Emit, Send
from engine.values import Path

MILLISECOND = timedelta(milliseconds=1)
ODD = (None, True, 0, -1, 2.5, "", "other", [1, "a"], {"deep": {"er": 1}})  # what nobody asked for
LONGEST = timedelta(days=400)

Candidates = dict[str, list[Any]]  # path -> values that may make a difference


class Vocabulary:
    """What some journeys and policies speak of. `begin` is when a life starts: dates are made around it."""

    def __init__(self, definitions: Sequence[Journey | Policy], begin: datetime) -> None:
        self.begin = begin
        self.journeys = [each for each in definitions if isinstance(each, Journey)]
        self.events: dict[str, None] = {}
        self.properties: Candidates = {}
        self.attributes: Candidates = {}
        self.answers: dict[str, Candidates] = {}  # by step
        self.topics: dict[str, None] = {"marketing": None}
        self.channels: dict[str, None] = {"email": None}
        self.durations: dict[timedelta, None] = {}
        for journey in self.journeys:
            self._take_journey(journey)
        for definition in definitions:
            for duration in _durations(definition):
                self.durations.update(dict.fromkeys((duration, duration - MILLISECOND, duration + MILLISECOND)))
        self.durations = {each: None for each in self.durations if timedelta(0) <= each <= LONGEST}

    def _take_journey(self, journey: Journey) -> None:
        self.events.update(dict.fromkeys(sorted(journey.entry_names)))
        if journey.key is not None:
            self.properties[journey.key] = ["k1", "k2", 3]
        if journey.goal is not None and journey.goal.value is not None:
            _add(self.properties, journey.goal.value, [10, "12.50"])
        if isinstance(journey.entry, Changed):
            _add(self.attributes, journey.entry.attribute, [1, "changed", None])
        if isinstance(journey.entry, Api | Schedule) and journey.entry.who is None:
            self.events.setdefault("unheard", None)
        for _, condition in journey.conditions():
            for leaf in leaves(condition):
                self._take_leaf(leaf)
        for name, step in journey.steps.items():
            self._take_step(name, step)

    def _take_leaf(self, leaf: Any) -> None:
        match leaf:
            case On():
                self.events[leaf.name] = None
            case Did(total=str(total)):
                _add(self.properties, total, [leaf.total_at_least, (leaf.total_at_least or 0) / 2])
            case Where():
                _add(self.properties, leaf.field, self._values_for(leaf))
            case Profile():
                _add(self.attributes, leaf.field, self._values_for(leaf))
            case Answer():
                step, _, path = leaf.field.partition(".")
                _add(self.answers.setdefault(step, {}), path or "value", self._values_for(leaf))

    def _take_step(self, name: str, step: Any) -> None:
        if isinstance(step, Emit):
            self.events[step.event] = None
        if isinstance(step, Call):
            self.answers.setdefault(name, {})
        if isinstance(step, Send):
            self.topics[step.topic] = None
            self.channels.update(dict.fromkeys(step.channels))
        dates = self._dates(timedelta(days=2)) if isinstance(step, DelayUntil) else []
        for path in _paths(step):
            source, _, rest = path.path.partition(".")
            if source in ("event", "profile"):
                _add(self.properties if source == "event" else self.attributes, rest, dates or ["filled", 7])

    def _values_for(self, leaf: Where | Profile | Answer) -> list[Any]:
        """Return values on either side of a comparison."""
        value: Any = leaf.value
        if leaf.op in RELATIVE:
            return self._dates(leaf.duration or timedelta(days=1))
        if leaf.op in ("before", "after"):
            return [value, *self._dates(timedelta(days=1))]
        if isinstance(value, tuple):
            return [*value, *([list(value)] if "contains" in leaf.op else [])]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return [value, value - 1, value + 1]
        if leaf.op == "contains":
            return [[value], [value, "more"]]
        return [value] if value is not None else ["something"]

    def _dates(self, around: timedelta) -> list[Any]:
        moments = [self.begin + days for days in (-around, timedelta(0), around, 3 * around)]
        return [*(each.isoformat() for each in moments), moments[2].date().isoformat(), "2028-02-29", "no date"]


def nested(values: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object that has these values at these paths; of two that don't go together the later one counts."""
    whole: dict[str, Any] = {}
    for path, value in values:
        place = whole
        *above, last = path.split(".")
        for part in above:
            inner = place.get(part)
            place[part] = inner = inner if isinstance(inner, dict) else {}
            place = inner
        place[last] = value
    return whole


def _add(candidates: Candidates, path: str, values: Sequence[Any]) -> None:
    known = candidates.setdefault(path, [])
    known += [value for value in values if value not in known]


def _parts(value: Any) -> Iterator[Any]:
    """Yield a value and everything in it."""
    yield value
    if is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from _parts(getattr(value, each.name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _parts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item)


def _paths(value: Any) -> list[Path]:
    return [part for part in _parts(value) if isinstance(part, Path)]


def _durations(value: Any) -> list[timedelta]:
    found = [part for part in _parts(value) if isinstance(part, timedelta) and milliseconds(part)]
    return list(dict.fromkeys(found))
