"""When timers fire: each at its own time, whatever the worker was doing then."""

from datetime import timedelta

from engine import (
    Branch,
    Cohorts,
    Delay,
    Exit,
    Journey,
    Send,
    WaitFor,
    always,
    days,
    hours,
    minutes,
    on,
    profile,
    seconds,
)
from engine.actor import earliest_due
from engine.simulator import Simulate, SimulatedUser
from engine.turn import MAX_FIRINGS

REMINDER = Journey(
    name="reminder",
    version=1,
    entry=on("cart_updated"),
    start="cooldown",
    steps={
        "cooldown": WaitFor(on("order_placed"), timeout=hours(1), then="ordered", on_timeout="remind"),
        "remind": Send("email", template="cart_reminder", then="done"),
        "ordered": Exit("ordered"),
        "done": Exit(),
    },
)

LONG = Journey(
    name="long",
    version=1,
    entry=on("signed_up"),
    start="first",
    steps={
        "first": Delay(hours(1), then="hello"),
        "hello": Send("email", template="hello", then="answer"),
        "answer": WaitFor(on("replied"), timeout=hours(2), then="done", on_timeout="split"),
        "split": Cohorts({"plain": 50, "fancy": 50}),
        "plain": Send("email", template="plain", then="pause"),
        "fancy": Send("email", template="fancy", then="pause"),
        "pause": Delay(minutes(30), then="last"),
        "last": Send("email", template="last", then="done"),
        "done": Exit(),
    },
)


def test_a_silent_user_gets_one_reminder_after_an_hour(simulate: Simulate) -> None:
    user = simulate(REMINDER)
    user.event("cart_updated", items=2)
    user.wait(hours(1))
    assert user.sent == ["email:cart_reminder"]
    user.wait(days(365))
    assert user.sent == ["email:cart_reminder"]


def test_nothing_goes_out_a_millisecond_too_early(simulate: Simulate) -> None:
    user = simulate(REMINDER)
    user.event("cart_updated")
    user.wait(hours(1) - timedelta(milliseconds=1))
    assert user.sent == []
    user.wait(timedelta(milliseconds=1))
    assert user.sent == ["email:cart_reminder"]


def test_an_order_in_time_means_no_reminder(simulate: Simulate) -> None:
    user = simulate(REMINDER)
    user.event("cart_updated")
    user.wait(minutes(59))
    user.event("order_placed")
    user.wait(days(1))
    assert (user.sent, user.exits) == ([], ["ordered"])


def test_an_order_at_noon_does_not_save_a_wait_that_ended_at_eleven_although_the_worker_was_down(
    simulate: Simulate,
) -> None:
    user = simulate(REMINDER)
    user.event("cart_updated")  # at 10
    user.sleep(hours(2))
    user.event("order_placed")  # at 12; the wait was over at 11
    assert user.trail == ["cooldown", "remind", "done"]
    assert user.sent == ["email:cart_reminder"]


def test_what_a_timer_leads_to_is_decided_with_the_profile_of_its_time_not_of_the_event_that_follows(
    simulate: Simulate,
) -> None:
    journey = Journey(
        name="tiers",
        version=1,
        entry=on("signed_up"),
        start="wait",
        steps={
            "wait": Delay(hours(1), then="tier"),
            "tier": Branch([(profile("tier", "==", "gold"), "gold")], otherwise="other"),
            "gold": Exit("gold"),
            "other": Exit("other"),
        },
    )
    user = simulate(journey)
    user.event("signed_up")
    user.sleep(hours(2))
    user.identify(tier="gold")
    assert user.exits == ["other"]


def journalled(user: SimulatedUser) -> list[tuple[str, int, str, str]]:
    return [(entry.kind, entry.at, entry.step, entry.reason) for entry in user.journal]


def test_a_worker_that_was_down_for_hours_takes_the_same_paths_at_the_same_times_as_one_that_never_was(
    simulate: Simulate,
) -> None:
    always_up, was_down = simulate(LONG), simulate(LONG)
    for user in (always_up, was_down):
        user.event("signed_up")
    always_up.wait(hours(10))
    was_down.sleep(hours(10))
    was_down.wake_up()
    assert journalled(was_down) == journalled(always_up)
    assert was_down.sent == always_up.sent
    assert was_down.state == always_up.state
    assert [message.id for message in was_down.messages] == [message.id for message in always_up.messages]


def test_after_an_outage_longer_than_its_max_lateness_a_message_is_dropped_and_the_run_goes_on(
    simulate: Simulate,
) -> None:
    up, down = simulate(LONG), simulate(LONG)
    for user in (up, down):
        user.event("signed_up")
    up.wait(days(3))
    down.sleep(days(3))
    down.event("anything")
    assert down.sent == []
    assert down.reasons("blocked") == ["late", "late", "late"]
    assert down.trail == up.trail
    assert down.exits == ["done"]


def test_a_backlog_of_a_hundred_late_runs_floods_nobody(simulate: Simulate) -> None:
    journey = Journey(
        name="daily",
        version=1,
        entry=on("signed_up"),
        start="day",
        steps={"day": Delay(days(1), then="news"), "news": Send("email", template="news", then="day")},
    )
    user = simulate(journey)
    user.event("signed_up")
    user.sleep(days(100) + hours(1))
    user.wake_up()
    assert user.trail.count("news") == 100
    assert user.sent == ["email:news"]  # today's
    assert user.step == "day"


def test_lateness_is_measured_to_the_millisecond(simulate: Simulate) -> None:
    def sent_after(outage: timedelta) -> list[str]:
        user = simulate(REMINDER)
        user.event("cart_updated")
        user.sleep(hours(1) + outage)
        user.wake_up()
        return user.sent

    assert sent_after(hours(24)) == ["email:cart_reminder"]
    assert sent_after(hours(24) + timedelta(milliseconds=1)) == []


