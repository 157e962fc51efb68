"""What every kind of step can be asked."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from engine.conditions import Condition, Facts
from engine.outcomes import Go, Outcome, Visit, Wait
from engine.policy import Verdict

ChannelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Cases = Annotated[Sequence[tuple[Condition, str]], AfterValidator(tuple)]  # written as a list, kept as a tuple


class Step:
    """One row of a journey's table. A kind of step overrides what it needs; the rest says "that doesn't concern me"."""

    def edges(self) -> Sequence[tuple[str, str]]:
        """Every way out, as (label, step name)."""
        return ()

    def passes(self) -> Sequence[str]:
        """The ways out that a run can take without having waited here."""
        return [target for _, target in self.edges()]

    def enter(self, visit: Visit) -> Outcome:
        """Say what arriving does."""
        raise NotImplementedError

    def resume(self, facts: Facts) -> str | None:
        """Return the step that an input leads to, or None if it doesn't concern this one."""
        return None

    def hears(self) -> frozenset[str] | None:
        """Return the names of the events to which `resume` may answer, None if of any. Of receipts it is always told."""
        return frozenset()

    def look_at(self, facts: Facts) -> int | None:
        """Return when time alone may make `resume` answer differently, or None."""
        return None

    def time_out(self) -> str:
        """Return the step that the end of the wait leads to."""
        raise NotImplementedError

    def follow(self, visit: Visit) -> Outcome | None:
        """Say what a change of the profile does to the wait, or None if it was captured on arrival."""
        return None

    def decide(self, visit: Visit, verdict: Verdict) -> Go | Wait:
        """Say how a run goes on that asked the policy (`Consider`) and may deliver or may not."""
        raise NotImplementedError

    def granted(self, visit: Visit, at: int | None) -> Outcome:
        """Say what a quota's answer leads to: a moment, or None for "no place"."""
        raise NotImplementedError

    def conditions(self) -> Sequence[Condition]:
        return ()

    def describe(self) -> str:
        """Say in a few words what a run does here, for diagrams and traces."""
        raise NotImplementedError
