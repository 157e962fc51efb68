"""The kinds of step a journey can have. Each says where it leads, what arriving does, and what ends its wait."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from engine.cohorts import cohort
from engine.conditions import FORBID, Condition, Facts
from engine.durations import describe, hours, milliseconds
from engine.outcomes import Finish, Go, Outcome, Visit, Wait

ChannelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Cases = Annotated[Sequence[tuple[Condition, str]], AfterValidator(tuple)]  # written as a list, kept as a tuple
RECEIPT_PATIENCE = hours(1)  # how long a send with `on_failed` waits to hear from its provider
NOT_TAKEN = ("failed", "bounced", "dropped", "unknown")


class Step:
    """What all kinds of step can be asked."""

    def edges(self) -> Sequence[tuple[str, str]]:
        """Every way out, as (label, step name)."""
        return ()

    def passes(self) -> Sequence[str]:
        """The ways out that a run can take without having waited here."""
        return [target for _, target in self.edges()]

    def enter(self, visit: Visit) -> Outcome:
        raise NotImplementedError

    def resume(self, facts: Facts) -> str | None:
        """Return the step that an input leads to, or None if it doesn't concern this one."""
        return None

    def time_out(self) -> str:
        """Return the step that the end of the wait leads to."""
        raise NotImplementedError

    def conditions(self) -> Sequence[Condition]:
        return ()

    def describe(self) -> str:
        """Say in a few words what a run does here, for diagrams and traces."""
        raise NotImplementedError


@dataclass(frozen=True, config=FORBID)
class Delay(Step):
    """Wait for a fixed time."""

    duration: timedelta = Field(gt=timedelta(0))
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
class WaitFor(Step):
    """Wait until something is the case: an event, a receipt, a condition; give up after `timeout`.

    Either one condition and `then`, or several as [(condition, step), ...]: the first that holds, in written order, wins.
    What already holds on arrival (a receipt that is there) doesn't wait. An event counts from the arrival on.
    """

    awaits: Condition | Cases
    timeout: timedelta = Field(gt=timedelta(0), kw_only=True)
    on_timeout: str = Field(kw_only=True)
    then: str | None = Field(default=None, kw_only=True)
    kind: Literal["wait_for"] = Field(default="wait_for", kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.awaits, Sequence) is (self.then is not None):
            raise ValueError("WaitFor takes one condition with `then`, or [(condition, step), ...] without")
        if not self.cases:
            raise ValueError("WaitFor awaits nothing; to wait for a time, use Delay")

    @property
    def cases(self) -> Sequence[tuple[Condition, str]]:
        """The awaited conditions and where each leads, whichever form was written."""
        return self.awaits if isinstance(self.awaits, Sequence) else ((self.awaits, self.then or ""),)

    def edges(self) -> Sequence[tuple[str, str]]:
        ways = [(str(condition), step) for condition, step in self.cases]
        return [*ways, (f"none in {describe(self.timeout)}", self.on_timeout)]

    def passes(self) -> Sequence[str]:
        return ()  # Unless what it awaits is there on arrival, which only the walk can see: it makes sure.

    def enter(self, visit: Visit) -> Outcome:
        already = self.resume(visit.facts())
        return Go(already) if already else Wait(visit.at + milliseconds(self.timeout))

    def resume(self, facts: Facts) -> str | None:
        for condition, step in self.cases:
            if condition.holds(facts):
                return step
        return None

    def time_out(self) -> str:
        return self.on_timeout

    def conditions(self) -> Sequence[Condition]:
        return [condition for condition, _ in self.cases]

    def describe(self) -> str:
        awaited = " or ".join(str(condition) for condition in self.conditions())
        return f"wait up to {describe(self.timeout)} for {awaited}"


@dataclass(frozen=True, config=FORBID)
class Branch(Step):
    """Take the first case that holds."""

    cases: Annotated[Cases, Field(min_length=1)]
    otherwise: str = Field(kw_only=True)
    kind: Literal["branch"] = Field(default="branch", kw_only=True)

    def edges(self) -> Sequence[tuple[str, str]]:
        return [*((str(condition), step) for condition, step in self.cases), ("otherwise", self.otherwise)]

    def enter(self, visit: Visit) -> Outcome:
        facts = visit.facts()
        for condition, step in self.cases:
            if condition.holds(facts):
                return Go(step)
        return Go(self.otherwise)

    def conditions(self) -> Sequence[Condition]:
        return [condition for condition, _ in self.cases]

    def describe(self) -> str:
        return "decide"


