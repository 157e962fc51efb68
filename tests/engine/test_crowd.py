"""What a crowd is: many users on one clock, who compete for the same places."""

from datetime import UTC, datetime, time
from itertools import pairwise

import pytest

from engine import (
    Budget,
    Cap,
    Delay,
    DelayUntil,
    EntryCap,
    Exit,
    Journey,
    Policy,
    Send,
    Throttle,
    WaitFor,
    always,
    days,
    hours,
    minutes,
    on,
    receipt,
    seconds,
)
from engine.reactions import Reactions
from engine.simulator import BEGIN, Simulate
from engine.steps import AnyStep


def journey(entry_cap: EntryCap | None = None, **steps: AnyStep) -> Journey:
    return Journey(
        name="journey", version=1, entry=on("go"), reentry=always, start=next(iter(steps)), entry_cap=entry_cap,
        goal=on("order", within=days(3), value="total"), steps={**steps, "end": Exit(), "clicked": Exit("clicked")},
    )  # fmt: skip


MAIL = Send("email", template="hello", then="end")


def test_what_happens_to_everybody_is_told_in_one_line_and_counted(simulate: Simulate) -> None:
    crowd = simulate.crowd(100, journey(wait=Delay(hours(1), then="mail"), mail=MAIL))
    crowd.event("go")
    assert crowd.steps == {"journey.wait": 100}
    crowd.wait(hours(1))
    assert (len(crowd), crowd.sent, crowd.exits) == (100, {"email:hello": 100}, {"done": 100})
    assert len({message.address for message in crowd.messages}) == 100
    assert len(crowd.who("email:hello")) == 100


def test_profiles_are_a_function_of_the_users_number(simulate: Simulate) -> None:
    crowd = simulate.crowd(10, profile=lambda number: {"tier": "gold" if number % 5 == 0 else "basic", "phone": None})
    assert [user.profile["tier"] for user in crowd].count("gold") == 2
    assert (crowd[3].profile["email"], "phone" in crowd[3].profile) == ("u3@example.com", False)
    assert [user.profile["tier"] for user in simulate.crowd(2, profile={"tier": "gold"})] == ["gold", "gold"]


def test_some_do_what_others_do_not_and_each_with_properties_of_their_own(simulate: Simulate) -> None:
    crowd = simulate.crowd(
        10, journey(wait=WaitFor(on("order"), timeout=days(1), then="end", on_timeout="mail"), mail=MAIL)
    )
    crowd.event("go", place=lambda user: user.number)
    crowd.event("order", who=lambda user: user.number < 4, total=lambda user: 10 * user.number)
    crowd.wait(days(2))
    assert (crowd.sent["email:hello"], crowd.goals) == (6, {"journey": 4})
    assert [entry.detail["value"] for entry in crowd.journal if entry.kind == "goal"] == [0, 10, 20, 30]
    crowd.identify(who=lambda user: user.number == 9, tier=lambda user: f"tier {user.number}")
    assert [user.profile.get("tier") for user in crowd][8:] == [None, "tier 9"]


def test_the_clock_jumps_to_whatever_is_due_next_for_anybody(simulate: Simulate) -> None:
    crowd = simulate.crowd(3, journey(wait=Delay(hours(5), then="mail"), mail=MAIL))
    for user in crowd:
        user.event("go")
        crowd.wait(hours(1))
    crowd[1].wait(hours(3))  # Time that passes for one passes for all.
    assert [user.now for user in crowd] == [BEGIN + hours(6)] * 3
    assert crowd.sent == {"email:hello": 2}
    crowd.wait(hours(1))
    asked = [message.requested_at for message in crowd.messages]
    assert [later - earlier for earlier, later in pairwise(asked)] == [3_600_000, 3_600_000]
    assert [message.user for message in crowd.messages] == ["u0", "u1", "u2"]


def test_everybody_gets_up_at_seven_on_their_own_clock(simulate: Simulate) -> None:
    zones = ["Asia/Tokyo", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]
    crowd = simulate.crowd(
        100, journey(wait=DelayUntil(at=time(7), then="mail"), mail=MAIL), profile=lambda n: {"timezone": zones[n % 4]}
    )
    crowd.event("go")
    crowd.wait(days(1))
    assert {at.time() for user in crowd for at, _ in user.timeline} == {time(7)}
    assert len({message.requested_at for message in crowd.messages}) == 4


# What is shared


def test_a_throttle_spreads_a_crowd_over_the_time_that_it_takes(simulate: Simulate) -> None:
    crowd = simulate.crowd(1000, journey(turn=Throttle(600, then="mail"), mail=MAIL))
    crowd.event("go")
    crowd.wait(minutes(1))
    assert crowd.sent["email:hello"] == 601
    crowd.wait(minutes(1))
    asked = [message.requested_at for message in crowd.messages]
    assert {later - earlier for earlier, later in pairwise(asked)} == {100}


