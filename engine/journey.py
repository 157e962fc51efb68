"""What a journey is: a named, versioned table of steps, with the rules of who enters, leaves and comes back.

A journey is checked when it is made, so a mistake shows when its module is imported, not when a user meets it.
"""

from collections.abc import Iterator
from datetime import timedelta
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from engine.conditions import FORBID, Condition, Goal, On, Profile, ReceiptOf, Where, event_names, leaves, problem_of
from engine.durations import days, describe
from engine.errors import JourneyError
from engine.steps import AnyStep, Send

NAME = r"^[a-z][a-z0-9_]{0,63}$"


@dataclass(frozen=True, config=FORBID)
class Once:
    """A user enters once, ever (per key, if the journey has one)."""

    kind: Literal["once"] = "once"

    def allows(self, last_entered_at: int | None, now: int) -> bool:
        return last_entered_at is None

    def __str__(self) -> str:
        return "once"


@dataclass(frozen=True, config=FORBID)
class After:
    """A user may enter again when this long has passed since the last entry."""

    duration: timedelta = Field(gt=timedelta(0))
    kind: Literal["after"] = "after"

    def allows(self, last_entered_at: int | None, now: int) -> bool:
        return last_entered_at is None or now - last_entered_at >= self.duration // timedelta(milliseconds=1)

    def __str__(self) -> str:
        return f"again after {describe(self.duration)}"


@dataclass(frozen=True, config=FORBID)
class Always:
    """A user may enter whenever no run of theirs is live."""

    kind: Literal["always"] = "always"

    def allows(self, last_entered_at: int | None, now: int) -> bool:
        return True

    def __str__(self) -> str:
        return "always"


Reentry = Annotated[Once | After | Always, Field(discriminator="kind")]

once = Once()
always = Always()


def after(duration: timedelta) -> After:
    return After(duration)


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Journey:
    """A journey as its author writes it.

    entry: the event (with its condition) that begins a run. key: the property that tells runs of one user apart, such as
    a cart's id. reentry: `once`, `after(duration)` or `always`; at most one run per journey and key is live. exit_on: ends
    the run wherever it is. goal: what the journey is for. late_after: an event that occurred longer than this before it
    arrived enters nobody. Raises JourneyError, which names journey, version, step and the nearest right name.
    """

    name: str = Field(pattern=NAME)
    version: int = Field(ge=1, le=999_999)
    entry: Condition
    start: str
    steps: dict[Annotated[str, Field(pattern=NAME)], AnyStep] = Field(min_length=1, max_length=1000)
    key: str | None = Field(default=None, min_length=1, max_length=128)
    reentry: Reentry = once
    exit_on: Condition | None = None
    goal: Goal | None = None
    late_after: timedelta = Field(default=days(3), gt=timedelta(0))
    description: str = Field(default="", max_length=2000)
    templates: dict[str, str] = Field(default_factory=dict)  # name -> name@hash, filled in when the journey is frozen
    kind: Literal["journey"] = "journey"

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise JourneyError(f"{self.label}: {problem}")

    @property
    def label(self) -> str:
        return f"{self.name} v{self.version}"

    @property
    def entry_names(self) -> frozenset[str]:
        """The events that can begin a run."""
        names = event_names(self.entry)
        assert names is not None  # checked in _problems
        return names

    def edges(self) -> Iterator[tuple[str, str, str]]:
        """Yield every way in the table, as (from, label, to); the way in begins at "[*]"."""
        yield "[*]", str(self.entry), self.start
        for name, step in self.steps.items():
            for label, target in step.edges():
                yield name, label, target

    def template_names(self) -> list[str]:
        """Return the templates that the journey sends, each once, in the order of the table."""
        return list(dict.fromkeys(step.template for step in self.steps.values() if isinstance(step, Send)))

    def conditions(self) -> Iterator[tuple[str, Condition]]:
        """Yield every condition of the journey with the place where it stands."""
        yield "entry", self.entry
        if self.exit_on is not None:
            yield "exit_on", self.exit_on
        if self.goal is not None:
            yield "goal", self.goal.condition
        for name, step in self.steps.items():
            for condition in step.conditions():
                yield repr(name), condition

    def _problems(self) -> Iterator[str]:
        for source, label, target in self.edges():
            if target not in self.steps:
                place = "it starts at" if source == "[*]" else f"{source!r} leads to"
                yield f"{place} {target!r} ({label}), which is not a step{self._nearest(target)}"
        if not event_names(self.entry):
            yield f"entry `{self.entry}` names no event; begin it with on(...)"
        for place, condition in self.conditions():
            for leaf in leaves(condition):
                if problem := self._problem_of(leaf):
                    yield f"{place} {problem}"
        if loop := self._loop_without_waiting():
            yield f"{' > '.join(loop)} is a loop without a wait; put a Delay or a WaitFor into it"

    def _problem_of(self, leaf: Where | Profile | On | ReceiptOf) -> str:
        if isinstance(leaf, ReceiptOf) and not isinstance(self.steps.get(leaf.step), Send):
            return f"asks for a receipt of {leaf.step!r}, which is not a step that sends{self._nearest(leaf.step)}"
        return problem_of(leaf) if isinstance(leaf, Where | Profile) else ""

    def _nearest(self, name: str) -> str:
        near = get_close_matches(name, self.steps, 1)
        return f"; did you mean {near[0]!r}?" if near else f"; the steps are {', '.join(self.steps)}"

    def _loop_without_waiting(self) -> list[str] | None:
        """Return a way that leads back to itself without a wait on it, or None. Iterative: tables may be long."""
        done: set[str] = set()
        path: list[str] = []
        for start in self.steps:
            stack = [(start, False)]
            while stack:
                name, leaving = stack.pop()
                if leaving:
                    done.add(path.pop())
                elif name in path:
                    return [*path[path.index(name) :], name]
                elif name not in done:
                    path.append(name)
                    stack.append((name, True))
                    stack.extend((target, False) for target in self.steps[name].passes())
        return None