def test_a_message_says_until_when_it_may_go_out_counted_from_its_own_time(simulate: Simulate) -> None:
    user = simulate(REMINDER)
    user.event("cart_updated")
    entered_at = user.now_ms
    user.sleep(hours(5))
    user.wake_up()
    [message] = user.messages
    assert message.requested_at == entered_at + 5 * 3_600_000
    assert message.expires_at == entered_at + (1 + 24) * 3_600_000


def test_timers_of_several_runs_fire_in_the_order_of_their_times(simulate: Simulate) -> None:
    def after(name: str, pause: timedelta) -> Journey:
        return Journey(
            name=name,
            version=1,
            entry=on("start"),
            start="pause",
            steps={"pause": Delay(pause, then="send"), "send": Send("push", template=name, then="end"), "end": Exit()},
        )

    user = simulate(after("a", hours(3)), after("b", hours(1)), after("c", hours(2)))
    user.event("start")
    user.sleep(hours(4))
    user.wake_up()
    assert user.sent == ["push:b", "push:c", "push:a"]


def test_of_two_timers_due_at_once_that_of_the_older_run_fires_first(simulate: Simulate) -> None:
    def pausing(name: str, entry: str) -> Journey:
        return Journey(
            name=name,
            version=1,
            entry=on(entry),
            start="pause",
            steps={
                "pause": Delay(hours(1), then="send"),
                "send": Send("push", template=name, then="end"),
                "end": Exit(),
            },
        )

    user = simulate(pausing("a", "later"), pausing("z", "sooner"))
    user.event("sooner")
    user.event("later")  # in the same millisecond
    user.wait(hours(1))
    assert user.sent == ["push:z", "push:a"]


def test_timers_of_two_runs_are_interleaved_not_run_after_run(simulate: Simulate) -> None:
    def stepping(name: str, first: timedelta) -> Journey:
        return Journey(
            name=name,
            version=1,
            entry=on("start"),
            start="one",
            steps={
                "one": Delay(first, then="two"),
                "two": Delay(hours(1), then="three"),
                "three": Delay(hours(1), then="end"),
                "end": Exit(),
            },
        )

    user = simulate(stepping("a", hours(1)), stepping("b", minutes(90)))
    user.event("start")
    user.sleep(days(1))
    user.wake_up()
    told = [f"{entry.journey}:{entry.step}" for entry in user.journal if entry.kind == "step"]
    assert told == ["a:one", "b:one", "a:two", "b:two", "a:three", "b:three", "a:end", "b:end"]


def test_a_wake_up_too_many_or_too_early_changes_nothing(simulate: Simulate) -> None:
    user = simulate(REMINDER)
    user.wake_up()
    user.event("cart_updated")
    before = user.state
    user.wake_up()
    user.sleep(minutes(59))
    user.wake_up()
    assert user.state is before
    user.sleep(minutes(1))
    user.wake_up()
    user.wake_up()
    assert user.sent == ["email:cart_reminder"]


def test_an_actor_whose_wake_up_was_lost_takes_up_its_timers_at_the_next_input_of_any_kind(simulate: Simulate) -> None:
    user = simulate(LONG)
    user.event("signed_up")
    user.wait(hours(1))
    user.sleep(hours(2))
    user.receipt("hello", "opened")
    assert user.trail[:4] == ["first", "hello", "answer", "split"]


def test_an_event_that_is_a_duplicate_still_lets_due_timers_fire(simulate: Simulate) -> None:
    user = simulate(REMINDER)
    user.event("cart_updated", message_id="m1")
    user.sleep(hours(1))
    user.event("cart_updated", message_id="m1")
    assert user.sent == ["email:cart_reminder"]


def test_a_run_whose_timers_loop_faster_than_any_journey_needs_is_suspended_and_the_others_go_on(
    simulate: Simulate,
) -> None:
    busy = Journey(
        name="busy",
        version=1,
        entry=on("start"),
        start="tick",
        steps={"tick": Delay(seconds(1), then="tock"), "tock": Delay(seconds(1), then="tick")},
    )
    calm = Journey(
        name="calm",
        version=1,
        entry=on("start"),
        start="day",
        steps={"day": Delay(hours(5), then="send"), "send": Send("push", template="calm", then="end"), "end": Exit()},
    )
    user = simulate(busy, calm)
    user.event("start")
    user.sleep(hours(5))
    user.wake_up()
    assert user.sent == ["push:calm"]
    [run] = user.runs
    assert run.suspended == (
        f"RuntimeError: more than {MAX_FIRINGS} timers were due at once; resume the run to let it go on"
    )
    assert user.trail.count("tick") + user.trail.count("tock") == 1 + MAX_FIRINGS
    assert earliest_due(user.state) is None


def test_the_earliest_timer_is_that_of_the_run_that_is_due_first(simulate: Simulate) -> None:
    user = simulate(REMINDER, LONG)
    assert earliest_due(user.state) is None
    user.event("signed_up")
    user.wait(minutes(10))
    user.event("cart_updated")
    assert earliest_due(user.state) == user.now_ms + 50 * 60_000
    user.wait(minutes(50))
    assert earliest_due(user.state) == user.now_ms + 10 * 60_000


def test_a_loop_over_days_goes_on_for_years(simulate: Simulate) -> None:
    journey = Journey(
        name="yearly",
        version=1,
        entry=on("born"),
        reentry=always,
        start="year",
        steps={"year": Delay(days(365), then="greet"), "greet": Send("email", template="birthday", then="year")},
    )
    user = simulate(journey)
    user.event("born")
    user.wait(days(365 * 80))
    assert len(user.sent) == 80
    assert len({message.id for message in user.messages}) == 80
