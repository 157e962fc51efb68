"""That no user ever gets more messages than the bound says, and that the bound says no more than it must."""

from dataclasses import replace
from datetime import time, timedelta
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import (
    Branch,
    Call,
    Cohorts,
    Delay,
    DelayUntil,
    EntryCap,
    Exit,
    Journey,
    Policy,
    QuietHours,
    Send,
    Throttle,
    Update,
    WaitFor,
    after,
    always,
    days,
    hours,
    minutes,
    on,
    once,
    profile,
    receipt,
    value,
    where,
)
from engine.bound import MOST, Bound, bound, first_message_after, longest_run, most_messages, reachable
from engine.durations import milliseconds
from engine.simulator import Simulate, SimulatedUser
from tests.engine.generated import NAMES, STATUSES, seeds, some_journey, some_properties

WINDOWS = (days(1), days(3), days(7))


def fullest(sent_at: list[int], window: timedelta) -> int:
    """Return the most messages within any time of this length, its end excluded."""
    span = milliseconds(window)
    return max((sum(begin <= at < begin + span for at in sent_at) for begin in sent_at), default=0)


def mail(then: str = "done", **more: Any) -> Send:
    return Send("email", template="hello", then=then, **more)


def journey(reentry: Any = once, exit_on: Any = None, key: Any = None, **steps: Any) -> Journey:
    return Journey(
        name="trial", version=1, entry=on("a"), start=next(iter(steps)), reentry=reentry, exit_on=exit_on, key=key,
        steps={**steps, "done": Exit()},
    )  # fmt: skip


# What holds for every journey and every history


def some_wider_journey(dice: Random) -> Journey:
    """Return any journey, some with steps of the kinds that wait for a clock, a quota or another system."""
    made = some_journey(dice)
    steps = dict(made.steps)
    for name, step in made.steps.items():
        if isinstance(step, Delay) and dice.random() < 0.3:
            zone = dice.choice([None, "Europe/Berlin"])
            steps[name] = DelayUntil(at=time(dice.randint(0, 23)), zone=zone, then=step.then)
        elif isinstance(step, Delay) and dice.random() < 0.1 and step.then > name:  # it may pass without a wait
            steps[name] = DelayUntil(date=value("profile.x"), if_past="exit", then=step.then)
        elif isinstance(step, Delay) and dice.random() < 0.2:
            steps[name] = Call("https://example.com/x", then=step.then, on_failed=step.then)
        elif isinstance(step, Branch) and dice.random() < 0.2:
            steps[name] = Update({"x": dice.randint(0, 3)}, then=step.otherwise)
        elif isinstance(step, Send):
            steps[name] = replace(step, max_lateness=dice.choice([hours(1), days(1), days(2)]))
    key = made.key if dice.random() < 0.5 else None
    reentry = after(days(dice.randint(1, 4))) if dice.random() < 0.5 else made.reentry
    cap = EntryCap(1000, days(1)) if dice.random() < 0.1 else None
    return replace(made, steps=steps, key=key, reentry=reentry, entry_cap=cap)


def some_life(dice: Random, trial: Journey, acts: int = 120) -> dict[str, list[int]]:
    """Let a user do what makes journeys send, at the worst of times; return when messages were asked for, by key."""
    quiet = QuietHours(time(dice.randint(0, 23)), time(dice.randint(0, 23), 30))
    user = SimulatedUser(trial, *([Policy(version=1, quiet_hours=(quiet,))] if dice.random() < 0.4 else []))
    for _ in range(acts):
        match dice.randint(0, 11):
            case 0 | 1 | 2 | 3:
                user.event(dice.choice(NAMES), **some_properties(dice))
            case 4 if user.messages:
                user.receipt(user.messages[-1].step, dice.choice(STATUSES))
            case 5:
                user.identify(x=dice.choice([0, 1, 2, "2026-01-20"]), timezone=dice.choice(["Asia/Tokyo", None]))
            case 6:
                user.sleep(timedelta(minutes=dice.choice([1, 30, dice.randint(0, 3000)])))
            case 7 if dice.random() < 0.2:
                user.control("generated", dice.choice(["pause", "resume"]))
            case 8 if dice.random() < 0.2:
                for run in user.runs:
                    user.resume(run.id)
            case _:
                user.wait(timedelta(minutes=dice.choice([0, 1, 30, dice.randint(0, 3000), dice.randint(0, 15000)])))
    user.control("generated", "resume")
    user.wait(days(10))
    keys = {entry.run: entry.detail.get("key", "") for entry in user.journal if entry.kind == "entered"}
    sent_at: dict[str, list[int]] = {}
    for message in user.messages:
        if message.channel != "call":  # a call reaches no person
            sent_at.setdefault(keys[message.run], []).append(message.requested_at)
    return sent_at


