"""Traps that other engines have fallen into, each a story that fails where the naive way is taken.

Some of them lie in the fold and are told on a simulated user; some lie between the fold and the store, and are told on a
partition whose log, batches and crashes can be seen (`Stage`). What else is to be said about a subject stands with it:
`test_timers.py`, `test_policy.py`, `steps/test_delay_until.py` and so on.
"""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, time

import pytest
from pydantic import ValidationError

from engine import (
    Cap,
    Cohorts,
    Delay,
    DelayUntil,
    Exit,
    Journey,
    Policy,
    QuietHours,
    Send,
    WaitFor,
    always,
    days,
    hours,
    minutes,
    on,
    receipt,
    schedule,
    value,
)  # fmt: skip
from engine.actor import earliest_due
from engine.local_time import to_local, zone
from engine.simulator import Simulate, SimulatedUser
from engine.steps import AnyStep
from schemas.inputs import Granted, Receipt, WakeUp
from tests.runtime.stage import TENANT, Stage
from tests.runtime.trial_journeys import basket, greeting

HOUR_MS = 3_600_000


def journey(steps: dict[str, AnyStep], version: int = 1, entry: str = "go", key: str | None = None) -> Journey:
    """A journey that begins with the first of its steps; `end` and `missed` are there to lead to."""
    return Journey(
        name="journey", version=version, entry=on(entry), key=key, reentry=always, start=next(iter(steps)),
        steps={**steps, "missed": Exit("missed"), "end": Exit(f"v{version}")},
    )  # fmt: skip


def mail(then: str = "end", template: str = "mail") -> Send:
    return Send("email", template=template, then=then)


def clocks(user: SimulatedUser, where: str) -> list[str]:
    """When the user's messages went out, on the clocks of a place."""
    shown = [to_local(message.requested_at, zone(where)) for message in user.messages]
    return [each.isoformat(timespec="minutes") for each in shown]


ANSWER = WaitFor(on("paid"), timeout=hours(24), then="end", on_timeout="missed")
LETTER: dict[str, AnyStep] = {"pause": Delay(hours(1), then="send"), "send": mail()}


def test_an_event_that_does_not_match_never_starts_a_wait_anew(simulate: Simulate) -> None:
    user = simulate(journey({"answer": ANSWER}))
    user.event("go")
    due_at = user.runs[0].due_at
    for _ in range(20):
        user.wait(hours(1))
        user.event("page_viewed")
        user.identify(seen=True)
    assert user.runs[0].due_at == due_at
    user.wait(hours(4))
    assert user.exits == ["missed"]


async def test_a_wake_up_that_finds_the_user_busy_or_never_comes_loses_no_timer() -> None:
    stage = Stage()
    stage.publish(basket())
    for name in ("b1", "b2"):
        stage.event("ada", "basket_filled", basket=name)
        stage.pass_time(60_000)
    await stage.play()
    [(actor, first_at)] = stage.host.timers.items()
    stage.pass_time(2 * HOUR_MS)
    stage.event("ada", "looked")
    await stage.play()
    assert stage.sent("ada") == ["reminder", "reminder"]  # both were due, and nothing but the event has come
    stage.give("ada", WakeUp(first_at))
    await stage.play()
    assert stage.sent("ada") == ["reminder", "reminder"]
    stage.pass_time(5 * HOUR_MS)
    stage.wake_the_due()
    await stage.play()
    assert stage.sent("ada") == ["reminder", "reminder", "last_reminder", "last_reminder"]
    assert actor not in stage.host.timers


@pytest.mark.parametrize("crash_at", range(8))
async def test_a_message_that_leaves_only_with_its_checkpoint_leaves_once(crash_at: int) -> None:
    stage = Stage()
    stage.users.max_records = 1
    stage.publish(greeting())
    stage.event("ada", "signed_up")
    stage.event("ben", "signed_up")
    commit, commits = stage.host.commit, []

    async def dies(batch: object) -> None:
        commits.append(batch)
        if len(commits) > crash_at:
            raise OSError("the process is gone")
        await commit(batch)  # type: ignore[arg-type]

    stage.host.commit = dies  # type: ignore[method-assign]
    with suppress(OSError):
        await stage.play()
    settled = {message.user for message in stage.messages()}
    assert settled == {user for user in ("ada", "ben") if stage.user(user).runs}
    stage.restart()
    await stage.play()
    assert sorted(message.user for message in stage.messages()) == ["ada", "ben"]


def test_sends_that_are_overdue_when_a_journey_goes_on_flood_nobody(simulate: Simulate) -> None:
    daily: dict[str, AnyStep] = {}
    for number in range(5):
        daily[f"wait{number}"] = Delay(days(1), then=f"send{number}")
        daily[f"send{number}"] = mail(f"wait{number + 1}" if number < 4 else "end", f"day{number}")
    user = simulate(journey(daily))
    user.event("go")
    user.wait(days(1))
    user.control("journey", "pause")
    user.wait(days(3.5))
    user.control("journey", "resume")
    assert user.sent == ["email:day0", "email:day3"]
    assert user.reasons("blocked") == ["late", "late"]
    user.wait(days(1))
    assert user.sent == ["email:day0", "email:day3", "email:day4"]