def test_a_budget_is_shared_by_all_and_comes_anew_each_day(simulate: Simulate) -> None:
    crowd = simulate.crowd(50, journey(mail=MAIL), Policy(version=1, budgets=(Budget("email", 30),)))
    crowd.event("go")
    assert crowd.sent["email:hello"] == 30
    assert crowd.reasons("blocked") == {"the budget of the day is used up": 20}
    crowd.wait(days(1))
    crowd.event("go")
    assert crowd.sent["email:hello"] == 60


def test_an_entry_cap_lets_in_the_first_who_come(simulate: Simulate) -> None:
    crowd = simulate.crowd(20, journey(EntryCap(most=5, within=hours(1)), mail=MAIL))
    crowd.event("go")
    assert [user.user_id for user in crowd.who("email:hello")] == ["u0", "u1", "u2", "u3", "u4"]
    assert crowd.exits["the entry cap is reached"] == 15


def test_a_new_version_and_an_operator_reach_everybody_at_that_moment(simulate: Simulate) -> None:
    first = journey(wait=Delay(hours(5), then="mail"), mail=MAIL)
    crowd = simulate.crowd(10, first)
    crowd.event("go")
    crowd.wait(hours(1))
    crowd.control("journey", "pause")
    crowd.wait(hours(9))
    assert crowd.steps == {"journey.wait": 10}
    crowd.control("journey", "resume")
    assert crowd.sent == {"email:hello": 10}
    crowd.event("go")
    crowd.control("journey", "stop")
    assert crowd.exits == {"done": 10, "stopped": 10}
    crowd.publish(journey(mail=Send("push", template="back", then="end")))
    crowd.enter("journey", who=lambda user: user.number == 0)
    crowd.event("go", who=lambda user: user.number == 1)
    assert crowd.sent["push:back"] == 2


# How many people take what


def test_about_as_many_open_and_bounce_as_said_and_the_same_ones_each_time(simulate: Simulate) -> None:
    answer = WaitFor(receipt("mail", "clicked"), timeout=days(5), then="clicked", on_timeout="end")
    mailed = journey(mail=Send("email", template="hello", then="answer"), answer=answer)

    def played() -> tuple[dict[str, int], list[str]]:
        crowd = simulate.crowd(2000, mailed, reactions=Reactions(opens=0.3, clicks=0.1, bounces=0.03))
        crowd.event("go")
        crowd.wait(seconds(2))
        assert crowd.reasons("receipt")["delivered"] + crowd.reasons("receipt")["bounced"] == 2000
        crowd.wait(days(6))
        return dict(crowd.reasons("receipt")), [user.user_id for user in crowd if user.exits == ["clicked"]]

    heard, clicked = played()
    assert 30 < heard["bounced"] < 90
    assert 500 < heard["opened"] < 660
    assert 140 < len(clicked) == heard["clicked"] < 250
    assert played() == (heard, clicked)


def test_a_crowd_may_sleep_and_wakes_up_to_everything_that_is_overdue(simulate: Simulate) -> None:
    crowd = simulate.crowd(
        10, journey(wait=Delay(hours(1), then="mail"), mail=MAIL), Policy(version=1, caps=(Cap(1, days(1)),))
    )
    crowd.event("go")
    crowd.sleep(hours(5))
    assert crowd.sent == {}
    crowd.wait(minutes(0))
    assert {at for user in crowd for at in user.sent_at("email:hello")} == {BEGIN + hours(5)}


def test_users_of_one_crowd_have_nothing_else_to_do_with_each_other(simulate: Simulate) -> None:
    crowd = simulate.crowd(2, journey(wait=Delay(hours(1), then="mail"), mail=MAIL))
    crowd[0].event("go")
    crowd[1].erase()
    crowd.wait(days(1))
    assert (crowd[0].sent, crowd[1].sent) == (["email:hello"], [])
    crowd[1].event("go")
    assert (crowd[1].runs, crowd[1].state.erased) == ((), True)
    assert repr(crowd) == "<Crowd of 2, sent {'email:hello': 1}>"


@pytest.mark.parametrize("begin", [datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)])
def test_a_crowd_lives_through_the_change_of_the_clocks(simulate: Simulate, begin: datetime) -> None:
    daily = journey(wait=DelayUntil(at=time(2, 30), then="mail"), mail=Send("email", template="hello", then="wait"))
    crowd = simulate.crowd(10, daily, now=begin, profile={"timezone": "Europe/Berlin"})
    crowd.event("go")
    crowd.wait(days(3))
    for user in crowd:
        days_of_it = [at.date() for at in user.sent_at("email:hello")]
        assert days_of_it == sorted(set(days_of_it)) and len(days_of_it) == 3