@given(seeds, seeds)
def test_no_history_brings_more_messages_than_the_bound(seed: int, life: int) -> None:
    trial = some_wider_journey(Random(seed))
    sent_at = some_life(Random(life), trial)
    for window in WINDOWS:
        found = bound(trial, window)
        assert found.most is None or fullest([at for each in sent_at.values() for at in each], window) <= found.most
        for each in sent_at.values():
            assert found.each is None or fullest(each, window) <= found.each


@given(seeds)
def test_the_longer_the_window_the_more_can_come(seed: int) -> None:
    trial = some_wider_journey(Random(seed))
    mosts = [bound(trial, window) for window in (minutes(1), *WINDOWS, days(30))]
    for shorter, longer in pairwise(mosts):
        assert longer.each is None or (shorter.each is not None and shorter.each <= longer.each)


@given(seeds)
def test_a_bound_says_why_there_is_none(seed: int) -> None:
    found = bound(some_wider_journey(Random(seed)), days(7))
    assert (found.most is None) == bool(found.why)


def test_the_property_is_worth_its_name() -> None:
    """Journeys without messages, without bounds, or lives that never come near them would prove nothing."""
    bounded = reached = 0
    for seed in range(150):
        trial = some_wider_journey(Random(seed))
        each = bound(trial, days(7)).each
        if each:
            bounded += 1
            lives = [some_life(Random(life), trial) for life in range(4)]
            reached += any(fullest(sent_at, days(7)) == each for life in lives for sent_at in life.values())
    assert bounded > 30
    assert reached > 4


# Exactly how many


def test_a_line_of_sends_counts_each_once() -> None:
    trial = journey(one=mail("pause"), pause=Delay(days(3), then="two"), two=mail())
    assert most_messages(trial, days(7)) == 2
    assert most_messages(trial, days(2) + minutes(1)) == 2  # the first may be up to a day late
    assert most_messages(trial, days(2)) == 1
    assert most_messages(trial, days(1)) == 1
    assert most_messages(trial, hours(1)) == 1


def test_of_several_ways_the_fullest_counts() -> None:
    trial = journey(
        tier=Branch([(profile("tier", "==", "gold"), "one")], otherwise="split"),
        split=Cohorts({"two": 1, "done": 1}),
        one=mail("two"),
        two=mail(),
    )
    assert most_messages(trial, days(1)) == 2


def test_a_loop_sends_as_often_as_its_delays_allow() -> None:
    trial = journey(daily=mail("pause"), pause=Delay(days(1), then="daily"))
    assert most_messages(trial, days(7)) == 8  # what is late by a day goes out together with that day's
    punctual = journey(daily=mail("pause", max_lateness=minutes(1)), pause=Delay(days(1), then="daily"))
    assert most_messages(punctual, days(7)) == 8
    assert most_messages(punctual, days(7) - minutes(1)) == 7


def test_what_was_late_and_what_is_due_do_go_out_in_one_window(simulate: Simulate) -> None:
    """The 8 of the test above, seen."""
    user = simulate(journey(daily=mail("pause"), pause=Delay(days(1), then="daily")))
    user.event("a")
    user.wait(hours(1))
    user.sleep(hours(23) + hours(23))
    user.wake_up()
    user.wait(days(7))
    assert fullest([message.requested_at for message in user.messages], days(7)) == 8


def test_an_event_may_come_at_once_so_a_loop_around_it_has_no_bound() -> None:
    trial = journey(hello=mail("answer"), answer=WaitFor(on("b"), timeout=days(1), then="hello", on_timeout="done"))
    assert bound(trial, days(7)) == Bound(
        None, None, "a run can go around hello > answer > hello without any time in between"
    )


def test_a_loop_that_only_time_can_close_has_one() -> None:
    trial = journey(hello=mail("answer"), answer=WaitFor(on("b"), timeout=days(2), then="done", on_timeout="hello"))
    assert most_messages(trial, days(7)) == 4


def test_a_loop_that_is_too_quick_to_count_has_none() -> None:
    trial = journey(hello=mail("pause"), pause=Delay(timedelta(seconds=10), then="hello"))
    found = bound(trial, days(7))
    assert found.most is None
    assert found.why == "a run can go around hello > pause > hello once in 10 seconds"
    slower = journey(hello=mail("pause"), pause=Delay(hours(1), then="hello"))
    assert most_messages(slower, days(30)) == 31 * 24 <= MOST


def test_reentry_brings_more_runs() -> None:
    steps: dict[str, Any] = {"hello": mail("later"), "later": Delay(days(1), then="again"), "again": mail()}
    assert most_messages(journey(once, **steps), days(7)) == 2
    assert most_messages(journey(after(days(4)), **steps), days(7)) == 5  # the end of one run, and two whole ones
    assert most_messages(journey(after(days(30)), **steps), days(7)) == 2
    unbounded = bound(journey(always, hello=mail()), days(7))
    assert unbounded.most is None
    assert unbounded.why == "re-entry is always, and a run can be over at once: every entry sends again"
    assert most_messages(journey(always, pause=Delay(days(2), then="hello"), hello=mail()), days(7)) == 4