@pytest.mark.parametrize(
    ("if_past", "sent", "exits"),
    [("continue", 1, ["v1"]), ("exit", 0, ["the date has passed"]), ("missed", 0, ["missed"])],
)
def test_a_date_that_has_passed_sends_nothing_unless_the_author_has_said_so(
    simulate: Simulate, if_past: str, sent: int, exits: list[str]
) -> None:
    with pytest.raises(ValidationError, match="DelayUntil needs `if_past`"):
        DelayUntil(date=value("event.when"), then="send")
    user = simulate(
        journey({"until": DelayUntil(date=value("event.when"), if_past=if_past, then="send"), "send": mail()})
    )
    user.event("go", when="2025-12-31")
    assert (len(user.sent), user.exits) == (sent, exits)


def test_a_user_falls_into_the_same_cohort_at_every_run_and_in_every_version(simulate: Simulate) -> None:
    def split(version: int) -> Journey:
        return journey({"lot": Cohorts({"a": 50, "b": 50}), "a": Exit("a"), "b": Exit("b")}, version)

    dealt = set()
    for number in range(20):
        user = simulate(split(1), user_id=f"user-{number}")
        for version in (1, 2, 3):
            user.event("go")
            user.wait(days(1))
            user.publish(split(version + 1))
        assert len(set(user.exits)) == 1
        dealt.update(user.exits)
    assert dealt == {"a", "b"}


def test_who_enters_again_enters_the_current_version_by_its_own_entry(simulate: Simulate) -> None:
    user = simulate(journey(LETTER, 1, entry="before"))
    user.event("before")
    user.publish(journey(LETTER, 2, entry="after"))
    user.wait(hours(1))
    user.event("before")
    assert (user.exits, user.runs) == (["v1"], ())
    user.event("after")
    assert [run.version for run in user.runs] == [2]


def test_who_is_erased_leaves_no_run_no_timer_and_nothing_that_late_inputs_could_revive(simulate: Simulate) -> None:
    user = simulate(journey({"ask": mail("answer"), "answer": ANSWER}))
    user.event("go")
    [message] = user.messages
    user.erase()
    assert user.exits == ["erased"]
    assert (user.profile, user.runs, earliest_due(user.state)) == ({}, (), None)
    user.identify(email="ann@example.com")
    user.event("go")
    user.enter("journey")
    user.give(Receipt(message.id, "clicked", user.now_ms, "email"))
    user.give(Granted(message.id, user.now_ms))
    user.wait(days(2))
    assert (user.profile, user.runs, user.sent) == ({}, (), ["email:mail"])


def test_a_step_that_the_new_version_lacks_is_still_there_for_who_waits_at_it(simulate: Simulate) -> None:
    user = simulate(journey(LETTER, 1))
    user.event("go")
    user.publish(journey({"only": Exit("v2")}, 2))
    user.wait(hours(1))
    assert (user.trail, user.sent, user.exits) == (["pause", "send", "end"], ["email:mail"], ["v1"])


def test_a_cap_rolls_so_a_minute_before_and_after_midnight_are_not_two_days(simulate: Simulate) -> None:
    policy = Policy(version=1, caps=(Cap(1, days(1)),))
    user = simulate(policy, journey({"send": mail()}), now=datetime(2026, 1, 5, 23, 59, tzinfo=UTC))
    user.event("go")
    user.wait(minutes(2))
    user.event("go")
    assert user.sent == ["email:mail"]
    assert user.reasons("blocked") == ["cap: at most 1 messages within 1 day"]
    user.wait(days(1))
    user.event("go")
    assert len(user.sent) == 2


def test_two_runs_that_come_to_one_send_have_a_message_each_and_hear_only_of_their_own(simulate: Simulate) -> None:
    clicked = WaitFor(receipt("send", "clicked"), timeout=days(9), then="end", on_timeout="missed")
    user = simulate(journey({**LETTER, "send": mail("answer"), "answer": clicked}, key="cart_id"))
    user.event("go", cart_id="a")
    user.event("go", cart_id="b")
    user.wait(hours(1))
    assert [message.event["cart_id"] for message in user.messages] == ["a", "b"]
    assert len({message.id for message in user.messages}) == 2
    user.give(Receipt(user.messages[0].id, "clicked", user.now_ms, "email"))
    assert [run.key for run in user.runs] == ["b"]


def test_two_runs_that_come_to_one_send_at_once_share_what_a_cap_leaves(simulate: Simulate) -> None:
    policy = Policy(version=1, caps=(Cap(1, days(1)),))
    user = simulate(policy, journey(LETTER, key="cart_id"))
    user.event("go", cart_id="a")
    user.event("go", cart_id="b")
    user.wait(hours(1))
    assert [message.event["cart_id"] for message in user.messages] == ["a"]


