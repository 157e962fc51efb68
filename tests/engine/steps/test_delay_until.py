"""Waiting for a time on the user's clock, or for a date of theirs."""

from datetime import UTC, datetime, time

import pytest
from pydantic import ValidationError

from engine import DelayUntil, Exit, Journey, Send, always, days, on, value
from engine.local_time import to_local, zone
from engine.simulator import Simulate, SimulatedUser


def journey(until: DelayUntil) -> Journey:
    return Journey(
        name="until",
        version=1,
        entry=on("go"),
        reentry=always,
        start="until",
        steps={
            "until": until,
            "send": Send("push", template="now", then="end"),
            "end": Exit(),
            "missed": Exit("missed"),
        },
    )


def local(user: SimulatedUser, where: str) -> str:
    return to_local(user.messages[-1].requested_at, zone(where)).isoformat(timespec="minutes")


def test_nine_in_the_morning_is_the_users_nine(simulate: Simulate) -> None:
    user = simulate(
        journey(DelayUntil(at=time(9), then="send")), now=datetime(2026, 1, 5, 12, tzinfo=UTC), timezone="Asia/Tokyo"
    )
    user.event("go")
    user.wait(days(2))
    assert local(user, "Asia/Tokyo") == "2026-01-06T09:00"


def test_only_on_the_weekdays_that_are_named(simulate: Simulate) -> None:
    user = simulate(journey(DelayUntil(at=time(9), weekdays=("sat", "sun"), then="send")))  # begins on a Monday
    user.event("go")
    user.wait(days(7))
    assert local(user, "UTC") == "2026-01-10T09:00"


def test_a_user_without_a_zone_lives_in_utc_and_a_wrong_zone_is_none(simulate: Simulate) -> None:
    for said in (None, "Mars/Olympus", 5):
        user = simulate(journey(DelayUntil(at=time(10), then="send")), timezone=said)
        user.event("go")
        user.wait(days(1))
        assert local(user, "UTC") == "2026-01-05T10:00"


def test_a_date_of_the_profile_moved_by_an_offset(simulate: Simulate) -> None:
    step = DelayUntil(date=value("profile.trial_ends"), offset=-days(3), at=time(9), if_past="exit", then="send")
    user = simulate(journey(step), trial_ends="2026-01-20", timezone="America/New_York")
    user.event("go")
    user.wait(days(30))
    assert local(user, "America/New_York") == "2026-01-17T09:00"


def test_what_is_no_date_goes_its_own_way(simulate: Simulate) -> None:
    step = DelayUntil(date=value("event.when"), if_past="continue", if_missing="missed", then="send")
    user = simulate(journey(step))
    for nonsense in ("soon", True, [1], None, "2026-02-30"):
        user.event("go", when=nonsense)
    user.event("go")
    assert user.exits == ["missed"] * 6


def test_the_target_is_captured_on_arrival(simulate: Simulate) -> None:
    user = simulate(journey(DelayUntil(date=value("profile.ends"), if_past="exit", then="send")), ends="2026-01-10")
    user.event("go")
    user.identify(ends="2026-02-10")
    user.wait(days(10))
    assert len(user.sent) == 1


def test_with_follows_a_changed_date_or_zone_is_read_again(simulate: Simulate) -> None:
    user = simulate(
        journey(DelayUntil(date=value("profile.ends"), if_past="exit", follows=True, then="send")), ends="2026-01-10"
    )
    user.event("go")
    user.identify(ends="2026-02-10")
    user.wait(days(10))
    assert user.sent == []
    user.identify(timezone="Asia/Tokyo")
    user.wait(days(40))
    assert local(user, "Asia/Tokyo") == "2026-02-10T00:00"


def test_a_followed_date_that_moves_into_the_past_does_what_was_said(simulate: Simulate) -> None:
    user = simulate(
        journey(DelayUntil(date=value("profile.ends"), if_past="missed", follows=True, then="send")), ends="2026-01-10"
    )
    user.event("go")
    user.identify(ends="2026-01-01")
    assert user.exits == ["missed"]


def test_every_morning_in_a_loop_waits_for_the_next_day(simulate: Simulate) -> None:
    looped = Journey(
        name="daily", version=1, entry=on("go"), start="morning",
        steps={"morning": DelayUntil(at=time(9), then="send"), "send": Send("push", template="hi", then="morning")},
    )  # fmt: skip
    user = simulate(looped)
    user.event("go")
    user.wait(days(5))
    assert len(user.sent) == 5


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"date": value("event.when")},
        {"at": time(9), "if_past": "exit"},
        {"date": value("event.when"), "if_past": "exit", "weekdays": ("mon",)},
        {"at": time(9), "zone": "Nowhere/City"},
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DelayUntil(then="send", **fields)  # type: ignore[arg-type]
