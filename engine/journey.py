"""What a journey is: a named, versioned table of steps, with the rules of who enters, leaves and comes back.

A journey is checked when it is made, so a mistake shows when its module is imported, not when a user meets it.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from engine.conditions import (
    FORBID,
    Answer,
    Condition,
    Goal,
    Leaf,
    Profile,
    ReceiptOf,
    Where,
    event_names,
    heard_by,
    leaves,
    problem_of,
)
from engine.durations import Duration, days, describe, milliseconds
from engine.entries import Api, Changed, Entry, Schedule, names_of
from engine.errors import JourneyError
from engine.steps import AnyStep, Call, Send
from engine.steps.sends import CALL_CHANNEL

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

    duration: Duration = Field(gt=timedelta(0))
    kind: Literal["after"] = "after"

    @cached_property
    def duration_ms(self) -> int:
        return milliseconds(self.duration)

    def allows(self, last_entered_at: int | None, now: int) -> bool:
        return last_entered_at is None or now - last_entered_at >= self.duration_ms

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


@dataclass(frozen=True, config=FORBID)
class EntryCap:
    """At most so many runs of the journey begin within any such time, over all users."""

    most: int = Field(ge=1)
    within: Duration = Field(gt=timedelta(0))


@dataclass(frozen=True, config=FORBID)
class AtMost:
    """What the author promises: no user gets more messages of this journey within such a time. Lint proves it or refuses."""

    messages: int = Field(ge=0)
    within: Duration = Field(gt=timedelta(0))


EXIT = "exit"  # in `moves`: the run ends


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Journey:
    """A journey as its author writes it.

    entry: the event (with its condition) that begins a run. key: the property that tells runs of one user apart, such as
    a cart's id. reentry: `once`, `after(duration)` or `always`; at most one run per journey and key is live. exit_on: ends
    the run wherever it is. goal: what the journey is for. late_after: an event that occurred longer than this before it
    arrived enters nobody. priority: who gets the last place under a cap among sends due at the same input; higher first.
    holdout: percent of users who run through it and get nothing. entry_cap: see EntryCap. at_most: see AtMost. moves: where
    runs of earlier versions go when this one is activated, by the step they wait at (EXIT ends them). on_merge: which of two
    runs goes on when their users turn out to be one person.

    Raises JourneyError, which names journey, version, step and the nearest right name.
    """

    name: str = Field(pattern=NAME)
    version: int = Field(ge=1, le=999_999)
    entry: Entry
    start: str
    steps: dict[Annotated[str, Field(pattern=NAME)], AnyStep] = Field(min_length=1, max_length=1000)
    key: str | None = Field(default=None, min_length=1, max_length=128)
    reentry: Reentry = once
    exit_on: Condition | None = None
    goal: Goal | None = None
    priority: int = Field(default=0, ge=-1000, le=1000)
    holdout: float = Field(default=0, ge=0, le=100)
    entry_cap: EntryCap | None = None
    at_most: AtMost | None = None
    moves: dict[str, str] = Field(default_factory=dict)
    on_merge: Literal["keep_earliest", "keep_latest", "keep_both"] = "keep_earliest"
    late_after: Duration = Field(default=days(3), gt=timedelta(0))
    description: str = Field(default="", max_length=2000)
    templates: dict[str, str] = Field(default_factory=dict)  # name -> name@hash, filled in when the journey is frozen
    kind: Literal["journey"] = "journey"

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise JourneyError(f"{self.label}: {problem}")

    @property
    def label(self) -> str:
        return f"{self.name} v{self.version}"

    @cached_property
    def late_after_ms(self) -> int:
        return milliseconds(self.late_after)

    @property
    def entry_names(self) -> frozenset[str]:
        """The events that can begin a run."""
        return names_of(self.entry)

    @cached_property
    def hearing(self) -> Mapping[str, frozenset[str] | None]:
        """By step, the events that may move or end a run which waits there; None: any may.

        With `goal_names` this is what an event is asked first: most events concern none of a user's runs.
        """
        exits = frozenset() if self.exit_on is None else heard_by(self.exit_on)
        heard = {name: step.hears() for name, step in self.steps.items()}
        return {name: None if names is None or exits is None else exits | names for name, names in heard.items()}

    @cached_property
    def goal_names(self) -> frozenset[str] | None:
        """The events that may reach the goal; None: any may."""
        return frozenset() if self.goal is None else event_names(self.goal.condition)

    def edges(self) -> Iterator[tuple[str, str, str]]:
        """Yield every way in the table, as (from, label, to); the way in begins at "[*]"."""
        yield "[*]", str(self.entry), self.start
        for name, step in self.steps.items():
            for label, target in step.edges():
                yield name, label, target

    def template_names(self) -> list[str]:
        """Return the templates that the journey sends, each once, in the order of the table."""
        return list(dict.fromkeys(step.template for step in self.steps.values() if isinstance(step, Send)))

    def channels(self) -> list[str]:
        """Return the channels that the journey sends to, each once, in the order of the table."""
        found: dict[str, None] = {}
        for step in self.steps.values():
            if isinstance(step, Send):
                found.update(dict.fromkeys(step.channels))
            elif isinstance(step, Call):
                found[CALL_CHANNEL] = None
        return list(found)

    def conditions(self) -> Iterator[tuple[str, Condition]]:
        """Yield every condition of the journey with the place where it stands."""
        entered = self.entry.who if isinstance(self.entry, Api | Changed | Schedule) else self.entry
        if entered is not None:
            yield "entry", entered
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
        if not isinstance(self.entry, Api | Changed | Schedule) and not self.entry_names:
            yield f"entry `{self.entry}` names no event; begin it with on(...)"
        for place, condition in self.conditions():
            for leaf in leaves(condition):
                if problem := self._problem_of(leaf):
                    yield f"{place} {problem}"
        for old, new in self.moves.items():
            if new != EXIT and new not in self.steps:
                yield f"moves sends {old!r} to {new!r}, which is not a step{self._nearest(new)}"
        if loop := self._loop_without_waiting():
            yield f"{' > '.join(loop)} is a loop without a wait; put a Delay or a WaitFor into it"

    def _problem_of(self, leaf: Leaf) -> str:
        if isinstance(leaf, ReceiptOf) and not isinstance(self.steps.get(leaf.step), Send):
            return f"asks for a receipt of {leaf.step!r}, which is not a step that sends{self._nearest(leaf.step)}"
        if isinstance(leaf, Answer) and not isinstance(self.steps.get(called := leaf.field.partition(".")[0]), Call):
            return f"asks for an answer of {called!r}, which is not a step that calls{self._nearest(called)}"
        return problem_of(leaf) if isinstance(leaf, Where | Profile | Answer) else ""

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
