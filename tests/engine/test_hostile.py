"""Hostile lives and what must hold in them, as they ship: the examples stand them, and a broken promise is noticed."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace as changed

from engine import Budget, Cap, Delay, Exit, Journey, Policy, Send, always, days, hours, on
from engine.simulator import Simulate, SimulatedUser
from engine.simulator.acts import (
    Controls,
    Enters,
    Erases,
    Happens,
    Hears,
    History,
    LogsIn,
    OnDevice,
    Repeats,
    Sleeps,
    Waits,
    Wakes,
)
from engine.simulator.hostile import histories
from engine.simulator.invariants import check
from journeys.cart_abandonment import journey as carts
from journeys.welcome import journey as welcome
from journeys.win_back import journey as win_back

CAPPED = Policy(version=1, caps=(Cap(2, days(7)), Cap(1, days(1), channel="email")))
EXAMPLES = (carts, welcome, win_back, CAPPED)

LETTER = Journey(
    name="letter", version=1, entry=on("go"), reentry=always, exit_on=on("leave"), start="pause",
    steps={"pause": Delay(hours(1), then="send"), "send": Send("email", template="hello", then="end"), "end": Exit()},
)  # fmt: skip


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(histories(*EXAMPLES, later=[replace(carts, version=carts.version + 1), replace(CAPPED, version=2)]))
def test_the_examples_stand_whatever_happens_to_a_user(history: History) -> None:
    user = history.play(*EXAMPLES, settle=days(60))
    check(*user.simulation.people.values())


def test_what_is_hostile_does_come_and_messages_come_about_for_it_to_be_hostile_to() -> None:
    kinds: set[type] = set()
    sent = 0

    @settings(max_examples=60)
    @given(histories(*EXAMPLES))
    def live(history: History) -> None:
        nonlocal sent
        kinds.update(type(act) for act in history.acts)
        sent += len(history.play(*EXAMPLES, settle=days(30)).messages)

    live()
    assert kinds >= {Happens, Hears, Repeats, Sleeps, Waits, Wakes, Enters, Controls, Erases, OnDevice, LogsIn}
    assert sent >= 20


def test_who_is_asked_not_to_is_left_alone() -> None:
    drawn = histories(LETTER, erasure=False, operators=False, logins=False, most=6)

    @settings(max_examples=50)
    @given(drawn)
    def no_erasure(history: History) -> None:
        assert len(history.acts) <= 6
        assert not any(isinstance(act, Erases | Controls | OnDevice | LogsIn) for act in history.acts)

    no_erasure()


def happy(simulate: Simulate) -> SimulatedUser:
    user = simulate(LETTER, CAPPED)
    user.event("go")
    user.wait(hours(2))
    check(user)
    return user


def twice(user: SimulatedUser) -> None:
    user.messages.append(user.messages[0])


def early(user: SimulatedUser) -> None:
    at = next(index for index, entry in enumerate(user.journal) if (entry.kind, entry.step) == ("step", "send"))
    user.journal[at] = changed(user.journal[at], at=user.journal[at].at - 1)


def lost_in_a_merge(user: SimulatedUser) -> None:
    visitor = user.visitor()
    visitor.event("go")
    visitor.becomes(user)
    check(user, visitor)
    user.state = changed(user.state, runs=())


def lost(user: SimulatedUser) -> None:
    user.journal = [entry for entry in user.journal if entry.kind != "exited"]


def after_the_end(user: SimulatedUser) -> None:
    user.journal.append(user.journal[1])


def over_the_cap(user: SimulatedUser) -> None:
    last = next(folded for folded in user.log if folded.messages)
    last.messages.append(changed(last.messages[0], id="another"))


def refused(user: SimulatedUser) -> None:
    last = next(folded for folded in user.log if folded.messages)
    last.messages[0] = changed(last.messages[0], profile={"consent": {"marketing": False}})


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (twice, "was sent more than once"),
        (early, "stayed 3599999 ms at 'pause': wait 1 hour"),
        (lost, "began and not accounted for"),
        (lost_in_a_merge, "began and not accounted for"),
        (after_the_end, "had ended: step pause"),
        (over_the_cap, "beyond the cap of at most 1 email within 1 day"),
        (refused, "without consent"),
    ],
)
def test_a_promise_that_is_broken_is_noticed_and_told_with_the_users_story(
    simulate: Simulate, break_it: Callable[[SimulatedUser], None], said: str
) -> None:
    user = happy(simulate)
    break_it(user)
    with pytest.raises(AssertionError, match=said) as noticed:
        check(user)
    assert "letter pause" in str(noticed.value)


def test_a_budget_that_is_broken_is_noticed_over_all_users(simulate: Simulate) -> None:
    crowd = simulate.crowd(3, LETTER, Policy(version=1, budgets=(Budget("email", 2),)))
    crowd.event("go")
    crowd.wait(hours(2))
    assert crowd.sent == {"email:hello": 2}
    check(*crowd)
    folded = next(folded for folded in crowd[0].log if folded.messages)
    folded.messages.append(changed(folded.messages[0], id="another"))
    with pytest.raises(AssertionError, match="3 email were sent on 2026-01-05; the budget is 2"):
        check(*crowd)


def test_without_hypothesis_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import engine.simulator\n"  # needs none
        "try: import engine.simulator.hostile\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("run: pip install 'equeengage[testing]'"), done.stderr
