"""When a journey has reached what it was for: once a run, with its worth, also after the run's end."""

from dataclasses import replace
from datetime import timedelta

import pytest

from engine import Delay, Exit, Journey, Send, WaitFor, always, days, hours, on, profile, receipt, where
from engine.conditions import Goal
from engine.goals import MAX_GOALS
from engine.simulator import Simulate, SimulatedUser

GOAL = on("order_placed", where("total", ">", 0), within=days(3), value="total")


def journey(goal: Goal = GOAL, key: str | None = None) -> Journey:
    """Sends one mail and is over after an hour."""
    return Journey(
        name="nudge",
        version=1,
        entry=on("start"),
        key=key,
        reentry=always,
        goal=goal,
        start="mail",
        steps={
            "mail": Send("email", template="nudge", then="pause"),
            "pause": Delay(hours(1), then="end"),
            "end": Exit(),
        },
    )


def reached(user: SimulatedUser) -> list[tuple[str, object]]:
    """The runs whose goal was reached, each with what that was worth."""
    return [(entry.run, entry.detail.get("value")) for entry in user.journal if entry.kind == "goal"]


def test_a_goal_is_reached_during_the_run(simulate: Simulate) -> None:
    user = simulate(journey())
    user.event("start")
    [run] = user.runs
    user.event("order_placed", total=42.5)
    assert reached(user) == [(run.id, 42.5)]
    assert user.step == "pause"  # A goal is counted; it ends nothing.


def test_a_goal_is_reached_after_the_runs_end_as_long_as_its_time_lasts(simulate: Simulate) -> None:
    user = simulate(journey())
    user.event("start")
    user.wait(days(3))
    assert user.exits == ["done"]
    user.event("order_placed", total=5)
    assert [worth for _, worth in reached(user)] == [5]


def test_a_goal_is_not_reached_when_its_time_is_over(simulate: Simulate) -> None:
    user = simulate(journey())
    user.event("start")
    user.wait(days(3) + timedelta(milliseconds=1))
    user.event("order_placed", total=5)
    assert reached(user) == []
    assert user.state.goals == ()


def test_a_goal_asks_for_its_whole_condition(simulate: Simulate) -> None:
    user = simulate(journey())
    user.event("start")
    user.event("order_placed", total=0)
    user.event("order_placed")
    assert reached(user) == []


def test_a_keyed_runs_goal_hears_only_events_with_its_key(simulate: Simulate) -> None:
    user = simulate(journey(key="cart_id"))
    user.event("start", cart_id="a")
    user.event("start", cart_id="b")
    runs = [run.id for run in user.runs]
    user.wait(days(1))
    user.event("order_placed", total=1)
    user.event("order_placed", total=2, cart_id="b")
    assert reached(user) == [(runs[1], 2)]
    user.event("order_placed", total=3, cart_id="a")
    assert reached(user) == [(runs[1], 2), (runs[0], 3)]


@pytest.mark.parametrize("worth", [True, None, "x" * 65, {"a": 1}, [1], 1 << 63])
def test_a_worth_that_is_no_number_nor_a_short_text_is_left_out_and_the_goal_counts(
    simulate: Simulate, worth: object
) -> None:
    user = simulate(journey(on("order_placed", within=days(3), value="total")))
    user.event("start")
    user.event("order_placed", total=worth)
    assert [value for _, value in reached(user)] == [None]


@pytest.mark.parametrize("worth", [0, -3, 12.5, "12.50", (1 << 63) - 1])
def test_a_worth_is_told_as_it_came(simulate: Simulate, worth: object) -> None:
    user = simulate(journey(on("order_placed", within=days(3), value="total")))
    user.event("start")
    user.event("order_placed", total=worth)
    assert [value for _, value in reached(user)] == [worth]


def test_a_goal_can_be_a_receipt_and_is_counted_when_that_comes(simulate: Simulate) -> None:
    user = simulate(journey(Goal(receipt("mail", "clicked"), days(3))))
    user.event("start")
    user.receipt("mail", "opened")
    assert user.goals == []
    user.receipt("mail", "clicked")
    assert user.goals == ["nudge"]
    user.event("anything")
    assert user.goals == ["nudge"]


