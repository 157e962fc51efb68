"""A journey played faster, for demonstrations: the same table with every duration divided."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from engine.journey import Journey

DURATIONS = ("duration", "timeout", "within")


def sped_up(journey: Journey, factor: float) -> Journey:
    """Return the journey with every duration divided by `factor`. Lateness limits stay as they are."""
    return replace(
        journey,
        steps={name: _hurried(step, factor) for name, step in journey.steps.items()},
        reentry=_hurried(journey.reentry, factor),
        goal=journey.goal and _hurried(journey.goal, factor),
    )


def _hurried(part: Any, factor: float) -> Any:
    names = [name for name in DURATIONS if isinstance(getattr(part, name, None), timedelta)]
    return replace(part, **{name: getattr(part, name) / factor for name in names}) if names else part
