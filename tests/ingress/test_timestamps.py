"""That an event occurred when it did, whatever the sender's clock says."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.ingress.refusals import Refusal
from agents.ingress.timestamps import occurred_at, read

NOW = 1_735_689_600_123
MOMENTS = st.datetimes(datetime.fromisoformat("1990-01-01"), datetime.fromisoformat("2100-01-01"))  # without a zone


@pytest.mark.parametrize(
    "written",
    [
        "2025-01-01T00:00:00.123Z",
        "2025-01-01T00:00:00.123+00:00",
        "2025-01-01T01:00:00.123+01:00",
        "2025-01-01T00:00:00.123",
        "20250101T000000.123Z",
        "2025-01-01T00:00:00.123456789Z",
        " 2025-01-01 00:00:00.123Z ",
        1_735_689_600_123,
        1_735_689_600.123,
    ],
)
def test_the_ways_a_time_is_written(written: str | float) -> None:
    assert read(written) == NOW


@pytest.mark.parametrize("written", ["", "now", "2025-13-01T00:00:00Z", "12", 1e300, -1e300, 10**30])
def test_what_is_no_time_is_refused(written: str | float) -> None:
    with pytest.raises(Refusal, match="not a time"):
        read(written)


@pytest.mark.parametrize("sent_at", [None, "", "nonsense", [], {}, 1e300])
def test_a_bad_sent_at_is_not_used(sent_at: object) -> None:
    assert occurred_at("2024-12-31T00:00:00Z", sent_at, NOW) == 1_735_603_200_000


def test_without_a_timestamp_it_occurred_when_it_was_received() -> None:
    assert occurred_at(None, "2031-01-01T00:00:00Z", NOW) == NOW
    assert occurred_at("", None, NOW) == NOW


@given(
    at=MOMENTS,
    took=st.timedeltas(timedelta(0), timedelta(days=30)),
    off=st.timedeltas(timedelta(-3000), timedelta(3000)),
)
def test_how_wrong_a_clock_is_makes_no_difference(at: datetime, took: timedelta, off: timedelta) -> None:
    def by_a_clock_that_is_off(by: timedelta) -> int:
        return occurred_at((at + by).isoformat() + "Z", (at + took + by).isoformat() + "Z", NOW)

    assert abs(by_a_clock_that_is_off(off) - by_a_clock_that_is_off(timedelta(0))) <= 1  # of rounding


@given(at=MOMENTS)
def test_a_time_is_read_to_the_millisecond(at: datetime) -> None:
    exact = (at.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1)
    assert abs(read(at.isoformat()) - exact) <= 0.501


@given(timestamp=st.one_of(st.none(), st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_whatever_is_sent_is_a_time_of_four_digits_or_refused(timestamp: str | float | None) -> None:
    try:
        at = occurred_at(timestamp, None, NOW)
    except Refusal:
        return
    assert 0 <= at < 253_402_300_800_000
