"""Conditions as data, so that they can be drawn, compared, and stored with the version they belong to.

One type serves everywhere: the entry of a journey, its exit and goal, what a wait waits for, the cases of a branch. A
condition is judged against `Facts`: the event at hand (if there is one), the profile, and what became of the run's
messages. What is absent compares as nothing at all: it equals nothing, is above and below nothing, and is unequal to
everything. `!=` is the exact opposite of `==`, so a user without a tier is among those whose tier isn't gold.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, overload

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass, rebuild_dataclass

from engine.durations import describe
from schemas.inputs import ReceiptStatus
from schemas.state import Sent

Scalar = bool | int | float | str | None
Value = Scalar | tuple[Scalar, ...]
Operator = Literal["==", "!=", ">", ">=", "<", "<=", "in", "contains", "exists"]

# A misspelt field in a JSON definition is an error, not silence; JSON has no infinity.
FORBID = ConfigDict(extra="forbid", allow_inf_nan=False)


class Facts:
    """What a condition is judged against. `name` is None where no event is at hand; `here` is the present step's message."""

    __slots__ = ("here", "name", "profile", "properties", "sends")

    def __init__(
        self,
        profile: Mapping[str, Any],
        name: str | None = None,
        properties: Mapping[str, Any] = {},
        sends: Mapping[str, Sent] = {},
        here: Sent | None = None,
    ) -> None:
        self.profile = profile
        self.name = name
        self.properties = properties
        self.sends = sends
        self.here = here


@dataclass(frozen=True, config=FORBID)
class Where:
    """A property of the event at hand; in a branch, of the event that began the run."""

    field: str
    op: Operator
    value: Value = None
    kind: Literal["where"] = "where"

    def holds(self, facts: Facts) -> bool:
        return compare(read(facts.properties, self.field), self.op, self.value)

    def __str__(self) -> str:
        return _phrase(self.field, self.op, self.value)


@dataclass(frozen=True, config=FORBID)
class Profile:
    """An attribute of the user."""

    field: str
    op: Operator
    value: Value = None
    kind: Literal["profile"] = "profile"

    def holds(self, facts: Facts) -> bool:
        return compare(read(facts.profile, self.field), self.op, self.value)

    def __str__(self) -> str:
        return _phrase(f"profile.{self.field}", self.op, self.value)


@dataclass(frozen=True, config=FORBID)
class On:
    """The event at hand has this name, and its properties are as said."""

    name: str = Field(min_length=1, max_length=256)
    where: tuple["Condition", ...] = ()
    kind: Literal["on"] = "on"

    def holds(self, facts: Facts) -> bool:
        return facts.name == self.name and all([condition.holds(facts) for condition in self.where])

    def __str__(self) -> str:
        return " and ".join([self.name, *map(str, self.where)])


@dataclass(frozen=True, config=FORBID)
class ReceiptOf:
    """The last message that a step of this run asked for has come this far."""

    step: str
    status: ReceiptStatus
    kind: Literal["receipt"] = "receipt"

    def holds(self, facts: Facts) -> bool:
        sent = facts.sends.get(self.step)
        return sent is not None and self.status in sent.statuses

    def __str__(self) -> str:
        return f"{self.step} {self.status}"


@dataclass(frozen=True, config=FORBID)
class AllOf:
    conditions: tuple["Condition", ...]
    kind: Literal["all_of"] = "all_of"

    def holds(self, facts: Facts) -> bool:
        return all([condition.holds(facts) for condition in self.conditions])

    def __str__(self) -> str:
        return " and ".join(_bracket(condition) for condition in self.conditions) or "always"


@dataclass(frozen=True, config=FORBID)
class AnyOf:
    conditions: tuple["Condition", ...]
    kind: Literal["any_of"] = "any_of"

    def holds(self, facts: Facts) -> bool:
        return any([condition.holds(facts) for condition in self.conditions])

    def __str__(self) -> str:
        return " or ".join(_bracket(condition) for condition in self.conditions) or "never"


@dataclass(frozen=True, config=FORBID)
class Not:
    condition: "Condition"
    kind: Literal["not"] = "not"

    def holds(self, facts: Facts) -> bool:
        return not self.condition.holds(facts)

    def __str__(self) -> str:
        return f"not {_bracket(self.condition)}"


Condition = Annotated[Where | Profile | On | ReceiptOf | AllOf | AnyOf | Not, Field(discriminator="kind")]

for _kind in (On, AllOf, AnyOf, Not):
    rebuild_dataclass(_kind, force=True)  # type: ignore[arg-type]


@dataclass(frozen=True, config=FORBID)
class Goal:
    """What a journey is for: `condition` within a time after the entry; `value` names the property that is its worth."""

    condition: Condition
    within: timedelta = Field(gt=timedelta(0))
    value: str | None = None

    def __str__(self) -> str:
        return f"{self.condition} within {describe(self.within)}"


