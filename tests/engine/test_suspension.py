"""What happens to a run that raises an exception, and to the others."""

from engine import Delay, Exit, Journey, Send, WaitFor, days, hours, on, profile, receipt, seconds
from engine.actor import earliest_due
from engine.simulator import Simulate
from schemas.inputs import Event


def poison(start: str = "mail") -> Journey:
    """Passes every check, and walks in a circle as soon as its mail is opened: both waits are over then."""
    return Journey(
        name="poison",
        version=1,
        entry=on("start"),
        exit_on=on("stop"),
        start=start,
        steps={
            "mail": Send("email", template="x", then="one"),
            "one": WaitFor(receipt("mail", "opened"), timeout=days(1), then="two", on_timeout="end"),
            "two": WaitFor(receipt("mail", "opened"), timeout=days(1), then="one", on_timeout="end"),
            "end": Exit(),
        },
    )


def circle() -> Journey:
    """Walks in a circle at once if the user is dizzy."""
    return Journey(
        name="circle",
        version=1,
        entry=on("start"),
        start="one",
        steps={
            "one": WaitFor(profile("dizzy", "==", True), timeout=days(1), then="two", on_timeout="end"),
            "two": WaitFor(profile("dizzy", "==", True), timeout=days(1), then="one", on_timeout="end"),
            "end": Exit(),
        },
    )


def patient(name: str) -> Journey:
    return Journey(
        name=name,
        version=1,
        entry=on("start"),
        start="wait",
        steps={
            "wait": WaitFor(on("go"), timeout=days(1), then="send", on_timeout="end"),
            "send": Send("push", template=name, then="end"),
            "end": Exit(),
        },
    )


def test_a_run_that_fails_is_suspended_as_it_was_and_the_others_go_on(simulate: Simulate) -> None:
    user = simulate(patient("a"), circle(), patient("z"))
    user.event("start")
    before = next(run for run in user.runs if run.journey == "circle")
    user.identify(dizzy=True)
    user.event("go")
    assert user.sent == ["push:a", "push:z"]
    [run] = user.runs
    reason = "LoopError: circle v1: two > one > two loops without waiting"
    assert run.suspended == reason
    assert (run.step, run.visit, run.due_at, run.sends) == (before.step, before.visit, before.due_at, before.sends)
    [entry] = [entry for entry in user.journal if entry.kind == "suspended"]
    assert (entry.journey, entry.run, entry.step, entry.reason) == ("circle", run.id, "one", reason)


def test_the_error_is_handed_out_for_whoever_keeps_the_log(simulate: Simulate) -> None:
    user = simulate(circle())
    user.event("start")
    user.identify(nothing=1)
    handled = user.give(Event("m1", "identify", user.now_ms, {}, {"dizzy": True}))
    assert [type(error).__name__ for error in handled.errors] == ["LoopError"]


def test_a_suspended_run_has_no_timer_and_hears_nothing(simulate: Simulate) -> None:
    user = simulate(circle())
    user.event("start")
    user.identify(dizzy=True)
    assert earliest_due(user.state) is None
    user.identify(dizzy=False)
    user.wait(days(30))
    user.event("anything")
    assert user.trail == ["one"]
    assert user.reasons("suspended") == ["LoopError: circle v1: two > one > two loops without waiting"]


def test_a_resumed_run_fires_its_overdue_timer_and_floods_nobody(simulate: Simulate) -> None:
    late = Journey(
        name="late",
        version=1,
        entry=on("start"),
        start="one",
        steps={
            "one": WaitFor(profile("dizzy", "==", True), timeout=days(1), then="two", on_timeout="send"),
            "two": WaitFor(profile("dizzy", "==", True), timeout=days(1), then="one", on_timeout="send"),
            "send": Send("email", template="sorry", then="end"),
            "end": Exit(),
        },
    )
    soon, much_later = simulate(late), simulate(late)
    for user, pause in ((soon, days(1)), (much_later, days(3))):
        user.event("start")
        user.identify(dizzy=True)
        [run] = user.runs
        user.wait(pause)
        user.resume(run.id)
        assert user.trail == ["one", "send", "end"]
    assert soon.sent == ["email:sorry"]
    assert (much_later.sent, much_later.reasons("blocked")) == ([], ["late"])


