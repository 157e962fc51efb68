"""How long: exact in milliseconds, and exact in words."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import days, hours, minutes, seconds, weeks
from engine.durations import describe, milliseconds

SIZES = {"week": 604_800_000, "day": 86_400_000, "hour": 3_600_000, "minute": 60_000, "second": 1_000, "ms": 1}


def understood(words: str) -> int:
    """Read a duration told in words, in milliseconds."""
    told = re.findall(r"(\d+) (week|day|hour|minute|second|ms)s?(?= |$)", words)
    assert " ".join(f"{count} {unit}{'' if unit == 'ms' or count == '1' else 's'}" for count, unit in told) == words
    return sum(int(count) * SIZES[unit] for count, unit in told)


@given(st.integers(1, 10_000 * 86_400_000))
def test_a_duration_is_told_exactly(count: int) -> None:
    assert understood(describe(timedelta(milliseconds=count))) == count


@given(st.integers(-(10**15), 10**15))
def test_milliseconds_are_exact(count: int) -> None:
    assert milliseconds(timedelta(milliseconds=count)) == count


@pytest.mark.parametrize(
    ("duration", "told"),
    [
        (weeks(2), "2 weeks"),
        (days(7), "1 week"),
        (days(8), "8 days"),
        (days(1) + hours(12), "1 day 12 hours"),
        (hours(1), "1 hour"),
        (minutes(90), "1 hour 30 minutes"),
        (seconds(61), "1 minute 1 second"),
        (seconds(0.25), "250 ms"),
        (hours(1 / 3), "20 minutes"),
        (seconds(0), "no time"),
    ],
)
def test_durations_in_words(duration: timedelta, told: str) -> None:
    assert describe(duration) == told


def test_the_words_for_durations_are_what_they_say() -> None:
    assert seconds(1) == timedelta(seconds=1)
    assert minutes(1) == 60 * seconds(1)
    assert hours(1) == 60 * minutes(1)
    assert days(1) == 24 * hours(1)
    assert weeks(1) == 7 * days(1)
