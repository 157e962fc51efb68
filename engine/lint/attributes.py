"""The rules about properties of events and attributes of the profile: are they declared, and can they hold what is asked?

Only what is declared is checked: an event without a schema may have any property. Where several events can be at hand, a
property is right if one of them has it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from engine.conditions import AllOf, Answer, AnyOf, Condition, Did, Not, On, Profile, Where
from engine.event_schemas import Shape, kind_of
from engine.journey import Journey
from engine.lint.findings import Finding, Surroundings, nearest
from engine.policy import ADDRESSES
from engine.steps import Branch, Call, Emit, Step, Update
from engine.values import Path

OURS = frozenset({*ADDRESSES.values(), "timezone", "consent"})  # attributes the engine itself knows
OUR_EVENTS = frozenset({"identify", "segment_entered", "segment_left"})
ANY_EVENT: frozenset[str] = frozenset()  # it is not known which
RUN_VALUES = ("id", "journey", "key")

NUMBERS, TEXTS, DATES = {"integer", "number"}, {"string"}, {"string", "integer", "number"}
NEEDS = {  # operator -> what a value must be to be compared so
    "starts_with": TEXTS, "ends_with": TEXTS, "matches": TEXTS, "before": DATES, "after": DATES, "within_last": DATES,
    "longer_ago_than": DATES, "within_next": DATES, "further_ahead_than": DATES,
}  # fmt: skip


def check(journey: Journey, surroundings: Surroundings) -> Iterator[Finding]:
    """Yield what is wrong with the names and values that a journey reads and writes."""
    checker = _Checker(journey, surroundings)
    for place, condition in journey.conditions():
        place = place.strip("'")
        begun = place == "entry" or isinstance(journey.steps.get(place), Branch)
        yield from checker.condition(place, condition, journey.entry_names if begun else ANY_EVENT)
    yield from checker.key()
    yield from checker.goal()
    for name, step in journey.steps.items():
        yield from checker.values(name, step)
        if isinstance(step, Update):
            yield from checker.update(name, step)
        elif isinstance(step, Emit):
            yield from checker.emit(name, step)


@dataclass(frozen=True)
class _Checker:
    journey: Journey
    surroundings: Surroundings

    def condition(self, place: str, condition: Condition, events: frozenset[str]) -> Iterator[Finding]:
        """`events`: those whose properties are asked for. A `where` beside an On is about that On's event."""
        match condition:
            case AllOf() | AnyOf():
                named = {part.name for part in condition.conditions if isinstance(part, On)}
                here = frozenset(named) if isinstance(condition, AllOf) and named else events
                for part in condition.conditions:
                    yield from self.condition(place, part, here)
            case Not():
                yield from self.condition(place, condition.condition, events)
            case On():
                yield from self._event(place, condition.name)
                for part in condition.where:
                    yield from self.condition(place, part, frozenset({condition.name}))
            case Did():
                yield from self.condition(place, condition.event, events)
                if condition.total is not None:
                    yield from self._number(place, condition.event.name, condition.total, "is summed up")
            case Where():
                yield from self._compared(place, condition, self.event_property(condition.field, events), events)
            case Profile():
                yield from self._compared(place, condition, self.attribute(condition.field), None)
            case _:
                return

    def event_property(self, path: str, events: frozenset[str]) -> Shape | None:
        """Return what a property may be: anything if not all events are declared, None if none of them has it."""
        shapes = [self.surroundings.declared.events.get(name) for name in sorted(events)]
        if not shapes or any(shape is None for shape in shapes):
            return Shape()
        found = [shape.at(path) for shape in shapes if shape is not None]
        there = [shape for shape in found if shape is not None]
        return there[0] if len(there) == 1 else Shape() if there else None

    def attribute(self, path: str) -> Shape | None:
        profile = self.surroundings.declared.profile
        if profile is None:
            return Shape()
        found = profile.at(path)
        return Shape() if found is None and path.partition(".")[0] in OURS else found

    def key(self) -> Iterator[Finding]:
        """A keyed run only hears events that have its key."""
        key = self.journey.key
        if key is None:
            return
        for place, condition in self.journey.conditions():
            for name in sorted(_events_of(condition)):
                if self.event_property(key, frozenset({name})) is None:
                    problem = (
                        f"{name!r} has no {key!r}, which is the journey's key: a run hears only events with its key"
                    )
                    yield Finding(
                        "error",
                        "key",
                        place.strip("'"),
                        problem,
                        f"declare {key!r} in the schema of {name!r} if it has one, or do without that event",
                    )

    def goal(self) -> Iterator[Finding]:
        goal = self.journey.goal
        if goal is None or goal.value is None:
            return
        for name in sorted(_events_of(goal.condition)):
            yield from self._number("goal", name, goal.value, "is the goal's value")

    def values(self, place: str, step: Step) -> Iterator[Finding]:
        """Check the paths that a step reads when it is reached."""
        for path in _paths(step):
            source, _, rest = path.path.partition(".")
            if source == "event" and self.event_property(rest, self.journey.entry_names) is None:
                yield self._undeclared(place, f"event.{rest}", self.journey.entry_names)
            elif source == "profile" and self.attribute(rest) is None:
                yield self._undeclared(place, f"profile.{rest}", None)
            elif source == "answer" and not isinstance(self.journey.steps.get(rest.partition(".")[0]), Call):
                calls = [name for name, each in self.journey.steps.items() if isinstance(each, Call)]
                called = rest.partition(".")[0]
                remedy = nearest(called, calls, "the steps that call are")
                yield Finding("error", "path", place, f"`{path.path}`: {called!r} is not a step that calls", remedy)
            elif source == "run" and rest not in RUN_VALUES:
                remedy = nearest(rest, RUN_VALUES, "a run has")
                yield Finding("error", "path", place, f"`{path.path}`: a run has no {rest!r}", remedy)

    def update(self, place: str, step: Update) -> Iterator[Finding]:
        for name, value in step.profile.items():
            shape = self.attribute(name)
            if shape is None:
                yield self._undeclared(place, f"profile.{name}", None)
            elif value is not None and not isinstance(value, Path) and not _possible(value, shape):
                yield Finding(
                    "error",
                    "value",
                    place,
                    f"`profile.{name}` is set to {value!r}",
                    f"it is declared as {_told(shape)}",
                )

    def emit(self, place: str, step: Emit) -> Iterator[Finding]:
        yield from self._event(place, step.event)
        shape = self.surroundings.declared.events.get(step.event)
        if shape is None:
            return
        for name, value in step.properties.items():
            found = shape.at(name)
            if found is None:
                yield self._undeclared(place, f"event.{name}", frozenset({step.event}))
            elif not isinstance(value, Path) and not _possible(value, found):
                problem = f"{step.event!r} is emitted with {name!r} as {value!r}"
                yield Finding("error", "value", place, problem, f"it is declared as {_told(found)}")
        if missing := [name for name in shape.required() if name not in step.properties]:
            problem = f"{step.event!r} is emitted without {', '.join(map(repr, missing))}"
            yield Finding("error", "value", place, problem, "the schema requires it; add it to `properties`")

    def _event(self, place: str, name: str) -> Iterator[Finding]:
        events = self.surroundings.declared.events
        if events and name not in events and name not in OUR_EVENTS:
            remedy = nearest(name, events, f"write schemas/{name}.json, or choose one of")
            yield Finding("warning", "undeclared_event", place, f"the event {name!r} is not declared", remedy)

    def _compared(
        self, place: str, condition: Where | Profile, shape: Shape | None, events: frozenset[str] | None
    ) -> Iterator[Finding]:
        subject = f"{'profile' if events is None else 'event'}.{condition.field}"
        if shape is None:
            if condition.op != "exists":  # whether it is there may be just the question
                yield self._undeclared(place, subject, events)
        elif problem := _comparison_problem(condition, shape):
            yield Finding(
                "error", "comparison", place, f"`{condition}` {problem}", f"`{subject}` is declared as {_told(shape)}"
            )

    def _number(self, place: str, event: str, path: str, use: str) -> Iterator[Finding]:
        shape = self.event_property(path, frozenset({event}))
        if shape is None:
            yield self._undeclared(place, f"event.{path}", frozenset({event}))
        elif shape.kinds() and not shape.kinds() & (NUMBERS | TEXTS):
            problem = f"`{path}` of {event!r} {use}, and it is not a number"
            yield Finding("error", "value", place, problem, f"it is declared as {_told(shape)}")

    def _undeclared(self, place: str, subject: str, events: frozenset[str] | None) -> Finding:
        """`events`: whose property it should be; None: an attribute of the profile."""
        declared = self.surroundings.declared
        name = subject.partition(".")[2]
        if events is None:
            names = declared.profile.names() if declared.profile is not None else []
            problem = f"`{subject}` is not declared in the profile's schema"
        else:
            shapes = [declared.events[event] for event in sorted(events)]
            names = list(dict.fromkeys(each for shape in shapes for each in shape.names()))
            problem = f"`{subject}` is not declared for {' or '.join(map(repr, sorted(events)))}"
        return Finding("error", "undeclared", place, problem, nearest(name, names, "declared are"))


