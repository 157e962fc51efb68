"""How long: the words for durations, and how they are told to people."""

from datetime import timedelta
from functools import lru_cache
from typing import Annotated

from pydantic import Strict

# Of a definition. A bare number is refused: who writes Delay(3) hardly means three seconds.
Duration = Annotated[timedelta, Strict()]


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def days(count: float) -> timedelta:
    return timedelta(days=count)


def weeks(count: float) -> timedelta:
    return timedelta(weeks=count)


def milliseconds(duration: timedelta) -> int:
    """Return the duration in whole milliseconds, exact (no floating point on the way)."""
    return duration // MILLISECOND


MILLISECOND = timedelta(milliseconds=1)  # made once: the fold asks often
UNITS = (("week", 604_800_000), ("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1_000))


@lru_cache(maxsize=1024)  # the fold says the same few again and again
def describe(duration: timedelta) -> str:
    """Say a duration in words, exactly: "1 day 12 hours". Weeks are used only where they come out even."""
    left = milliseconds(duration)
    if left % 604_800_000 == 0 and left:
        return _count(left // 604_800_000, "week")
    parts = []
    for unit, size in UNITS[1:]:
        count, left = divmod(left, size)
        if count:
            parts.append(_count(count, unit))
    if left:
        parts.append(f"{left} ms")
    return " ".join(parts) or "no time"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