def test_a_goal_counts_with_an_exit_on_the_same_event(simulate: Simulate) -> None:
    both = Journey(
        name="cart",
        version=1,
        entry=on("start"),
        exit_on=on("order_placed"),
        goal=on("order_placed", within=days(3)),
        start="pause",
        steps={"pause": Delay(hours(1), then="end"), "end": Exit()},
    )
    user = simulate(both)
    user.event("start")
    user.event("order_placed")
    assert (user.goals, user.exits) == (["cart"], ["exit_on"])


def test_a_timer_fires_before_the_goal_of_the_event_that_follows_is_counted(simulate: Simulate) -> None:
    user = simulate(journey())
    user.event("start")
    user.sleep(hours(2))
    user.event("order_placed", total=7)
    assert [entry.kind for entry in user.journal][-2:] == ["exited", "goal"]


def test_the_goal_of_the_version_that_a_run_began_with_counts(simulate: Simulate) -> None:
    user = simulate(journey())
    user.event("start")
    changed = Journey(
        name="nudge",
        version=2,
        entry=on("start"),
        goal=on("subscribed", within=days(3)),
        start="end",
        steps={"end": Exit()},
    )
    user.publish(changed)
    user.event("subscribed")
    assert user.goals == []
    user.event("order_placed", total=1)
    assert user.goals == ["nudge"]


def test_a_user_has_at_most_128_open_goals_the_oldest_is_forgotten(simulate: Simulate) -> None:
    user = simulate(journey(key="cart_id"))
    for number in range(MAX_GOALS + 10):
        user.event("start", cart_id=number)
        user.wait(hours(1) if number % 60 == 59 else timedelta(0))
    assert [goal.key for goal in user.state.goals] == [str(number) for number in range(10, MAX_GOALS + 10)]


def test_one_order_is_what_two_journeys_were_for_and_counts_for_both(simulate: Simulate) -> None:
    user = simulate(journey(), replace(journey(), name="offer"))
    user.event("start")
    user.event("order_placed", total=10)
    assert user.goals == ["nudge", "offer"]


def test_among_the_runs_of_one_journey_an_order_counts_once_for_the_one_that_began_last(simulate: Simulate) -> None:
    user = simulate(journey())
    runs = []
    for version in (1, 2):
        user.publish(replace(journey(), version=version))
        user.event("start")
        runs.append(user.runs[0].id)
        user.wait(hours(1))
    user.event("order_placed", total=10)
    assert reached(user) == [(runs[1], 10)]
    user.event("order_placed", total=20)
    assert reached(user) == [(runs[1], 10), (runs[0], 20)]
    user.event("order_placed", total=30)
    assert len(reached(user)) == 2


def test_a_goal_that_lies_in_the_profile_is_reached_by_a_run_with_a_key_too(simulate: Simulate) -> None:
    user = simulate(journey(Goal(profile("tier", "==", "gold"), days(3)), key="cart_id"))
    user.event("start", cart_id="a")
    user.event("start", cart_id="b")
    user.identify(tier="silver")
    assert user.goals == []
    user.identify(tier="gold")
    assert user.goals == ["nudge"]


def test_a_goal_is_open_while_its_run_is_suspended(simulate: Simulate) -> None:
    spinning = Journey(
        name="spinning",
        version=1,
        entry=on("start"),
        goal=on("order_placed", within=days(3)),
        start="mail",
        steps={
            "mail": Send("email", template="x", then="one"),
            "one": WaitFor(receipt("mail", "opened"), timeout=days(1), then="two", on_timeout="end"),
            "two": WaitFor(receipt("mail", "opened"), timeout=days(1), then="one", on_timeout="end"),
            "end": Exit(),
        },
    )
    user = simulate(spinning)
    user.event("start")
    user.receipt("mail", "opened")
    assert user.runs[0].suspended
    user.event("order_placed")
    assert user.goals == ["spinning"]
