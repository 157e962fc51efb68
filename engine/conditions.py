"""Conditions as data, so that they can be drawn, compared, and stored with the version they belong to.

One type serves everywhere: the entry of a journey, its exit and goal, what a wait waits for, the cases of a branch. A
condition is judged against `Facts`: the event at hand (if there is one), the profile, and what became of the run's
messages. What is absent compares as nothing at all: it equals nothing, is above and below nothing, and is unequal to
everything. `!=` is the exact opposite of `==`, so a user without a tier is among those whose tier isn't gold.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Any, Literal, overload

import xxhash
from msgspec import Struct
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass, rebuild_dataclass

from engine.durations import Duration, describe, milliseconds
from engine.operators import (
    Operator,
    Scalar,
    Value,
    compare,
    compare_dates,
    problem_with,
    read,
    turning_points,
)
from schemas.inputs import ReceiptStatus
from schemas.state import Sent, Track

# A misspelt field in a JSON definition is an error, not silence; JSON has no infinity.
FORBID = ConfigDict(extra="forbid", allow_inf_nan=False)


NOTHING: Mapping[str, Any] = MappingProxyType({})


class Facts(Struct, gc=False):
    """What a condition is judged against.

    `name` is None where no event is at hand; `here` is the present step's message; `history` what was tracked of earlier
    events. With `since`, an event counts as being at hand if it has occurred since then (a wait's lookback).
    """

    profile: Mapping[str, Any]
    name: str | None = None
    properties: Mapping[str, Any] = NOTHING
    sends: Mapping[str, Sent] = NOTHING
    here: Sent | None = None
    answers: Mapping[str, Any] = NOTHING
    history: Mapping[str, Track] = NOTHING
    now: int = 0
    since: int | None = None


@dataclass(frozen=True, config=FORBID)
class Where:
    """A property of the event at hand; in a branch, of the event that began the run."""

    field: str
    op: Operator
    value: Value = None
    duration: Duration | None = None
    kind: Literal["where"] = "where"

    def holds(self, facts: Facts) -> bool:
        return _judge(facts.properties, self, facts.now)

    def __str__(self) -> str:
        return _phrase(self.field, self)


@dataclass(frozen=True, config=FORBID)
class Profile:
    """An attribute of the user."""

    field: str
    op: Operator
    value: Value = None
    duration: Duration | None = None
    kind: Literal["profile"] = "profile"

    def holds(self, facts: Facts) -> bool:
        return _judge(facts.profile, self, facts.now)

    def __str__(self) -> str:
        return _phrase(f"profile.{self.field}", self)


@dataclass(frozen=True, config=FORBID)
class Answer:
    """Something in the answer that a Call of this run got: `step.path`."""

    field: str
    op: Operator
    value: Value = None
    duration: Duration | None = None
    kind: Literal["answer"] = "answer"

    def holds(self, facts: Facts) -> bool:
        return _judge(facts.answers, self, facts.now)

    def __str__(self) -> str:
        return _phrase(f"answer.{self.field}", self)


Comparison = Where | Profile | Answer


def _judge(values: Mapping[str, Any], condition: Comparison, now: int) -> bool:
    found = read(values, condition.field)
    if condition.duration is not None:
        return compare_dates(found, condition.op, milliseconds(condition.duration), now)
    return compare(found, condition.op, condition.value)


def _all_hold(conditions: Sequence["Condition"], facts: Facts) -> bool:
    # Not `all([...])`: it costs 0.3 us even if there is nothing to judge.
    for condition in conditions:  # noqa: SIM110
        if not condition.holds(facts):
            return False
    return True


@dataclass(frozen=True, config=FORBID)
class On:
    """The event at hand has this name, and its properties are as said."""

    name: str = Field(min_length=1, max_length=256)
    where: tuple["Condition", ...] = ()
    kind: Literal["on"] = "on"

    def holds(self, facts: Facts) -> bool:
        if facts.name == self.name:
            return _all_hold(self.where, facts)
        if facts.since is None:
            return False
        track = facts.history.get(tracker_id(self))
        return track is not None and any([at >= facts.since for at, _ in track.recent])

    def __str__(self) -> str:
        return " and ".join([self.name, *map(str, self.where)])


@dataclass(frozen=True, config=FORBID)
class Did:
    """What the user has done so far: how often, how much, or for the first time, ever or within a time up to now.

    The event at hand counts. Windows are exact up to 256 occurrences in them.
    """

    event: On
    at_least: int | None = Field(default=None, ge=1, le=256)
    at_most: int | None = Field(default=None, ge=0, le=255)
    within: Duration | None = Field(default=None, gt=timedelta(0))
    total: str | None = None  # the property that is summed up
    total_at_least: float | None = None
    first: bool = False  # the first time of all lies within
    kind: Literal["did"] = "did"

    def __post_init__(self) -> None:
        if (self.total is None) is not (self.total_at_least is None):
            raise ValueError("did: `total` names a property and `total_at_least` says how much; they go together")
        if self.first and self.within is None:
            raise ValueError("did: `first` needs `within`: how long ago the first time may be, such as within=days(30)")

    def holds(self, facts: Facts) -> bool:
        track = facts.history.get(tracker_id(self.event, self.total))
        if track is None:
            return self.at_least is None and self.at_most is not None
        since = None if self.within is None else facts.now - milliseconds(self.within)
        if self.first:
            return since is not None and track.first_at >= since
        if since is None:
            count, total = track.count, track.total
        else:
            inside = [value for at, value in track.recent if at >= since]
            count, total = len(inside), sum(inside)
        least = self.at_least if self.at_least is not None else (0 if self.at_most is not None else 1)
        if count < least or (self.at_most is not None and count > self.at_most):
            return False
        return self.total_at_least is None or total >= self.total_at_least

    @property
    def keep(self) -> int:
        """How many occurrences must be remembered to judge this."""
        if self.within is None or self.first:
            return 0
        return MAX_KEPT if self.total is not None else max(self.at_least or 1, (self.at_most or 0) + 1)

    def __str__(self) -> str:
        often = []
        if self.first:
            often.append("for the first time")
        if self.at_least is not None:
            often.append(f"at least {self.at_least} times" if self.at_least > 1 else "at least once")
        if self.at_most is not None:
            often.append(f"at most {self.at_most} times" if self.at_most else "not at all")
        if self.total is not None:
            often.append(f"{self.total} at least {self.total_at_least:g} in all")
        if self.within is not None:
            often.append(f"within {describe(self.within)}")
        return " ".join(["did", str(self.event), *often])


MAX_KEPT = 256  # occurrences of one tracked event: 3 KiB


def tracker_id(event: On, total: str | None = None) -> str:
    """Return the name under which what happened is tracked: the same for the same question, in every journey."""
    return xxhash.xxh64_hexdigest(f"{event}|{total or ''}".encode())[:12]


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
        return _all_hold(self.conditions, facts)

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


Condition = Annotated[
    Where | Profile | Answer | On | Did | ReceiptOf | AllOf | AnyOf | Not, Field(discriminator="kind")
]

for _kind in (On, Did, AllOf, AnyOf, Not):
    rebuild_dataclass(_kind, force=True)  # type: ignore[arg-type]


@dataclass(frozen=True, config=FORBID)
class Goal:
    """What a journey is for: `condition` within a time after the entry; `value` names the property that is its worth."""

    condition: Condition
    within: Duration = Field(gt=timedelta(0))
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


Given = Value | Sequence[Scalar] | timedelta


def where(field: str, op: Operator, value: Given = None) -> Where:
    """A property of the event; dots reach into objects: `where("address.city", "==", "Lyon")`."""
    return Where(field, op, *_split(value))


def profile(field: str, op: Operator, value: Given = None) -> Profile:
    """An attribute of the user: `profile("tier", "==", "gold")`, `profile("trial_ends", "within_next", days(3))`."""
    return Profile(field, op, *_split(value))


def answer(field: str, op: Operator, value: Given = None) -> Answer:
    """Something in the answer a Call got: `answer("score_lead.score", ">", 50)` for the step "score_lead"."""
    return Answer(field, op, *_split(value))


def did(
    event: str | On,
    *,
    at_least: int | None = None,
    at_most: int | None = None,
    within: timedelta | None = None,
    total: str | None = None,
    total_at_least: float | None = None,
    first: bool = False,
) -> Did:
    """What the user has done: `did("order_placed", at_least=3, within=days(30))`; once, ever, if nothing more is said."""
    return Did(On(event) if isinstance(event, str) else event, at_least, at_most, within, total, total_at_least, first)


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


def heard_by(condition: Condition) -> frozenset[str] | None:
    """Return the names of the events to which a condition must be shown, or None if to every one.

    Where only a receipt can make it come true no event need be: receipts are shown when they come.
    """
    match condition:
        case ReceiptOf():
            return frozenset()
        case AnyOf():
            parts = [heard_by(part) for part in condition.conditions]
            return None if None in parts else frozenset().union(*(names for names in parts if names))
        case _:
            return event_names(condition)


Leaf = Where | Profile | Answer | On | Did | ReceiptOf


def leaves(condition: Condition) -> Iterator[Leaf]:
    """Yield the conditions that have no parts, and every On and Did together with its parts."""
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
        case Did():
            yield condition
            yield from leaves(condition.event)
        case _:
            yield condition


def turns(condition: Condition, facts: Facts) -> Iterator[int]:
    """Yield the instants (ms) at which time alone may change whether the condition holds, in no order."""
    match condition:
        case AllOf() | AnyOf():
            for part in condition.conditions:
                yield from turns(part, facts)
        case Not():
            yield from turns(condition.condition, facts)
        case Did() if condition.within is not None:
            track = facts.history.get(tracker_id(condition.event, condition.total))
            if track is not None:
                ends = milliseconds(condition.within) + 1
                yield from (
                    at + ends for at in ([track.first_at] if condition.first else [at for at, _ in track.recent])
                )
        case Profile() | Answer() | Where() if condition.duration is not None:
            values = {"profile": facts.profile, "answer": facts.answers, "where": facts.properties}[condition.kind]
            yield from turning_points(read(values, condition.field), milliseconds(condition.duration))


def depends_on_time(condition: Condition) -> bool:
    """Can the condition come true or false because time passes, with nothing happening?"""
    return any(getattr(leaf, "within", None) or getattr(leaf, "duration", None) for leaf in leaves(condition))


def _phrase(subject: str, condition: Comparison) -> str:
    op, value = condition.op, condition.value
    if condition.duration is not None:
        return f"{subject} {op} {describe(condition.duration)}"
    if op == "exists":
        return f"{subject} is {'absent' if value is False else 'present'}"
    shown = list(value) if isinstance(value, tuple) else value
    return f"{subject} {op} {shown!r}"


def _split(value: Given) -> tuple[Value, timedelta | None]:
    """Return (value, duration): one of them is given."""
    if isinstance(value, timedelta):
        return None, value
    return (value if isinstance(value, str) or not isinstance(value, Sequence) else tuple(value)), None


def problem_of(condition: Comparison) -> str:
    """Say why a comparison can never hold, or nothing."""
    problem = problem_with(condition.op, condition.value, condition.duration is not None)
    return f"has `{condition}`: {problem}" if problem else ""


def _bracket(condition: Condition) -> str:
    return f"({condition})" if isinstance(condition, AllOf | AnyOf) else str(condition)
