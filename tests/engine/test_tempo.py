"""That a journey played faster is the same journey."""

from datetime import timedelta

from hypothesis import given

from engine import after, days, hours, seconds
from engine.conditions import Goal
from engine.journey import After, Journey
from engine.simulator import simulate
from engine.steps import Delay, Send, WaitFor
from engine.tempo import sped_up
from journeys.cart_abandonment import journey as cart
from tests.engine.generated import journeys


def test_every_wait_is_divided_and_nothing_else_changes() -> None:
    fast = sped_up(cart, 3600)
    cooldown, answer, remind = fast.steps["cooldown"], fast.steps["answer"], fast.steps["remind"]
    assert isinstance(cooldown, Delay) and isinstance(answer, WaitFor) and isinstance(remind, Send)
    assert cooldown.duration == seconds(1)
    assert answer.timeout == seconds(24)
    assert remind.max_lateness == hours(24)
    assert fast.late_after == cart.late_after
    assert fast.reentry == after(days(7) / 3600)
    assert fast.goal is not None and cart.goal is not None
    assert fast.goal.within == days(3) / 3600
    assert next(fast.edges()) == next(cart.edges())
    assert [target for _, _, target in fast.edges()] == [target for _, _, target in cart.edges()]


@given(journeys())
def test_played_faster_and_slower_again_it_is_what_it_was(journey: Journey) -> None:
    back = sped_up(sped_up(journey, 60), 1 / 60)
    assert [type(step) for step in back.steps.values()] == [type(step) for step in journey.steps.values()]
    for before, now in zip(_durations(journey), _durations(back), strict=True):
        assert abs(before - now) < timedelta(milliseconds=1)


def _durations(journey: Journey) -> list[timedelta]:
    parts = [*journey.steps.values(), journey.reentry, journey.goal]
    found = []
    for part in parts:
        match part:
            case Delay() | After():
                found.append(part.duration)
            case WaitFor():
                found.append(part.timeout)
            case Goal():
                found.append(part.within)
            case _:
                pass
    return found


def test_a_fast_journey_takes_the_same_path_in_less_time() -> None:
    slow, fast = simulate(cart), simulate(sped_up(cart, 3600))
    for user, pause in ((slow, days(2)), (fast, days(2) / 3600)):
        user.event("cart_updated", items=1, cart_id="c1")
        user.wait(pause)
    assert fast.trail == slow.trail
    assert fast.sent == slow.sent
