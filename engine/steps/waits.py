"""Steps that wait: for a time, for something to happen, for their turn."""

from collections.abc import Sequence
from datetime import time, timedelta
from functools import cached_property
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from engine.conditions import FORBID, AnyOf, Condition, Facts, depends_on_time, heard_by, turns
from engine.durations import Duration, describe, milliseconds
from engine.local_time import WEEKDAYS, find_zone, next_time_of_day, read_date, zone
from engine.operators import ABSENT
from engine.outcomes import Finish, Forward, Go, Outcome, Visit, Wait
from engine.steps.step import Cases, Step
from engine.values import Path, fill
from schemas.inputs import Asked

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
MINUTE_MS = 60_000


@dataclass(frozen=True, config=FORBID)
class Delay(Step):
    """Wait for a fixed time."""

    duration: Duration = Field(gt=timedelta(0))
    then: str = Field(kw_only=True)
    kind: Literal["delay"] = Field(default="delay", kw_only=True)

    def edges(self) -> Sequence[tuple[str, str]]:
        return [(f"after {describe(self.duration)}", self.then)]

    def passes(self) -> Sequence[str]:
        return ()

    def enter(self, visit: Visit) -> Outcome:
        return Wait(visit.at + milliseconds(self.duration))

    def time_out(self) -> str:
        return self.then

    def describe(self) -> str:
        return f"wait {describe(self.duration)}"


@dataclass(frozen=True, config=FORBID)
class DelayUntil(Step):
    """Wait until a time on the user's clock, or until a date of theirs.

    With `at` (and `weekdays`): until the clocks next show that time. With `date`: until the instant it names, moved by
    `offset`, on its day at `at` if that is given. What happens when the date has passed already must be said: `if_past` is
    "continue", "exit", or a step; what isn't a date goes `if_missing` (default: as if past). The target is captured on
    arrival; with `follow` it is read again when the profile changes, time zone included.
    """

    then: str = Field(kw_only=True)
    at: time | None = Field(default=None, kw_only=True)
    weekdays: tuple[Weekday, ...] = Field(default=(), kw_only=True)
    date: Path | None = Field(default=None, kw_only=True)
    offset: Duration = Field(default=timedelta(0), kw_only=True)
    if_past: str | None = Field(default=None, kw_only=True)
    if_missing: str | None = Field(default=None, kw_only=True)
    zone: str | None = Field(default=None, kw_only=True)
    follows: bool = Field(default=False, kw_only=True)
    kind: Literal["delay_until"] = Field(default="delay_until", kw_only=True)

    def __post_init__(self) -> None:
        if (self.date is None) is (self.at is None) and self.date is None:
            raise ValueError("DelayUntil needs a time (`at`) or a date (`date`)")
        if self.date is not None and self.if_past is None:
            raise ValueError('DelayUntil needs `if_past` ("continue", "exit" or a step): a date may have passed')
        if self.date is not None and self.weekdays:
            raise ValueError("DelayUntil takes `weekdays` with a time, not with a date")
        if self.date is None and (self.if_past or self.if_missing or self.offset):
            raise ValueError(
                "DelayUntil takes `if_past`, `if_missing` and `offset` with a date; a time always comes again"
            )
        if self.zone is not None and find_zone(self.zone) is None:
            raise ValueError(f"DelayUntil: {self.zone!r} is not a time zone; zones are written like 'Europe/Berlin'")

    def edges(self) -> Sequence[tuple[str, str]]:
        ways = [(self._target(), self.then)]
        if self.if_past not in (None, "continue", "exit"):
            ways.append(("past already", str(self.if_past)))
        if self.if_missing not in (None, "continue", "exit"):
            ways.append(("no date", str(self.if_missing)))
        return ways

    def passes(self) -> Sequence[str]:
        return [] if self.date is None else [target for _, target in self.edges()]

    def enter(self, visit: Visit) -> Outcome:
        where = zone(self.zone or visit.zone)
        if self.date is None:
            assert self.at is not None
            days = frozenset(WEEKDAYS.index(day) for day in self.weekdays) or frozenset(range(7))
            return Wait(next_time_of_day(visit.at + 1, self.at, days, where))
        found = fill({"date": self.date}, visit.run, visit.profile)["date"]
        target = None if found is ABSENT else read_date(found, where, self.at)
        if target is None:
            return self._pass(self.if_missing or self.if_past)
        target += milliseconds(self.offset)
        return Wait(target) if target > visit.at else self._pass(self.if_past)

    def follow(self, visit: Visit) -> Outcome | None:
        return self.enter(visit) if self.follows else None

    def _pass(self, way: str | None) -> Outcome:
        if way == "exit":
            return Finish("the date has passed")
        return Go(self.then if way in (None, "continue") else way)

    def time_out(self) -> str:
        return self.then

    def _target(self) -> str:
        clock = "" if self.at is None else f"{self.at:%H:%M}"
        if self.date is None:
            return f"at {clock}" + (f" on {', '.join(self.weekdays)}" if self.weekdays else "")
        moved = "" if not self.offset else f" {'+' if self.offset > timedelta(0) else '-'} {describe(abs(self.offset))}"
        return f"{self.date}{moved}" + (f" at {clock}" if clock else "")

    def describe(self) -> str:
        return f"wait until {self._target().removeprefix('at ')}"