def test_a_message_held_in_the_night_goes_out_in_the_morning_whatever_happens_meanwhile(simulate: Simulate) -> None:
    night = Policy(version=1, quiet_hours=(QuietHours(time(21), time(8)),))
    user = simulate(night, journey({"send": mail()}), now=datetime(2026, 1, 5, 22, tzinfo=UTC))
    user.event("go")
    user.event("page_viewed")
    user.identify(tier="gold")
    user.publish(replace(night, version=2))
    user.publish(journey({"send": mail(template="other")}, 2))
    user.control("journey", "pause")
    user.control("journey", "resume")
    user.sleep(hours(9.9))
    user.wake_up()
    assert (user.sent, user.step) == ([], "send")
    user.sleep(hours(2))  # the worker is down when the night ends
    user.event("page_viewed")
    assert (user.sent, user.exits) == (["email:mail"], ["v1"])


@pytest.mark.parametrize("batch", [1, 2, 3, 1000])
async def test_a_wait_does_not_miss_the_event_that_comes_in_the_same_batch(batch: int) -> None:
    stage = Stage()
    stage.users.max_records = batch
    stage.publish(journey({"ask": Send("inapp", template="ask", then="answer"), "answer": ANSWER}))
    stage.event("ada", "go")
    stage.event("ada", "paid")
    await stage.play()
    assert [entry.reason for entry in stage.journal("exited")] == ["v1"]
    assert not stage.user("ada").runs
    assert f"{TENANT}:ada".encode() not in stage.host.timers


def test_a_goal_is_counted_once(simulate: Simulate) -> None:
    aimed = replace(journey(LETTER), goal=on("paid", within=days(3), value="total"))
    user = simulate(aimed)
    user.event("go")
    user.event("paid", total=1)
    user.event("paid", total=2)
    user.event("paid", total=1, message_id="e2")
    user.wait(hours(2))
    user.event("paid", total=3)  # the run is over by now; its goal may be reached for days
    assert [entry.detail["value"] for entry in user.journal if entry.kind == "goal"] == [1]
    assert user.state.goals == ()


def test_half_past_two_comes_once_a_day_also_when_the_clocks_skip_it_or_show_it_twice(simulate: Simulate) -> None:
    nightly = journey({"until": DelayUntil(at=time(2, 30), then="send"), "send": mail("until")})
    seen = {}
    for month, day in ((3, 27), (10, 23)):
        user = simulate(nightly, now=datetime(2026, month, day, 12, tzinfo=UTC), timezone="Europe/Berlin")
        user.event("go")
        user.wait(days(3))
        seen[month] = clocks(user, "Europe/Berlin")
    assert seen[3] == ["2026-03-28T02:30", "2026-03-29T03:00", "2026-03-30T02:30"]
    assert seen[10] == ["2026-10-24T02:30", "2026-10-25T02:30", "2026-10-26T02:30"]
    assert user.messages[1].requested_at == int(datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp() * 1000)


def test_the_29th_of_february_is_a_date_when_there_is_one_and_none_when_there_is_not(simulate: Simulate) -> None:
    step = DelayUntil(date=value("event.when"), if_past="exit", if_missing="missed", then="send")
    user = simulate(journey({"until": step, "send": mail()}), now=datetime(2028, 1, 1, tzinfo=UTC))
    user.event("go", when="2028-02-29")
    user.wait(days(60))
    assert clocks(user, "UTC") == ["2028-02-29T00:00"]
    user.event("go", when="2029-02-29")
    assert user.exits[-1] == "missed"


def test_a_schedule_on_the_29th_of_february_waits_for_a_leap_year(simulate: Simulate) -> None:
    leap = replace(journey({"send": mail()}), entry=schedule("0 9 29 2 *"))
    user = simulate(leap, now=datetime(2026, 1, 1, tzinfo=UTC))
    user.wait(days(365 * 4))
    assert clocks(user, "UTC") == ["2028-02-29T09:00"]


@pytest.mark.parametrize("woken", [False, True])
def test_an_event_at_the_very_end_of_the_wait_for_it_is_too_late_whether_the_timer_was_told_or_not(
    simulate: Simulate, woken: bool
) -> None:
    user = simulate(journey({"answer": ANSWER}))
    user.event("go")
    user.sleep(hours(24))
    if woken:
        user.wake_up()
    user.event("paid")
    assert user.exits == ["missed"]


def test_an_event_a_millisecond_before_the_end_of_the_wait_for_it_is_in_time(simulate: Simulate) -> None:
    user = simulate(journey({"answer": ANSWER}))
    user.event("go")
    user.simulation.now_ms += 24 * HOUR_MS - 1
    user.event("paid")
    assert user.exits == ["v1"]
