"""A throttle lets so many a minute go on, over all users, evenly spread."""

import pytest

from engine import EntryCap, Exit, Journey, JourneyError, Send, Throttle, always, days, minutes, on, seconds
from engine.simulator import Simulate, SimulatedUser
from schemas.state import Quota

throttled = Journey(
    name="throttled",
    version=1,
    entry=on("go"),
    reentry=always,
    start="turn",
    steps={"turn": Throttle(6, then="send"), "send": Send("push", template="hi", then="end"), "end": Exit()},
)


def crowd(simulate: Simulate, journey: Journey, size: int) -> list[SimulatedUser]:
    shared: dict[str, Quota] = {}
    users = [simulate(journey, user_id=f"u{number}") for number in range(size)]
    for user in users:
        user.quotas = shared
    return users


def test_turns_are_spread_evenly_and_nothing_piles_up_at_the_full_minute(simulate: Simulate) -> None:
    users = crowd(simulate, throttled, 7)
    for user in users:
        user.event("go")
    for user in users:
        user.wait(minutes(2))
    begun = users[0].messages[0].requested_at
    assert [user.messages[0].requested_at - begun for user in users] == [10_000 * turn for turn in range(7)]


def test_whoever_comes_late_does_not_wait_for_turns_that_nobody_took(simulate: Simulate) -> None:
    first, second = crowd(simulate, throttled, 2)
    first.event("go")
    second.wait(minutes(5))
    second.event("go")
    assert second.sent == ["push:hi"]


def test_steps_of_one_name_share_their_turns(simulate: Simulate) -> None:
    def named(name: str) -> Journey:
        return Journey(
            name=name, version=1, entry=on("go"), start="turn",
            steps={
                "turn": Throttle(6, name="mails", then="send"),
                "send": Send("push", template=name, then="end"),
                "end": Exit(),
            },
        )  # fmt: skip

    user = simulate(named("a"), named("b"))
    user.event("go")
    assert user.sent == ["push:a"]
    user.wait(seconds(10))
    assert user.sent == ["push:a", "push:b"]


def test_a_wake_up_or_an_event_does_not_jump_the_queue(simulate: Simulate) -> None:
    first, second = crowd(simulate, throttled, 2)
    first.event("go")
    second.event("go")
    second.wake_up()
    second.event("go")
    assert second.sent == []


def test_an_entry_cap_lets_so_many_in_over_all_users_and_says_so_to_the_others(simulate: Simulate) -> None:
    capped = Journey(
        name="capped", version=1, entry=on("go"), reentry=always, entry_cap=EntryCap(2, days(1)), start="send",
        steps={"send": Send("push", template="hi", then="end"), "end": Exit()},
    )  # fmt: skip
    users = crowd(simulate, capped, 3)
    for user in users:
        user.event("go")
    assert [user.sent for user in users] == [["push:hi"], ["push:hi"], []]
    assert users[2].exits == ["the entry cap is reached"]
    users[2].wait(days(1.1))
    users[2].event("go")
    assert users[2].sent == ["push:hi"]


def test_a_turn_is_no_wait_that_a_loop_could_do_with() -> None:
    """Whose turn it is at once would go around as fast as turns are given, for ever."""
    again = Throttle(1_000_000, then="go")
    with pytest.raises(JourneyError, match="turn > go > turn is a loop without a wait"):
        Journey(
            name="spinning", version=1, entry=on("go"), start="turn",
            steps={"turn": again, "go": Send("push", template="hi", then="turn")},
        )  # fmt: skip