def test_a_resumed_run_that_fails_again_is_suspended_again(simulate: Simulate) -> None:
    user = simulate(circle())
    user.event("start")
    user.identify(dizzy=True)
    [run] = user.runs
    user.resume(run.id)
    assert user.runs[0].suspended
    assert [entry.kind for entry in user.journal][-2:] == ["resumed", "suspended"]


def test_a_run_suspended_on_its_very_first_walk_starts_when_it_is_resumed(simulate: Simulate) -> None:
    user = simulate(circle(), dizzy=True)
    user.event("start")
    [run] = user.runs
    assert (run.visit, bool(run.suspended)) == (0, True)
    user.identify(dizzy=None)
    assert user.trail == []
    user.resume(run.id)
    assert user.trail == ["one"]
    assert not user.runs[0].suspended


def test_a_suspended_run_takes_part_in_what_limits_entries(simulate: Simulate) -> None:
    user = simulate(circle(), dizzy=True)
    user.event("start")
    user.event("start")
    assert user.reasons("not_entered") == ["already in it"]


def test_a_receipt_that_came_while_the_run_stood_still_is_not_missed_when_it_is_resumed(simulate: Simulate) -> None:
    careful = Journey(
        name="careful",
        version=1,
        entry=on("start"),
        start="mail",
        steps={
            "mail": Send("email", template="x", then="one"),
            "one": WaitFor(
                [(receipt("mail", "clicked"), "clicked"), (profile("dizzy", "==", True), "two")],
                timeout=days(1),
                on_timeout="end",
            ),
            "two": WaitFor(profile("dizzy", "==", True), timeout=days(1), then="one", on_timeout="end"),
            "clicked": Exit("clicked"),
            "end": Exit("silent"),
        },
    )
    user = simulate(careful)
    user.event("start")
    user.identify(dizzy=True)
    user.receipt("mail", "clicked")
    [run] = user.runs
    assert run.suspended
    assert run.sends["mail"].statuses == ("clicked",)
    user.resume(run.id)
    assert user.exits == ["clicked"]


def test_an_exit_ends_a_suspended_run_too(simulate: Simulate) -> None:
    user = simulate(poison())
    user.event("start")
    user.receipt("mail", "opened")
    assert user.runs[0].suspended
    user.event("stop")
    assert (user.runs, user.exits) == ((), ["exit_on"])


def test_what_a_failed_walk_would_have_sent_is_not_sent(simulate: Simulate) -> None:
    sending = Journey(
        name="sending",
        version=1,
        entry=on("start"),
        start="one",
        steps={
            "one": WaitFor(profile("dizzy", "==", True), timeout=days(1), then="mail", on_timeout="end"),
            "mail": Send("email", template="x", then="two"),
            "two": WaitFor(profile("dizzy", "==", True), timeout=days(1), then="one", on_timeout="end"),
            "end": Exit(),
        },
    )
    user = simulate(sending)
    user.event("start")
    user.identify(dizzy=True)
    assert user.runs[0].suspended
    assert user.sent == []


def test_resuming_a_run_that_is_well_or_gone_changes_nothing(simulate: Simulate) -> None:
    user = simulate(patient("a"))
    user.event("start")
    before = user.state
    user.resume(user.runs[0].id)
    user.resume("a.1.gone")
    assert user.state is before
    user.wait(hours(1))
    assert user.step == "wait"


