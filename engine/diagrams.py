"""A journey as a picture: mermaid's state diagram, which GitHub, GitLab and most editors draw."""

import re

from engine.journey import Journey
from engine.steps import Exit

MAX_LABEL = 60
FORBIDDEN = str.maketrans(":;#\n\r", ",,   ")
# What mermaid 11 does not take as the id of a state, found by giving it every word of its grammar.
RESERVED = {
    "accdescr", "acctitle", "class", "classdef", "click", "default", "href", "note", "scale", "statediagram", "style",
}  # fmt: skip


def to_mermaid(journey: Journey) -> str:
    """Return the diagram's source. Every step shows what happens there, every arrow when it is taken."""
    lines = ["stateDiagram-v2", f"  %% {journey.label}"]
    lines += [f"  {_id(name)}: {_label(f'{name} | {step.describe()}')}" for name, step in journey.steps.items()]
    lines += [f"  {_id(source)} --> {_id(target)}: {_label(label)}" for source, label, target in journey.edges()]
    lines += [f"  {_id(name)} --> [*]" for name, step in journey.steps.items() if isinstance(step, Exit)]
    if journey.exit_on is not None:
        lines += [
            f"  note right of {_id(journey.start)}",
            f"    leaves at once on {_label(str(journey.exit_on))}",
            "  end note",
        ]
    return "\n".join(lines) + "\n"


def _id(name: str) -> str:
    """Return a step's id in the diagram: its name, unless that means something to mermaid. No step begins with "_"."""
    return f"_{name}" if name in RESERVED else name


def _label(text: str) -> str:
    """Return the text as mermaid takes it: no colons, semicolons, hashes, comments or line breaks, and not too long."""
    plain = re.sub("%+", "%", " ".join(text.translate(FORBIDDEN).split())) or "(blank)"
    return plain if len(plain) <= MAX_LABEL else plain[: MAX_LABEL - 3].rstrip() + "..."
