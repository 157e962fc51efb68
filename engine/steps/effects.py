"""Steps that change something and go on: the profile, another journey, the stream of events."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from engine.conditions import FORBID
from engine.outcomes import Forward, Go, Outcome, Visit
from engine.steps.step import Step
from engine.values import Filled, fill
from schemas.inputs import Entered, Event


@dataclass(frozen=True, config=FORBID)
class Update(Step):
    """Set attributes of the profile; None removes one."""

    profile: Mapping[str, Filled] = Field(min_length=1)
    then: str = Field(kw_only=True)
    kind: Literal["update"] = Field(default="update", kw_only=True)

    def edges(self) -> Sequence[tuple[str, str]]:
        return [("updated", self.then)]

    def enter(self, visit: Visit) -> Outcome:
        return Go(self.then, updates=fill(self.profile, visit.run, visit.profile))

    def describe(self) -> str:
        return f"set {', '.join(self.profile)}"


@dataclass(frozen=True, config=FORBID)
class Emit(Step):
    """Write an event about the user into the log; its id is the visit's. Other runs and journeys see it as their next input."""

    event: str = Field(min_length=1, max_length=256)
    properties: Mapping[str, Filled] = Field(default_factory=dict)
    then: str = Field(kw_only=True)
    kind: Literal["emit"] = Field(default="emit", kw_only=True)

    def edges(self) -> Sequence[tuple[str, str]]:
        return [("emitted", self.then)]

    def enter(self, visit: Visit) -> Outcome:
        properties = fill(self.properties, visit.run, visit.profile)
        return Go(self.then, inputs=(Forward("", Event(visit.id, self.event, visit.at, properties)),))

    def describe(self) -> str:
        return f"emit {self.event}"


@dataclass(frozen=True, config=FORBID)
class Enter(Step):
    """Begin a run of another journey for the user, if that journey's rules allow, and go on at once."""

    journey: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    properties: Mapping[str, Filled] = Field(default_factory=dict)
    then: str = Field(kw_only=True)
    kind: Literal["enter"] = Field(default="enter", kw_only=True)

    def edges(self) -> Sequence[tuple[str, str]]:
        return [(f"enters {self.journey}", self.then)]

    def enter(self, visit: Visit) -> Outcome:
        properties = fill(self.properties, visit.run, visit.profile)
        return Go(self.then, inputs=(Forward("", Entered(visit.id, self.journey, visit.run.id, properties)),))

    def describe(self) -> str:
        return f"enter {self.journey}"
