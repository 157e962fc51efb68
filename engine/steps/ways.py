"""Steps that choose a way, or end the run."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from engine.cohorts import cohort
from engine.conditions import FORBID, Condition
from engine.outcomes import Finish, Go, Outcome, Visit
from engine.steps.step import Cases, Step


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
        return Go(cohort(self.weights, f"{visit.place.tenant}:{visit.place.user}", salt))

    def describe(self) -> str:
        return "split at random"


@dataclass(frozen=True, config=FORBID)
class Exit(Step):
    """Leave the journey."""

    reason: str = "done"
    kind: Literal["exit"] = Field(default="exit", kw_only=True)

    def enter(self, visit: Visit) -> Outcome:
        return Finish(self.reason)

    def describe(self) -> str:
        return "leave"
