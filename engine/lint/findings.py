"""What a check finds: how bad, where, what is wrong, what would be right."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from engine.event_schemas import Declarations
from engine.policy import Policy

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. `place` is a step's name, "entry", "exit_on", "goal", a field of the journey, or a template's file.

    An error is what can't work as it is written; a warning what hardly can be meant.
    """

    severity: Severity
    rule: str
    place: str
    problem: str
    remedy: str
    line: int = 0  # of the template

    def __str__(self) -> str:
        where = f"{self.place}:{self.line}" if self.line else self.place
        return f"{where}: {self.problem}; {self.remedy}"


@dataclass(frozen=True)
class Surroundings:
    """What a journey is checked against. What is None is not known, and nothing is said about it."""

    templates: Mapping[str, Mapping[str, str]] | None = None  # name -> part -> Liquid source
    declared: Declarations = field(default_factory=Declarations)
    journeys: frozenset[str] | None = None  # the names of all journeys
    channels: frozenset[str] | None = None  # those that have a worker
    policy: Policy | None = None


def nearest(name: str, names: Iterable[str], otherwise: str) -> str:
    """Return "did you mean ...?" if there is a name like this one, else what is given, followed by the names there are."""
    known = list(names)
    near = get_close_matches(name, known, 1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"{otherwise} {', '.join(known[:12]) or 'none'}" + (" ..." if len(known) > 12 else "")
