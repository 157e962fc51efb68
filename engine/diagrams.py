"""A journey as a picture: mermaid's state diagram, which GitHub, GitLab and most editors draw."""

from engine.journey import Journey
from engine.steps import Exit

MAX_LABEL = 60


def to_mermaid(journey: Journey) -> str:
    """Return the diagram's source. Every step shows what happens there, every arrow when it is taken."""
    lines = ["stateDiagram-v2", f"  %% {journey.label}"]
    lines += [f"  {name}: {_label(f'{name} | {step.describe()}')}" for name, step in journey.steps.items()]
    lines += [f"  {source} --> {target}: {_label(label)}" for source, label, target in journey.edges()]
    lines += [f"  {name} --> [*]" for name, step in journey.steps.items() if isinstance(step, Exit)]
    if journey.exit_on is not None:
        lines += [
            "  note right of " + journey.start,
            f"    leaves at once on {_label(str(journey.exit_on))}",
            "  end note",
        ]
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    """Return the text as mermaid takes it: no colons, semicolons, hashes or line breaks, and not too long."""
    plain = " ".join(text.translate(str.maketrans(":;#\n\r", ",,   ")).split())
    return plain if len(plain) <= MAX_LABEL else plain[: MAX_LABEL - 3].rstrip() + "..."