@dataclass(frozen=True, config=FORBID)
class Cohorts(Step):
    """Split users at random by weight. A user stays in their cohort: at a second run, and in every later version."""

    weights: dict[str, Annotated[float, Field(gt=0, le=1e9)]] = Field(min_length=1)
    salt: str | None = Field(default=None, kw_only=True)
    kind: Literal["cohorts"] = Field(default="cohorts", kw_only=True)

    def edges(self) -> Sequence[tuple[str, str]]:
        total = sum(self.weights.values())
        return [(f"{weight * 100 / total:.3g}%", step) for step, weight in self.weights.items()]

    def enter(self, visit: Visit) -> Outcome:
        salt = self.salt or f"{visit.run.journey}:{visit.run.step}"
        return Go(cohort(self.weights, f"{visit.tenant}:{visit.user}", salt))

    def describe(self) -> str:
        return "split at random"


@dataclass(frozen=True, config=FORBID)
class Send(Step):
    """Ask a channel to send one message, and go on at once.

    Several channels are a fallback list: the first on which the user has an address. A message that the policy keeps back
    leads to `on_blocked` (default: `then`). With `on_failed` the run stays until the provider has accepted the message
    (`then`), or refused it or said nothing for an hour (`on_failed`).
    """

    channel: ChannelName | Annotated[Sequence[ChannelName], Field(min_length=1), AfterValidator(tuple)]
    template: str = Field(kw_only=True, pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    then: str = Field(kw_only=True)
    on_blocked: str | None = Field(default=None, kw_only=True)
    on_failed: str | None = Field(default=None, kw_only=True)
    topic: str = Field(default="marketing", kw_only=True, pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    transactional: bool = Field(default=False, kw_only=True)
    max_lateness: timedelta = Field(default=hours(24), kw_only=True, gt=timedelta(0))
    kind: Literal["send"] = Field(default="send", kw_only=True)

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels to try, whichever form was written."""
        return (self.channel,) if isinstance(self.channel, str) else tuple(self.channel)

    def edges(self) -> Sequence[tuple[str, str]]:
        ways = [("accepted" if self.on_failed else "sent", self.then)]
        if self.on_failed:
            ways.append(("failed", self.on_failed))
        if self.on_blocked:
            ways.append(("blocked", self.on_blocked))
        return ways

    def passes(self) -> Sequence[str]:
        blocked = self.on_blocked or self.then
        return [blocked] if self.on_failed else [self.then, blocked]

    def enter(self, visit: Visit) -> Outcome:
        verdict = visit.consider(self.channels, self.max_lateness)
        if verdict.kind == "drop":
            return Go(self.on_blocked or self.then, blocked=verdict.reason)
        message = visit.message(
            verdict.channel, verdict.address, self.template, self.topic, self.transactional, self.max_lateness
        )
        if self.on_failed is None:
            return Go(self.then, (message,))
        return Wait(visit.now + milliseconds(RECEIPT_PATIENCE), (message,))

    def resume(self, facts: Facts) -> str | None:
        if self.on_failed is None or facts.here is None:
            return None
        if "accepted" in facts.here.statuses:
            return self.then
        return self.on_failed if any([status in facts.here.statuses for status in NOT_TAKEN]) else None

    def time_out(self) -> str:
        assert self.on_failed is not None
        return self.on_failed

    def describe(self) -> str:
        return f"{' or '.join(self.channels)}: {self.template}"


@dataclass(frozen=True, config=FORBID)
class Exit(Step):
    """Leave the journey."""

    reason: str = "done"
    kind: Literal["exit"] = Field(default="exit", kw_only=True)

    def enter(self, visit: Visit) -> Outcome:
        return Finish(self.reason)

    def describe(self) -> str:
        return "leave"


AnyStep = Annotated[Delay | WaitFor | Branch | Cohorts | Send | Exit, Field(discriminator="kind")]