def test_who_can_be_let_out_can_come_back_sooner() -> None:
    steps: dict[str, Any] = {"hello": mail("later"), "later": Delay(days(5), then="done")}
    assert most_messages(journey(always, **steps), days(7)) == 2
    assert most_messages(journey(always, on("b"), **steps), days(7)) is None
    assert most_messages(journey(after(days(2)), on("b"), **steps), days(7)) == 4


def test_each_value_of_a_key_has_a_bound_of_its_own() -> None:
    found = bound(journey(once, None, "cart_id", hello=mail()), days(7))
    assert found == Bound(None, 1, "each cart_id has a run of its own, and a user can have any number of them")


def test_a_journey_that_sends_nothing_is_bounded_with_or_without_a_key() -> None:
    trial = journey(always, None, "cart_id", pause=Delay(days(1), then="done"))
    assert most_messages(trial, days(7)) == 0


def test_a_send_that_no_way_leads_to_does_not_count_unless_runs_are_moved_there() -> None:
    trial = journey(pause=Delay(days(1), then="done"), forgotten=mail())
    assert most_messages(trial, days(7)) == 0
    assert reachable(trial) == {"pause", "done"}
    assert most_messages(replace(trial, version=2, moves={"old": "forgotten"}), days(7)) == 1


def test_a_time_of_day_alone_is_no_bound_because_zones_may_change(simulate: Simulate) -> None:
    trial = journey(hello=mail("morning"), morning=DelayUntil(at=time(9), then="hello"))
    found = bound(trial, days(1))
    assert found.most is None
    assert found.why.endswith("'morning' alone makes none, because a time zone may change: put a Delay into the loop")
    user = simulate(trial, timezone="Asia/Tokyo")
    user.event("a")
    user.identify(timezone="Europe/Berlin")
    user.wait(hours(15))
    user.identify(timezone="America/New_York")
    user.wait(hours(8))
    assert len(user.sent) == 3  # on Monday at nine, UTC; on Tuesday at nine in Tokyo, and at nine in Berlin
    slower = journey(
        hello=mail("rest"), rest=Delay(hours(20), then="morning"), morning=DelayUntil(at=time(9), then="hello")
    )
    assert most_messages(slower, days(7)) == 10


def test_a_date_that_has_passed_can_end_the_run_at_once() -> None:
    trial = journey(
        always, hello=mail("due"), due=DelayUntil(date=value("profile.due"), if_past="exit", then="pause"),
        pause=Delay(days(9), then="done"),
    )  # fmt: skip
    assert most_messages(trial, days(7)) is None


def test_a_table_of_six_hundred_steps_is_counted_too() -> None:
    size = 300
    steps: dict[str, Any] = {}
    for number in range(size):
        steps[f"s{number}"] = mail(f"d{number}")
        steps[f"d{number}"] = WaitFor(
            [(receipt(f"s{number}", "clicked"), f"s{(number * 7) % size}")],
            timeout=hours(5),
            on_timeout=f"s{number + 1}" if number + 1 < size else "done",
        )
    assert most_messages(journey(after(days(1)), **steps), days(7)) is None
    line = {
        name: replace(step, awaits=on("x"), then="done") if isinstance(step, WaitFor) else step
        for name, step in steps.items()
    }
    assert (
        most_messages(journey(after(days(30)), **line), days(7)) == 40
    )  # the last of one run, then 39 of another, five hours apart


# How long


def test_the_longest_run_adds_up_the_longest_stays() -> None:
    trial = journey(
        tier=Branch([(where("x", ">", 1), "hello")], otherwise="pause"),
        pause=Delay(days(1), then="hello"),
        hello=mail("answer", on_failed="done"),
        answer=WaitFor(on("b"), timeout=days(2), then="done", on_timeout="night"),
        night=DelayUntil(at=time(22), then="done"),
    )
    assert longest_run(trial) == days(4) + hours(1)


def test_a_loop_a_date_or_a_throttle_make_a_run_that_may_last() -> None:
    assert longest_run(journey(pause=WaitFor(on("b"), timeout=days(1), then="pause", on_timeout="done"))) is None
    assert longest_run(journey(due=DelayUntil(date=value("profile.due"), if_past="exit", then="done"))) is None
    assert longest_run(journey(turn=Throttle(10, then="done"))) is None


def test_the_first_message_comes_on_the_shortest_way() -> None:
    trial = journey(
        answer=WaitFor(on("b"), timeout=days(2), then="pause", on_timeout="hello"),
        pause=Delay(days(1), then="hello"),
        hello=mail(),
    )
    assert first_message_after(trial) == days(1)
    assert first_message_after(journey(pause=Delay(days(1), then="done"))) is None


@settings(max_examples=20)
@given(st.integers(1, 60), st.integers(1, 60))
def test_two_sends_and_a_delay_are_counted_as_arithmetic_says(delay: int, window: int) -> None:
    trial = journey(one=mail("pause", max_lateness=hours(1)), pause=Delay(hours(delay), then="one"))
    assert most_messages(trial, hours(window)) == -(-(window + 1) // delay)