@dataclass(frozen=True, config=FORBID)
class WaitFor(Step):
    """Wait until something is the case: an event, a receipt, a condition; give up after `timeout`.

    Either one condition and `then`, or several as [(condition, step), ...]: the first that holds, in written order, wins.
    What already holds on arrival (a receipt that is there) doesn't wait. An event counts from the arrival on, whatever
    time it says it occurred at; with `lookback`, also if it was folded before and has occurred since arrival - lookback.
    """

    awaits: Condition | Cases
    timeout: Duration = Field(gt=timedelta(0), kw_only=True)
    on_timeout: str = Field(kw_only=True)
    then: str | None = Field(default=None, kw_only=True)
    lookback: Duration | None = Field(default=None, gt=timedelta(0), kw_only=True)
    kind: Literal["wait_for"] = Field(default="wait_for", kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.awaits, Sequence) is (self.then is not None):
            raise ValueError("WaitFor takes one condition with `then`, or [(condition, step), ...] without")
        if not self.cases:
            raise ValueError("WaitFor awaits nothing; to wait for a time, use Delay")

    @cached_property
    def cases(self) -> Sequence[tuple[Condition, str]]:
        """The awaited conditions and where each leads, whichever form was written."""
        return self.awaits if isinstance(self.awaits, Sequence) else ((self.awaits, self.then or ""),)

    @cached_property
    def timeout_ms(self) -> int:
        return milliseconds(self.timeout)

    @cached_property
    def timed(self) -> Sequence[Condition]:
        """What of the awaited may come true by time alone."""
        return tuple(condition for condition, _ in self.cases if depends_on_time(condition))

    def edges(self) -> Sequence[tuple[str, str]]:
        ways = [(str(condition), step) for condition, step in self.cases]
        return [*ways, (f"none in {describe(self.timeout)}", self.on_timeout)]

    def passes(self) -> Sequence[str]:
        return ()  # Unless what it awaits is there on arrival, which only the walk can see: it makes sure.

    def enter(self, visit: Visit) -> Outcome:
        facts = visit.facts()
        already = self.resume(facts)
        if already is None and self.lookback is not None:
            already = self.resume(visit.facts(since=visit.at - milliseconds(self.lookback)))
        return Go(already) if already else Wait(visit.at + self.timeout_ms, self.look_at(facts))

    def resume(self, facts: Facts) -> str | None:
        for condition, step in self.cases:
            if condition.holds(facts):
                return step
        return None

    def hears(self) -> frozenset[str] | None:
        return None if self.timed else heard_by(AnyOf(tuple(condition for condition, _ in self.cases)))

    def look_at(self, facts: Facts) -> int | None:
        if not self.timed:
            return None
        return min((at for condition in self.timed for at in turns(condition, facts) if at > facts.now), default=None)

    def time_out(self) -> str:
        return self.on_timeout

    def conditions(self) -> Sequence[Condition]:
        return [condition for condition, _ in self.cases]

    def describe(self) -> str:
        awaited = " or ".join(str(condition) for condition in self.conditions())
        return f"wait up to {describe(self.timeout)} for {awaited}"


@dataclass(frozen=True, config=FORBID)
class Throttle(Step):
    """Let at most so many runs a minute go on, over all users and partitions; the others wait for their turn.

    Turns are spread evenly, so nothing piles up at the full minute. Steps with the same `name` share their turns. Who misses
    a turn by more than a minute, in a pause or an outage, asks for another: all those together would be a herd.
    """

    per_minute: float = Field(gt=0, le=1_000_000)
    then: str = Field(kw_only=True)
    name: str | None = Field(default=None, kw_only=True, pattern=r"^[a-z0-9_.-]{1,100}$")
    kind: Literal["throttle"] = Field(default="throttle", kw_only=True)

    def edges(self) -> Sequence[tuple[str, str]]:
        return [("when it is its turn", self.then)]

    def passes(self) -> Sequence[str]:
        return [self.then]  # It may be their turn at once, so it is no wait that a loop could do with.

    def enter(self, visit: Visit) -> Outcome:
        name = self.name or f"{visit.run.journey}.{visit.run.step}"
        every_ms = max(1, round(MINUTE_MS / self.per_minute))
        asked = Asked(visit.id, visit.place.user, every_ms=every_ms)
        return Wait(None, inputs=(Forward(f"quota:throttle.{name}", asked),), quota="asked")

    def granted(self, visit: Visit, at: int | None) -> Outcome:
        if at is not None and at > visit.at:
            return Wait(at, quota="granted")
        return self.enter(visit) if visit.now - visit.at > MINUTE_MS else Go(self.then)

    def time_out(self) -> str:
        return self.then

    def describe(self) -> str:
        return f"at most {self.per_minute:g} a minute"
