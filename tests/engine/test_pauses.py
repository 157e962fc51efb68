"""What comes for a run while its journey is paused, or is called or rolled back: nothing is lost, nothing counts double."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from engine import (
    Budget,
    Call,
    Cap,
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
    profile,
    receipt,
    value,
)  # fmt: skip
from engine.actor import handle
from engine.errors import InvalidInput
from engine.quotas import ask
from engine.simulator import Simulate, SimulatedUser
from engine.steps import AnyStep
from schemas.inputs import Asked, Entered, Event, Granted, Receipt
from schemas.state import Quota


def journey(entry_cap: EntryCap | None = None, **steps: AnyStep) -> Journey:
    return Journey(
        name="journey", version=1, entry=on("go"), reentry=always, start=next(iter(steps)), entry_cap=entry_cap,
        steps={**steps, "end": Exit(), "late": Exit("late")},
    )  # fmt: skip


def paused(simulate: Simulate, definition: Journey, **attributes: Any) -> SimulatedUser:
    user = simulate(definition, **attributes)
    user.event("go")
    user.control("journey", "pause")
    return user


ASK = Send("email", template="hello", then="wait", transactional=True)
CLICKED = WaitFor(receipt("ask", "clicked"), timeout=days(1), then="end", on_timeout="late")


def test_a_receipt_that_comes_during_a_pause_counts_when_the_journey_goes_on(simulate: Simulate) -> None:
    user = paused(simulate, journey(ask=ASK, wait=CLICKED), email="ann@example.com")
    user.receipt("ask", "clicked")
    user.wait(hours(3))
    assert user.step == "wait"
    user.control("journey", "resume")
    assert user.exits == ["done"]


def test_a_wait_that_was_over_before_the_receipt_came_is_not_saved_by_the_pause(simulate: Simulate) -> None:
    user = paused(simulate, journey(ask=ASK, wait=CLICKED), email="ann@example.com")
    user.wait(days(2))
    user.receipt("ask", "clicked")
    user.control("journey", "resume")
    assert user.exits == ["late"]


def test_an_answer_that_comes_during_a_pause_is_not_lost(simulate: Simulate) -> None:
    called = journey(ask=Call("https://crm.example/score", then="end", on_failed="late"))
    user = paused(simulate, called)
    [message] = user.messages
    user.give(Receipt(message.id, "accepted", 0, "call", answer={"score": 7}))
    user.wait(minutes(5))
    assert user.step == "ask"
    user.control("journey", "resume")
    assert user.exits == ["done"]


def test_a_change_of_the_profile_counts_when_the_journey_goes_on(simulate: Simulate) -> None:
    gold = WaitFor(profile("tier", "==", "gold"), timeout=days(1), then="end", on_timeout="late")
    user = paused(simulate, journey(wait=gold))
    user.identify(tier="gold")
    user.wait(minutes(1))
    assert user.step == "wait"
    user.control("journey", "resume")
    assert user.exits == ["done"]


def test_a_date_that_is_followed_is_read_again_when_the_journey_goes_on(simulate: Simulate) -> None:
    renewal = DelayUntil(date=value("profile.renewal"), then="end", if_past="late", follows=True)
    user = paused(simulate, journey(wait=renewal), renewal="2099-01-01T00:00:00Z")
    assert user.step == "wait"
    user.identify(renewal="2001-01-01T00:00:00Z")
    user.wait(minutes(1))
    assert user.step == "wait"
    user.control("journey", "resume")
    assert user.exits == ["late"]


def asking(simulate: Simulate, definition: Journey, policy: Policy | None = None) -> SimulatedUser:
    """A user whose run has asked a quota, and whose journey is paused before the answer comes."""
    user = simulate(definition, email="ann@example.com")
    if policy is not None:
        user.publish(policy)
    handled = handle(user.catalog, user.tenant, user.user_id, user.state, Event("e1", "go", user.now_ms), user.now_ms)
    user.state = handled.user
    [(_, asked)] = handled.inputs
    assert isinstance(asked, Asked)
    user.control("journey", "pause")
    user.wait(minutes(1))
    user.give(Granted(asked.id, user.now_ms))
    user.wait(hours(1))
    return user


def test_a_turn_that_is_granted_during_a_pause_is_asked_for_anew_after_it(simulate: Simulate) -> None:
    user = asking(simulate, journey(turn=Throttle(per_minute=60, then="end")))
    assert (user.step, user.quotas) == ("turn", {})
    user.control("journey", "resume")
    assert (user.exits, len(user.quotas)) == (["done"], 1)


def test_a_place_in_the_budget_sends_nothing_during_a_pause(simulate: Simulate) -> None:
    policy = Policy(version=1, budgets=(Budget("email", 100),))
    user = asking(simulate, journey(ask=Send("email", template="hello", then="end")), policy)
    assert (user.step, user.sent) == ("ask", [])
    user.control("journey", "resume")
    assert (user.sent, user.exits) == (["email:hello"], ["done"])


@pytest.mark.parametrize(("away", "places"), [(hours(5), 1), (hours(20), 2)])
def test_a_place_in_the_budget_that_was_granted_in_a_pause_is_taken_once_if_it_is_still_the_same_day(
    simulate: Simulate, away: timedelta, places: int
) -> None:
    definition = journey(ask=Send("email", template="hello", then="end"))
    user = simulate(definition, Policy(version=1, budgets=(Budget("email", 100),)))
    handled = handle(user.catalog, user.tenant, user.user_id, user.state, Event("e1", "go", user.now_ms), user.now_ms)
    user.state = handled.user
    [(key, asked)] = handled.inputs
    assert isinstance(asked, Asked)
    user.quotas[key], granted = ask(Quota(), asked, user.now_ms)
    user.control("journey", "pause")
    user.give(granted)
    user.wait(away)
    assert user.sent == []
    user.control("journey", "resume")
    assert user.sent == ["email:hello"]
    taken = [taken for quota in user.quotas.values() for _, taken in quota.places]
    assert sum(taken) == places


@pytest.mark.parametrize("interrupted", ["pause", "outage"])
def test_turns_that_come_in_a_pause_or_an_outage_are_no_herd_after_it(simulate: Simulate, interrupted: str) -> None:
    throttled = journey(turn=Throttle(per_minute=10, then="ask"), ask=Send("push", template="hello", then="end"))
    crowd = simulate.crowd(300, throttled)
    crowd.event("go")
    crowd.wait(minutes(5))
    before = len(crowd.messages)
    if interrupted == "pause":
        crowd.control("journey", "pause")
        crowd.wait(minutes(20))
        crowd.control("journey", "resume")
    else:
        crowd.sleep(minutes(20))
    assert len(crowd.messages) <= before + 11  # whose turn was missed by less than a minute
    crowd.wait(hours(2))
    sent_at = [message.requested_at for message in crowd.messages]
    assert len(sent_at) == 300
    most = max(sum(at <= each < at + 60_000 for each in sent_at) for at in sent_at)
    assert most <= 21


def test_a_run_whose_entry_is_granted_during_a_pause_begins_after_it(simulate: Simulate) -> None:
    user = asking(simulate, journey(EntryCap(most=5, within=days(1)), ask=ASK, wait=CLICKED))
    assert user.sent == []
    user.control("journey", "resume")
    assert user.sent == ["email:hello"]


def test_moves_are_for_runs_of_earlier_versions_also_after_a_rollback(simulate: Simulate) -> None:
    def version(number: int, moves: dict[str, str] | None = None) -> Journey:
        wait = WaitFor(on("clicked"), timeout=days(number), then="end", on_timeout="late")
        return Journey(
            name="journey", version=number, entry=on("go"), start="wait", moves=moves or {},
            steps={"wait": wait, "end": Exit(), "late": Exit("late")},
        )  # fmt: skip

    user = simulate(version(1))
    user.publish(version(2, {"wait": "late"}))
    user.publish(version(3))
    user.event("go")
    user.publish(version(2, {"wait": "late"}))
    assert [(run.version, run.step) for run in user.runs] == [(3, "wait")]
    user.event("clicked")
    assert user.exits == ["done"]


def test_a_call_whose_fate_is_unknown_is_still_waited_for(simulate: Simulate) -> None:
    user = simulate(journey(ask=Call("https://crm.example/score", then="end", on_failed="late")))
    user.event("go")
    user.receipt("ask", "unknown")  # the channel asks again, under the same id
    assert user.step == "ask"
    user.receipt("ask", "accepted")
    assert user.exits == ["done"]


def test_a_call_on_the_way_counts_against_no_cap(simulate: Simulate) -> None:
    definition = journey(
        first=Send("email", template="one", then="ask"),
        ask=Call("https://crm.example/score", then="second", on_failed="late"),
        second=Send("email", template="two", then="end"),
    )
    user = simulate(definition, email="ann@example.com")
    user.publish(Policy(version=1, caps=(Cap(most=2, within=days(1)),)))
    user.event("go")
    user.receipt("ask", "accepted")
    assert [message.template for message in user.messages if message.channel == "email"] == ["one", "two"]
    assert [contact.channel for contact in user.state.contacts] == ["email", "email"]


def nested(levels: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_an_answer_or_an_entry_that_nests_too_deep_is_invalid_whoever_wrote_it(simulate: Simulate) -> None:
    user = simulate(journey(ask=Call("https://crm.example/score", then="end", on_failed="late")))
    user.event("go")
    [message] = user.messages
    for wrong in (
        Receipt(message.id, "accepted", 0, "call", answer=nested(65)),
        Entered("e", "journey", "api", nested(65)),
        Entered("", "journey", "api"),
        Entered("e" * 513, "journey", "api"),
        Entered("e", "journey", "b" * 257),
    ):
        with pytest.raises(InvalidInput):
            user.give(wrong)
    user.give(Receipt(message.id, "accepted", 0, "call", answer=nested(64)))
    assert user.exits == ["done"]
    msgspec.msgpack.encode(user.state)


def test_values_too_large_for_a_record_suspend_the_run_and_nothing_leaves(simulate: Simulate) -> None:
    body = {f"copy_{number}": value("profile.story") for number in range(9)}
    user = simulate(
        journey(ask=Call("https://crm.example/score", body=body, then="end", on_failed="late")), story="x" * 4000
    )
    user.event("go")
    assert user.messages == []
    assert user.runs[0].suspended == "TooLarge: the values filled in take 36091 bytes; 32768 is the limit"
