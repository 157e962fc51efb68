"""Turns are given at the pace that was set, in the order of asking, and no lane takes them all."""

from hypothesis import given
from hypothesis import strategies as st

from agents.channels.pacing import SLOW_SECONDS, Pace, Turn


class Asker:
    def __init__(self) -> None:
        self.told = 0

    def tell(self) -> None:
        self.told += 1


@given(st.floats(0.5, 5000), st.lists(st.floats(0, 0.3), max_size=50))
def test_never_more_begin_than_the_pace_allows(per_second: float, pauses: list[float]) -> None:
    now, begun, asker = 0.0, 0, Asker()
    pace = Pace(100_000, per_second, clock=lambda: now)
    for pause in pauses:
        now += pause
        while turn := pace.take(asker.tell):
            begun += 1
            pace.end(turn)
        assert begun <= max(1.0, per_second * 0.2) + now * per_second + 1e-6
        assert 0 <= pace.seconds_until_turn(asker.tell) <= 1 / per_second + 1e-9
    now += pace.seconds_until_turn(asker.tell) + 1e-9
    assert pace.take(asker.tell), "after the time that was named there is a turn"


def test_who_was_refused_first_goes_first() -> None:
    pace = Pace(1, 1000)
    first, second, third = Asker(), Asker(), Asker()
    turn = pace.take(first.tell)
    assert turn is not None
    assert pace.take(second.tell) is None
    assert pace.take(third.tell) is None
    pace.end(turn)
    assert (second.told, third.told) == (1, 0)
    assert pace.take(first.tell) is None, "it would go before those who wait"
    assert pace.take(third.tell) is None
    assert pace.take(second.tell) is not None
    pace.leave(third.tell)


def test_a_lane_has_at_most_half_and_is_clogged_when_its_calls_take_long() -> None:
    now, asker = 0.0, Asker()
    pace = Pace(4, 1000, clock=lambda: now)
    turns: list[Turn | None] = [pace.take(asker.tell, "slow") for _ in range(3)]
    assert [turn is not None for turn in turns] == [True, True, False]
    assert not pace.is_clogged("slow"), "busy, but not slow"
    pace.leave(asker.tell)
    assert pace.take(asker.tell, "other") is not None
    now += SLOW_SECONDS + 0.1
    assert pace.is_clogged("slow")
    assert not pace.is_clogged("other")
    assert turns[0] is not None
    pace.give_back(turns[0])
    assert not pace.is_clogged("slow")
    assert pace.take(asker.tell, "slow") is not None
    assert pace.taken == 3
