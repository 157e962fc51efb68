"""What operators and new versions do to runs: pause, resume, stop, retire, moves, rollback, erasure."""

from dataclasses import replace

from engine import EXIT, Delay, Exit, Journey, Send, WaitFor, always, days, hours, minutes, on, receipt
from engine.actor import earliest_due
from engine.simulator import Simulate
from engine.steps import AnyStep


def reminder(version: int = 1, moves: dict[str, str] | None = None, **more: AnyStep) -> Journey:
    steps: dict[str, AnyStep] = {
        "wait": Delay(hours(1), then="remind"),
        "remind": Send("email", template=f"v{version}", then="end"),
        "end": Exit(),
        **more,
    }
    return Journey(
        name="reminder", version=version, entry=on("go"), reentry=always, exit_on=on("bought"), start="wait",
        moves=moves or {}, steps=steps,
    )  # fmt: skip


def test_a_paused_run_stays_where_it_is_and_goes_on_when_it_is_resumed(simulate: Simulate) -> None:
    user = simulate(reminder())
    user.event("go")
    user.control("reminder", "pause")
    user.wait(hours(5))
    assert (user.step, user.sent) == ("wait", [])
    assert earliest_due(user.state, user.catalog, user.tenant) is None
    user.control("reminder", "resume")
    assert user.sent == ["email:v1"]


def test_what_was_due_before_the_pause_fires_although_it_is_folded_after_it(simulate: Simulate) -> None:
    user = simulate(reminder())
    user.event("go")
    user.sleep(hours(2))
    user.control("reminder", "pause")
    assert user.sent == ["email:v1"]


def test_during_a_pause_nobody_enters_exits_still_happen_and_waits_do_not_end(simulate: Simulate) -> None:
    waiting = Journey(
        name="waiting", version=1, entry=on("go"), reentry=always, exit_on=on("bought"), start="wait",
        steps={"wait": WaitFor(on("clicked"), timeout=days(9), then="end", on_timeout="end"), "end": Exit()},
    )  # fmt: skip
    user = simulate(waiting)
    user.event("go")
    user.control("waiting", "pause")
    user.event("clicked")
    user.event("go")
    assert (user.step, user.reasons("not_entered")) == ("wait", ["the journey is paused"])
    user.event("bought")
    assert user.exits == ["exit_on"]


def test_stop_ends_the_runs_at_that_moment_and_closes_the_entry(simulate: Simulate) -> None:
    user = simulate(reminder())
    user.event("go")
    user.control("reminder", "stop")
    user.event("go")
    assert user.exits == ["stopped"]
    user.publish(reminder(2))
    user.event("go")
    user.wait(hours(1))
    assert user.sent == ["email:v2"]


def test_who_came_to_a_message_too_late_to_get_it_before_the_stop_gets_it_no_more(simulate: Simulate) -> None:
    user = simulate(reminder())
    user.event("go")
    user.sleep(hours(2))
    user.control("reminder", "stop")
    assert (user.trail, user.sent, user.exits) == (["wait", "remind"], [], ["stopped"])


def test_retire_only_closes_the_entry(simulate: Simulate) -> None:
    user = simulate(reminder())
    user.event("go")
    user.control("reminder", "retire")
    user.event("go")
    user.wait(hours(1))
    assert user.sent == ["email:v1"]
    user.enter("reminder")
    assert user.reasons("not_entered") == ["no such journey is active"]


def test_runs_stay_on_their_version_unless_it_moves_them(simulate: Simulate) -> None:
    user = simulate(reminder(1))
    user.event("go")
    user.publish(reminder(2))
    user.wait(hours(1))
    assert user.sent == ["email:v1"]


def test_moves_take_runs_over_at_the_activation(simulate: Simulate) -> None:
    user = simulate(reminder(1))
    user.event("go")
    user.wait(minutes(30))
    user.publish(reminder(2, {"wait": "again"}, again=Delay(hours(2), then="remind")))
    assert (user.step, user.runs[0].version) == ("again", 2)
    user.wait(hours(1))
    assert user.sent == []
    user.wait(hours(1))
    assert user.sent == ["email:v2"]
    assert user.reasons("moved") == ["from v1, wait"]


def test_who_has_met_the_exit_of_the_new_version_leaves_without_another_message(simulate: Simulate) -> None:
    steps: dict[str, AnyStep] = {
        "ask": Send("email", template="ask", then="pause"),
        "pause": Delay(days(1), then="again"),
        "again": Send("email", template="again", then="end"),
        "end": Exit(),
    }
    first = Journey(name="j", version=1, entry=on("go"), start="ask", steps=steps)
    user = simulate(first)
    user.event("go")
    user.receipt("ask", "clicked")
    user.publish(replace(first, version=2, exit_on=receipt("ask", "clicked"), moves={"pause": "again"}))
    assert (user.sent, user.exits) == (["email:ask"], ["exit_on"])


def test_a_silent_user_is_moved_at_the_time_of_the_activation_whenever_they_are_heard_from(simulate: Simulate) -> None:
    prompt, late = simulate(reminder(1)), simulate(reminder(1))
    v2 = reminder(2, {"wait": "again"}, again=Delay(hours(2), then="remind"))
    for user in (prompt, late):
        user.event("go")
        user.sleep(minutes(30))
        user.catalog = user.catalog.activate(user.tenant, v2, user.now_ms)
    prompt.wake_up()
    for user in (prompt, late):
        user.sleep(hours(5))
        user.wake_up()
    assert prompt.sent == late.sent == ["email:v2"]
    assert prompt.trail == late.trail


def test_who_was_at_a_message_when_a_new_version_came_gets_it_and_is_moved_from_where_they_are_then(
    simulate: Simulate,
) -> None:
    prompt, late = simulate(reminder(1)), simulate(reminder(1))
    v2 = reminder(2, {"remind": "again", "end": "again"}, again=Send("email", template="again", then="end"))
    for user in (prompt, late):
        user.event("go")
    prompt.wait(hours(2))
    for user in (prompt, late):
        user.sleep(hours(2))
        user.catalog = user.catalog.activate(user.tenant, v2, user.now_ms)
        user.sleep(hours(1))
        user.wake_up()
    assert prompt.sent == late.sent == ["email:v1"]
    assert prompt.trail == late.trail


def test_a_timer_due_before_the_activation_fires_in_the_old_version(simulate: Simulate) -> None:
    user = simulate(reminder(1))
    user.event("go")
    user.sleep(hours(2))
    user.publish(reminder(2, {"wait": "remind"}))
    assert user.sent == ["email:v1"]


def test_a_removed_step_drops_nobody_and_moves_may_end_runs(simulate: Simulate) -> None:
    removed = Journey(
        name="reminder", version=2, entry=on("go"), start="remind", moves={"wait": EXIT},
        steps={"remind": Send("email", template="v2", then="end"), "end": Exit()},
    )  # fmt: skip
    kept = Journey(name="reminder", version=2, entry=on("go"), start="remind", steps=removed.steps)
    moved, staying = simulate(reminder(1)), simulate(reminder(1))
    for user, definition in ((moved, removed), (staying, kept)):
        user.event("go")
        user.publish(definition)
        user.wait(hours(1))
    assert (moved.sent, moved.exits) == ([], ["moved out by v2"])
    assert staying.sent == ["email:v1"]


def test_a_rollback_makes_the_older_version_current_again(simulate: Simulate) -> None:
    user = simulate(reminder(1))
    user.publish(reminder(2))
    user.publish(reminder(1))
    user.event("go")
    user.wait(hours(1))
    assert user.sent == ["email:v1"]