@overload
def on(name: str, *where: Condition) -> On: ...
@overload
def on(name: str, *where: Condition, within: timedelta, value: str | None = None) -> Goal: ...
def on(name: str, *where: Condition, within: timedelta | None = None, value: str | None = None) -> On | Goal:
    """An event of this name. With `within` (and `value`) it is a goal."""
    event = On(name, where)
    return event if within is None else Goal(event, within, value)


def where(field: str, op: Operator, value: Value | Sequence[Scalar] = None) -> Where:
    """A property of the event; dots reach into objects: `where("address.city", "==", "Lyon")`."""
    return Where(field, op, _frozen(value))


def profile(field: str, op: Operator, value: Value | Sequence[Scalar] = None) -> Profile:
    """An attribute of the user; dots reach into objects."""
    return Profile(field, op, _frozen(value))


def receipt(step: str, status: ReceiptStatus) -> ReceiptOf:
    """What became of the message that a step of the same journey asked for."""
    return ReceiptOf(step, status)


def all_of(*conditions: Condition) -> AllOf:
    return AllOf(conditions)


def any_of(*conditions: Condition) -> AnyOf:
    return AnyOf(conditions)


def not_(condition: Condition) -> Not:
    return Not(condition)


def event_names(condition: Condition) -> frozenset[str] | None:
    """Return the names of the events on which a condition can come true, or None if no event is needed.

    This is what journeys are indexed by: a definition costs nothing on events that cannot concern it.
    """
    match condition:
        case On():
            return frozenset({condition.name})
        case AnyOf():
            parts = [event_names(part) for part in condition.conditions]
            return None if None in parts else frozenset().union(*(names for names in parts if names))
        case AllOf():
            return next((names for part in condition.conditions if (names := event_names(part)) is not None), None)
        case _:
            return None


def leaves(condition: Condition) -> Iterator[Where | Profile | On | ReceiptOf]:
    """Yield the conditions that have no parts, and every On together with its parts."""
    match condition:
        case AllOf() | AnyOf():
            for part in condition.conditions:
                yield from leaves(part)
        case Not():
            yield from leaves(condition.condition)
        case On():
            yield condition
            for part in condition.where:
                yield from leaves(part)
        case _:
            yield condition


class _Absent:
    """What reading an attribute that isn't there gives."""

    __slots__ = ()


ABSENT = _Absent()


def read(values: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path, or ABSENT. A name that contains dots itself is found first."""
    found = values.get(path, ABSENT)
    if found is ABSENT and "." in path:
        found = values
        for part in path.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return ABSENT
            found = found[part]
    return found


def compare(found: Any, op: Operator, value: Value) -> bool:
    """Compare strictly by kind: "5" isn't 5, true isn't 1. Values that have no order are neither above nor below."""
    return OPERATORS[op](found, value)


def _equal(found: Any, value: Any) -> bool:
    if found is ABSENT or isinstance(found, bool) is not isinstance(value, bool):
        return False
    return bool(found == value)


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def judge(found: Any, value: Any) -> bool:
        if isinstance(found, bool) or isinstance(value, bool):
            return False
        numbers = isinstance(found, int | float) and isinstance(value, int | float)
        texts = isinstance(found, str) and isinstance(value, str)
        return (numbers or texts) and test(found, value)

    return judge


def _contains(found: Any, value: Any) -> bool:
    if isinstance(found, str):
        return isinstance(value, str) and value in found
    return isinstance(found, list | tuple) and any(_equal(item, value) for item in found)


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": _equal,
    "!=": lambda found, value: not _equal(found, value),
    ">": _ordered(lambda found, value: found > value),
    ">=": _ordered(lambda found, value: found >= value),
    "<": _ordered(lambda found, value: found < value),
    "<=": _ordered(lambda found, value: found <= value),
    "in": lambda found, value: isinstance(value, tuple) and any(_equal(found, item) for item in value),
    "contains": _contains,
    "exists": lambda found, value: (found is not ABSENT and found is not None) is not (value is False),
}


def _frozen(value: Value | Sequence[Scalar]) -> Value:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return value
    return tuple(value)


def _phrase(subject: str, op: Operator, value: Value) -> str:
    if op == "exists":
        return f"{subject} is {'absent' if value is False else 'present'}"
    shown = list(value) if isinstance(value, tuple) else value
    return f"{subject} {op} {shown!r}"


def _bracket(condition: Condition) -> str:
    return f"({condition})" if isinstance(condition, AllOf | AnyOf) else str(condition)


def problem_of(condition: Where | Profile) -> str:
    """Say why an operator can never hold for the value it is given, or nothing."""
    match condition.op, condition.value:
        case "in", value if not isinstance(value, tuple):
            return f"has `{condition}`: 'in' needs a list of values, such as [{value!r}]"
        case ((">" | ">=" | "<" | "<="), value) if isinstance(value, bool | tuple) or value is None:
            return f"has `{condition}`: {condition.op!r} needs a number or a text to compare with"
        case (("==" | "!="), tuple() as value):
            return f"has `{condition}`: to compare with several values write 'in', {list(value)!r}"
        case "exists", value if value is not None and not isinstance(value, bool):
            return f"has `{condition}`: 'exists' takes True, False or nothing, not {value!r}"
    return ""
