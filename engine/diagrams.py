"""A journey as a picture: mermaid's state diagram, which GitHub, GitLab and most editors draw; or data for an editor."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from engine.diff import Difference
from engine.journey import Journey
from engine.steps import Exit

MAX_LABEL = 60
FORBIDDEN = str.maketrans(":;#\n\r", ",,   ")
# What mermaid 11 does not take as the id of a state, found by giving it every word of its grammar.
RESERVED = {
    "accdescr", "acctitle", "class", "classdef", "click", "default", "href", "note", "scale", "statediagram", "style",
}  # fmt: skip


def to_mermaid(journey: Journey, counts: Mapping[str, int] | None = None) -> str:
    """Return the diagram's source. Every step shows what happens there, every arrow when it is taken.

    With `counts` (how many runs are at each step) a step shows them too, and those where somebody is stand out.
    """
    lines = ["stateDiagram-v2", f"  %% {journey.label}"]
    for name, step in journey.steps.items():
        count = "" if counts is None else f" | {counts.get(name, 0)} here"
        lines.append(f"  {_id(name)}: {_label(f'{name} | {step.describe()}', count)}")
    lines += [f"  {_id(source)} --> {_id(target)}: {_label(label)}" for source, label, target in journey.edges()]
    lines += [f"  {_id(name)} --> [*]" for name, step in journey.steps.items() if isinstance(step, Exit)]
    if journey.exit_on is not None:
        lines += [
            f"  note right of {_id(journey.start)}",
            f"    leaves at once on {_label(str(journey.exit_on))}",
            "  end note",
        ]
    if occupied := [name for name in journey.steps if counts and counts.get(name)]:
        lines += _classes({"occupied": occupied})
    return "\n".join(lines) + "\n"


def difference_to_mermaid(difference: Difference) -> str:
    """Return both versions in one diagram: what was added, removed, renamed and changed is coloured.

    An arrow can't be coloured in this kind of diagram: "+", "-" and "~" before its words say the same.
    """
    old, new = difference.old, difference.new
    gone = [name for name in old.steps if difference.kind_of(name) == "removed"]
    steps = {**new.steps, **{name: old.steps[name] for name in gone}}
    lines = ["stateDiagram-v2", f"  %% {old.label} to {new.label}"]
    lines += [f"  {_id(name)}: {_label(f'{name} | {step.describe()}')}" for name, step in steps.items()]
    for source, label, target, kind in difference.edges():
        sign = "" if kind is None else f"{SIGNS[kind]} "
        lines.append(f"  {_id(source)} --> {_id(target)}: {_label(f'{sign}{label}')}")
    lines += [f"  {_id(name)} --> [*]" for name, step in steps.items() if isinstance(step, Exit)]
    classes: dict[str, list[str]] = {}
    for name in steps:
        if kind := difference.kind_of(name):
            classes.setdefault(kind, []).append(name)
    return "\n".join(lines + _classes(classes)) + "\n"


def to_data(journey: Journey, counts: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return the journey as JSON values for an editor that draws it: steps with their words, ways, and who is where."""
    steps = []
    for name, step in journey.steps.items():
        drawn: dict[str, Any] = {"name": name, "kind": step.kind, "does": step.describe()}
        steps.append(drawn if counts is None else {**drawn, "runs": counts.get(name, 0)})
    return {
        "name": journey.name,
        "version": journey.version,
        "description": journey.description,
        "entry": str(journey.entry),
        "exit_on": None if journey.exit_on is None else str(journey.exit_on),
        "goal": None if journey.goal is None else str(journey.goal),
        "reentry": str(journey.reentry),
        "key": journey.key,
        "start": journey.start,
        "steps": steps,
        "ways": [{"from": source, "when": label, "to": target} for source, label, target in journey.edges()],
    }


SIGNS = {"added": "+", "removed": "-", "renamed": "~", "changed": "~"}
COLOURS = {  # in light and dark themes
    "added": "fill:#d9f2dd,stroke:#2b8a3e,color:#123d1a",
    "removed": "fill:#fbe0e0,stroke:#c92a2a,color:#5c1414,stroke-dasharray:4",
    "renamed": "fill:#e3ecfb,stroke:#1c66c9,color:#12305c",
    "changed": "fill:#fdf1cf,stroke:#b5830b,color:#4d3905",
    "occupied": "fill:#e3ecfb,stroke:#1c66c9,color:#12305c",
}


def _classes(members: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the lines that colour steps."""
    lines = [f"  classDef {name} {COLOURS[name]}" for name in members]
    return lines + [f"  class {','.join(_id(step) for step in steps)} {name}" for name, steps in members.items()]


def _id(name: str) -> str:
    """Return a step's id in the diagram: its name, unless that means something to mermaid. No step begins with "_"."""
    return f"_{name}" if name in RESERVED else name


def _label(text: str, ending: str = "") -> str:
    """Return the text as mermaid takes it: no colons, semicolons, hashes, comments or line breaks, and not too long."""
    plain = re.sub("%+", "%", " ".join(text.translate(FORBIDDEN).split())) or "(blank)"
    return (plain if len(plain) <= MAX_LABEL else plain[: MAX_LABEL - 3].rstrip() + "...") + ending
