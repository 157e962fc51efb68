"""May this message go out now: what the policy says, in its order, and what becomes of the run."""

from collections.abc import Callable
from datetime import UTC, datetime, time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine import Budget, Cap, Exit, Journey, JourneyError, Policy, QuietHours, Send, always, days, hours, on
from engine.local_time import to_local, zone
from engine.policy import is_full, quiet_until, with_contact
from engine.simulator import Simulate
from schemas.state import Contact, Quota


def sends(name: str, priority: int = 0, **fields: object) -> Journey:
    step = Send(fields.pop("channel", "email"), template=name, then="end", on_blocked="kept_back", **fields)  # type: ignore[arg-type]
    return Journey(
        name=name, version=1, priority=priority, entry=on("go"), reentry=always, start="send",
        steps={"send": step, "kept_back": Exit("kept back"), "end": Exit()},
    )  # fmt: skip


# Consent


@pytest.mark.parametrize(
    ("said", "reached"),
    [
        (None, False),
        ({"news": True}, True),
        ({"email": True}, True),
        ({"email": True, "news": False}, False),
        ({"news": True, "email:news": False}, False),
        ({"news": False, "email:news": True}, True),
        ({"news": "yes"}, False),
        ("yes", False),
    ],
)
def test_the_narrowest_word_of_the_user_counts_and_opt_in_needs_one(
    simulate: Simulate, said: object, reached: bool
) -> None:
    user = simulate(Policy(version=1, topics={"news": "opt_in"}), sends("a", topic="news"), consent=said)
    user.event("go")
    assert (user.sent == ["email:a"]) is reached
    assert reached or user.reasons("blocked") == ["no consent to news on email"]


def test_a_topic_that_is_not_named_goes_until_consent_is_taken_back(simulate: Simulate) -> None:
    user = simulate(sends("a"))
    user.event("go")
    user.identify(consent={"marketing": False})
    user.event("go")
    assert user.sent == ["email:a"]
    assert user.exits == ["done", "kept back"]


def test_who_unsubscribes_gets_nothing_more_of_that_topic_on_that_channel(simulate: Simulate) -> None:
    kept = Journey(
        name="kept", version=1, entry=on("start"), start="first",
        steps={"first": Send("email", template="first", then="wait", on_failed="end"), "wait": Exit(), "end": Exit()},
    )  # fmt: skip
    user = simulate(kept, sends("a"), sends("b", topic="orders"))
    user.event("start")
    user.receipt("first", "unsubscribed")
    user.event("go")
    assert user.sent == ["email:first", "email:b"]


def test_a_complaint_ends_everything_on_the_channel_but_what_is_transactional(simulate: Simulate) -> None:
    user = simulate(sends("a"), sends("b", topic="orders"), sends("c", transactional=True))
    user.event("go")
    user.receipt("send", "complained")
    user.event("go")
    assert user.sent[3:] == ["email:c"]


# Quiet hours


def test_a_message_in_the_quiet_hours_waits_for_their_end_on_the_users_clock(simulate: Simulate) -> None:
    policy = Policy(version=1, quiet_hours=(QuietHours(time(21), time(8)),))
    user = simulate(policy, sends("a"), now=datetime(2026, 1, 5, 14, tzinfo=UTC), timezone="Asia/Tokyo")  # 23:00 there
    user.event("go")
    assert user.sent == []
    user.wait(hours(24))
    assert user.sent == ["email:a"]
    assert to_local(user.messages[0].requested_at, zone("Asia/Tokyo")).time() == time(8)


def test_a_held_message_is_judged_anew_and_an_exit_still_ends_the_run(simulate: Simulate) -> None:
    policy = Policy(version=1, quiet_hours=(QuietHours(time(8), time(12)),))
    exiting = Journey(
        name="exiting", version=1, entry=on("go"), exit_on=on("bought"), start="send",
        steps={"send": Send("email", template="t", then="end"), "end": Exit()},
    )  # fmt: skip
    user = simulate(policy, exiting, sends("a"))
    user.event("go")
    user.identify(consent={"marketing": False})
    user.event("bought")
    user.wait(days(1))
    assert user.sent == []
    assert sorted(user.exits) == ["exit_on", "kept back"]


def test_who_moves_while_a_message_is_held_is_judged_by_the_new_clock(simulate: Simulate) -> None:
    policy = Policy(version=1, quiet_hours=(QuietHours(time(8), time(12)),))
    user = simulate(policy, sends("a"))
    user.event("go")  # 09:00 in UTC
    user.identify(timezone="America/New_York")
    user.wait(hours(3))  # 07:00 there
    assert user.sent == ["email:a"]


def test_a_send_may_ignore_the_quiet_hours_and_a_channel_may_have_none(simulate: Simulate) -> None:
    policy = Policy(version=1, quiet_hours=(QuietHours(time(8), time(12), ("email",)),))
    user = simulate(policy, sends("a", quiet_hours="ignore"), sends("b", channel="push"), sends("c"))
    user.event("go")
    assert sorted(user.sent) == ["email:a", "push:b"]


