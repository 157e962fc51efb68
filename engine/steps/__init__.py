"""The kinds of step a journey can have. Each says where it leads, what arriving does, and what ends its wait."""

from typing import Annotated

from pydantic import Field

from engine.steps.effects import Emit, Enter, Update
from engine.steps.sends import Call, Send
from engine.steps.step import Step
from engine.steps.waits import Delay, DelayUntil, Throttle, WaitFor
from engine.steps.ways import Branch, Cohorts, Exit

AnyStep = Annotated[
    Delay | DelayUntil | WaitFor | Throttle | Branch | Cohorts | Send | Call | Update | Emit | Enter | Exit,
    Field(discriminator="kind"),
]

__all__ = [
    "AnyStep", "Branch", "Call", "Cohorts", "Delay", "DelayUntil", "Emit", "Enter", "Exit", "Send", "Step", "Throttle",
    "Update", "WaitFor",
]  # fmt: skip