def test_a_delay_after_a_resumption_keeps_its_own_time(simulate: Simulate) -> None:
    slow = Journey(
        name="slow",
        version=1,
        entry=on("start"),
        start="one",
        steps={
            "one": WaitFor(profile("dizzy", "==", True), timeout=days(1), then="two", on_timeout="pause"),
            "two": WaitFor(profile("dizzy", "==", True), timeout=days(1), then="one", on_timeout="pause"),
            "pause": Delay(days(1), then="end"),
            "end": Exit(),
        },
    )
    user = simulate(slow)
    user.event("start")
    entered_at = user.now_ms
    user.identify(dizzy=True)
    user.wait(days(1) + hours(6))
    user.resume(user.runs[0].id)
    assert user.runs[0].due_at == entered_at + 2 * 86_400_000


def test_a_run_that_failed_at_a_late_timer_is_said_to_have_failed_at_the_timers_own_time(simulate: Simulate) -> None:
    """Or the story of an outage would differ from that of a worker that was never down."""
    journey = Journey(
        name="slow",
        version=1,
        entry=on("start"),
        start="pause",
        steps={
            "pause": Delay(days(1), then="one"),
            "one": WaitFor(profile("dizzy", "==", True), timeout=days(1), then="two", on_timeout="end"),
            "two": WaitFor(profile("dizzy", "==", True), timeout=days(1), then="one", on_timeout="end"),
            "end": Exit(),
        },
    )
    user = simulate(journey, dizzy=True)
    user.event("start")
    entered_at = user.now_ms
    user.sleep(days(5))
    user.wake_up()
    assert [(entry.kind, entry.at) for entry in user.journal][-1] == ("suspended", entered_at + 86_400_000)


# A new version that can't take a run over


def moving(version: int, target: str, moves: dict[str, str] | None = None) -> Journey:
    """Its step "over" is over on arrival and leads to itself: a run that is moved there fails."""
    return Journey(
        name="moving",
        version=version,
        entry=on("start"),
        start="pause",
        exit_on=on("leave"),
        moves=moves or {},
        steps={
            "pause": Delay(days(1), then="end"),
            "over": WaitFor(profile("email", "exists"), timeout=days(1), then="over", on_timeout="end"),
            "end": Exit(target),
        },
    )


def test_a_run_that_a_new_version_cannot_take_over_is_suspended_once_and_not_tried_again_at_every_input(
    simulate: Simulate,
) -> None:
    user = simulate(moving(1, "v1"))
    user.event("start")
    user.publish(moving(2, "v2", {"pause": "over"}))
    for _ in range(3):
        user.event("page_viewed")
    user.wait(days(2))
    [run] = user.runs
    assert (run.version, run.step) == (1, "pause")
    assert user.reasons("suspended") == ["moving to v2: LoopError: moving v2: over > over loops without waiting"]


def test_such_a_run_is_tried_again_when_it_is_resumed_and_by_the_next_version(simulate: Simulate) -> None:
    user = simulate(moving(1, "v1"))
    user.event("start")
    user.publish(moving(2, "v2", {"pause": "over"}))
    user.resume(user.runs[0].id)
    assert len(user.reasons("suspended")) == 2
    user.publish(moving(3, "v3", {"pause": "end"}))
    assert user.exits == ["v3"]


def test_such_a_run_obeys_its_exit_and_a_stop(simulate: Simulate) -> None:
    left, stopped = simulate(moving(1, "v1")), simulate(moving(1, "v1"))
    for user in (left, stopped):
        user.event("start")
        user.publish(moving(2, "v2", {"pause": "over"}))
    left.event("leave")
    stopped.control("moving", "stop")
    assert (left.exits, stopped.exits) == (["exit_on"], ["stopped"])


def test_a_run_with_too_many_timers_due_is_still_taken_over_by_a_new_version(simulate: Simulate) -> None:
    tick = Journey(
        name="tick", version=1, entry=on("start"), start="pause", steps={"pause": Delay(seconds(1), then="again"),
        "again": Delay(seconds(1), then="pause")},
    )  # fmt: skip
    user = simulate(tick)
    user.event("start")
    user.sleep(hours(1))
    moves = {"pause": "end", "again": "end"}
    user.publish(
        Journey(name="tick", version=2, entry=on("start"), start="end", steps={"end": Exit("moved")}, moves=moves)
    )
    assert user.exits == ["moved"]