def test_a_hold_across_more_than_a_day_of_outage_is_dropped_not_sent_late(simulate: Simulate) -> None:
    user = simulate(Policy(version=1, quiet_hours=(QuietHours(time(8), time(12)),)), sends("a"))
    user.event("go")
    user.sleep(days(3))
    user.wake_up()
    assert user.reasons("blocked") == ["late"]


@given(
    st.integers(0, 400 * 86_400), st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
)
def test_quiet_hours_always_end_in_the_future_and_outside_themselves(second: int, where: str) -> None:
    policy = Policy(version=1, quiet_hours=(QuietHours(time(22), time(7, 30)),))
    now = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() + second) * 1000
    until = quiet_until(policy, "email", {"timezone": where}, now)
    if until is not None:
        assert now < until <= now + 12 * 3_600_000
        assert quiet_until(policy, "email", {"timezone": where}, until) is None


# Caps


def test_the_last_place_goes_to_the_highest_priority_of_the_same_input(simulate: Simulate) -> None:
    user = simulate(Policy(version=1, caps=(Cap(2, days(1)),)), sends("low"), sends("high", 9), sends("middle", 5))
    user.event("go")
    assert user.sent == ["email:high", "email:middle"]


def test_caps_count_by_channel_and_topic_and_never_what_is_transactional(simulate: Simulate) -> None:
    policy = Policy(version=1, caps=(Cap(1, days(1), channel="email"), Cap(1, days(7), topic="news")))
    user = simulate(
        policy, sends("a"), sends("b"), sends("c", channel="push", topic="news"), sends("d", channel="sms", topic="news"),
        sends("e", transactional=True),
    )  # fmt: skip
    user.event("go")
    assert sorted(user.sent) == ["email:a", "email:e", "push:c"]


def test_a_full_channel_falls_back_to_the_next(simulate: Simulate) -> None:
    policy = Policy(version=1, caps=(Cap(1, days(1), channel="push"),))
    user = simulate(policy, sends("a", channel=["push", "email"]))
    user.event("go")
    user.event("go")
    assert user.sent == ["push:a", "email:a"]


@given(st.lists(st.integers(0, 20 * 86_400_000), max_size=60), st.integers(1, 5), st.integers(1, 10))
def test_no_window_ever_holds_more_than_its_cap(instants: list[int], most: int, window_days: int) -> None:
    policy = Policy(version=1, caps=(Cap(most, days(window_days)),))
    contacts: tuple[Contact, ...] = ()
    sent = []
    for at in sorted(instants):
        if not is_full(policy.caps[0], contacts, "email", "news", at):
            contacts = with_contact(policy, contacts, Contact(at, "email", "news"))
            sent.append(at)
    for end in sent:
        assert sum(end - window_days * 86_400_000 < at <= end for at in sent) <= most


# Holdout and budget


def test_a_holdout_is_sticky_over_all_journeys_and_about_as_large_as_said(simulate: Simulate) -> None:
    policy = Policy(version=1, holdout=20)
    held = 0
    for number in range(400):
        user = simulate(policy, sends("a"), sends("b"), user_id=f"u{number}")
        user.event("go")
        assert len(user.sent) in (0, 2)
        held += not user.sent
    assert 50 <= held <= 110


def test_a_journeys_own_holdout_runs_through_and_gets_nothing(simulate: Simulate) -> None:
    journey = Journey(
        name="tested", version=1, entry=on("go"), holdout=100, start="send",
        steps={"send": Send("email", template="t", then="end"), "end": Exit()},
    )  # fmt: skip
    user = simulate(journey)
    user.event("go")
    assert (user.sent, user.reasons("blocked"), user.exits) == ([], ["holdout"], ["done"])


def test_a_budget_counts_over_all_users_and_begins_anew_each_day(simulate: Simulate) -> None:
    policy = Policy(version=1, budgets=(Budget("sms", 2),))
    shared: dict[str, Quota] = {}
    users = [simulate(policy, sends("a", channel="sms"), user_id=f"u{number}") for number in range(3)]
    for user in users:
        user.quotas = shared
        user.event("go")
    assert [len(user.sent) for user in users] == [1, 1, 0]
    assert users[2].exits == ["kept back"]
    users[2].wait(days(1))
    users[2].event("go")
    assert len(users[2].sent) == 1


def test_a_budget_of_nothing_sends_nothing(simulate: Simulate) -> None:
    user = simulate(Policy(version=1, budgets=(Budget("email", 0),)), sends("a"))
    user.event("go")
    assert (user.sent, user.exits) == ([], ["kept back"])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Policy(version=1, zone="Mars/Olympus"),
        lambda: QuietHours(time(8), time(8)),
        lambda: Cap(0, days(1)),
        lambda: Policy(version=1, holdout=101),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises((ValidationError, JourneyError)):
        wrong()
