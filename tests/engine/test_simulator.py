"""What the fixture `simulate` promises to whoever tests a journey with it."""

from datetime import UTC, datetime, timedelta

import pytest

from engine import Delay, Exit, Journey, Send, WaitFor, always, days, hours, minutes, on, receipt
from engine.actor import earliest_due
from engine.simulator import BEGIN, Simulate, SimulatedUser

pytest_plugins = ["pytester"]

NUDGE = Journey(
    name="nudge",
    version=1,
    entry=on("start"),
    reentry=always,
    goal=on("order_placed", within=days(3), value="total"),
    start="pause",
    steps={
        "pause": Delay(hours(1), then="mail"),
        "mail": Send("email", template="hello", then="answer"),
        "answer": WaitFor(receipt("mail", "clicked"), timeout=days(1), then="done", on_timeout="silent"),
        "done": Exit(),
        "silent": Exit("silent"),
    },
)


def test_a_users_life_can_be_told_and_asked_about(simulate: Simulate) -> None:
    user: SimulatedUser = simulate(NUDGE, tier="gold")
    assert (user.now, user.step, user.sent, user.profile["tier"]) == (BEGIN, None, [], "gold")
    user.event("start", name="a property called name", items=2)
    assert user.runs[0].event == {"name": "a property called name", "items": 2}
    user.wait(hours(2))
    assert (user.now, user.step, user.sent) == (BEGIN + hours(2), "answer", ["email:hello"])
    user.event("order_placed", total=3)
    user.receipt("mail", "clicked")
    assert (user.trail, user.exits, user.goals) == (["pause", "mail", "answer", "done"], ["done"], ["nudge"])
    assert user.reasons("receipt") == ["clicked"]


def test_waiting_fires_every_timer_at_its_own_time_and_sleeping_fires_none(simulate: Simulate) -> None:
    user = simulate(NUDGE)
    user.event("start")
    user.sleep(minutes(90))
    assert (user.step, user.now) == ("pause", BEGIN + minutes(90))
    user.wait(timedelta(0))  # The worker is up again: what is overdue fires at once.
    assert (user.step, user.sent) == ("answer", ["email:hello"])
    assert user.runs[0].arrived_at == earliest_due(user.state) - 86_400_000  # type: ignore[operator]
    user.wait(days(1) - minutes(30))
    assert user.exits == ["silent"]


def test_a_user_is_reachable_everywhere_unless_the_profile_says_otherwise(simulate: Simulate) -> None:
    assert set(simulate().profile) == {"email", "phone", "push_token"}
    assert simulate(email=None, phone="+4912345").profile == {"phone": "+4912345", "push_token": "token"}


def test_a_user_begins_when_one_says(simulate: Simulate) -> None:
    at = datetime(2030, 2, 28, 23, 59, tzinfo=UTC)
    user = simulate(NUDGE, now=at, user_id="ann")
    user.wait(minutes(1))
    assert user.now == datetime(2030, 3, 1, tzinfo=UTC)
    assert user.user_id == "ann"


def test_two_users_have_nothing_to_do_with_each_other(simulate: Simulate) -> None:
    ann, bob = simulate(NUDGE), simulate(NUDGE)
    ann.event("start")
    assert (ann.step, bob.step) == ("pause", None)


def test_a_receipt_of_what_was_never_sent_is_a_mistake_in_the_test(simulate: Simulate) -> None:
    user = simulate(NUDGE)
    user.event("start")
    with pytest.raises(AssertionError, match="'mail' has sent nothing so far"):
        user.receipt("mail", "clicked")


def test_step_asks_for_a_single_run(simulate: Simulate) -> None:
    other = Journey(
        name="other",
        version=1,
        entry=on("start"),
        start="pause",
        steps={"pause": Delay(hours(1), then="end"), "end": Exit()},
    )
    user = simulate(NUDGE, other)
    user.event("start")
    with pytest.raises(AssertionError, match="2 runs are live; ask `runs`"):
        _ = user.step


def test_whoever_installs_equeengage_has_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from engine import Exit, Journey, Send, on

        welcome = Journey(
            name="welcome",
            version=1,
            entry=on("signed_up"),
            start="hello",
            steps={"hello": Send("email", template="hello", then="done"), "done": Exit()},
        )

        def test_a_new_user_is_greeted(simulate):
            user = simulate(welcome)
            user.event("signed_up")
            assert user.sent == ["email:hello"]
        """
    )
    pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider", "-p", "no:asyncio").assert_outcomes(passed=1)