def _events_of(condition: Condition) -> frozenset[str]:
    """Return the events on which a condition asks to be judged."""
    match condition:
        case On():
            return frozenset({condition.name})
        case AllOf() | AnyOf():
            return frozenset().union(*(_events_of(part) for part in condition.conditions))
        case _:
            return frozenset()


def _paths(step: Step) -> Iterator[Path]:
    """Yield the paths among a step's fields, whatever kind of step it is."""
    for field in fields(step):  # type: ignore[arg-type]
        found = getattr(step, field.name)
        for value in found.values() if isinstance(found, Mapping) else [found]:
            if isinstance(value, Path):
                yield value


def _comparison_problem(condition: Where | Profile | Answer, shape: Shape) -> str:
    """Say why a comparison always comes out the same for what is declared, or nothing."""
    op, kinds = condition.op, shape.kinds()
    if not kinds or op == "exists":
        return ""
    wanted: Sequence[Any] = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    if op in ("==", "!=", "in", "not_in"):
        wrong = [value for value in wanted if not _possible(value, shape)]
        return f"asks for {', '.join(map(repr, wrong))}, which it can't be" if wrong else ""
    if op in (">", ">=", "<", "<="):
        needed = TEXTS if isinstance(condition.value, str) else NUMBERS
        return "" if kinds & needed else "compares what has no order with it"
    if op in ("contains", "contains_any", "contains_all"):
        return "" if _may_contain(wanted, shape) else "asks for what it can't contain"
    return "" if kinds & NEEDS.get(op, kinds) else f"can't be judged: {op!r} is for {' or '.join(sorted(NEEDS[op]))}"


def _may_contain(wanted: Sequence[Any], shape: Shape) -> bool:
    if "string" in shape.kinds() and all(isinstance(value, str) for value in wanted):
        return True
    item = shape.item()
    return "array" in shape.kinds() and item is not None and all(_possible(value, item) for value in wanted)


def _possible(value: Any, shape: Shape) -> bool:
    """Can what is declared so have this value?"""
    kinds, kind = shape.kinds(), kind_of(value)
    if kinds and kind not in kinds and not (kind in NUMBERS and kinds & NUMBERS):
        return False
    values = shape.values()
    return values is None or any(value == each and kind_of(each) == kind for each in values)


def _told(shape: Shape) -> str:
    values = shape.values()
    if values is not None:
        return f"one of {', '.join(map(repr, values[:12]))}" + (" ..." if len(values) > 12 else "")
    return " or ".join(sorted(shape.kinds())) or "anything"
