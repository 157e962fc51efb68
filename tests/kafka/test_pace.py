"""What a worker's waits and wake-ups are measured by: its own load, and the broker's clock."""

import pytest

from engine.runtime.kafka.pace import LONGEST_PAUSE_SECONDS, Pace
from engine.runtime.kafka.wake_ups import BrokerClock


class Load:
    """A process that takes a share of a core."""

    def __init__(self) -> None:
        self.now = self.cpu_seconds = 0.0
        self.pace = Pace(lambda: self.now, lambda: self.cpu_seconds)

    def pass_second(self, share: float) -> None:
        self.now += 1.0
        self.cpu_seconds += share


@pytest.mark.parametrize(
    ("share", "pause"),
    [(0.05, 0.0), (0.1, 0.0), (0.2, LONGEST_PAUSE_SECONDS / 2), (0.3, LONGEST_PAUSE_SECONDS), (2, 0.02)],
)
def test_the_busier_the_process_the_longer_a_short_batch_is_waited_for(share: float, pause: float) -> None:
    load = Load()
    load.pass_second(share)
    assert load.pace.pause_seconds(records=10, limit=1000) == pytest.approx(pause)


def test_a_backlog_and_an_empty_poll_are_not_kept_waiting() -> None:
    load = Load()
    load.pass_second(1.0)
    assert load.pace.pause_seconds(records=250, limit=1000) == 0
    assert load.pace.pause_seconds(records=0, limit=1000) == 0
    assert load.pace.pause_seconds(records=249, limit=1000) == LONGEST_PAUSE_SECONDS


def test_a_broker_whose_clock_differs_is_followed_from_the_first_append_on() -> None:
    here = 1_000_000
    clock = BrokerClock(lambda: here)
    assert clock.now_at() == 1_000_000
    clock.learn_append(700_000)
    assert clock.now_at() == 700_000
    here += 5_000
    assert clock.now_at() == 705_000


def test_an_old_record_does_not_set_the_clock_back_and_a_newer_one_sets_it_forward() -> None:
    clock = BrokerClock(lambda: 1_000_000)
    clock.learn_record(400_000)
    assert clock.now_at() == 1_000_000
    clock.learn_record(1_200_000)
    assert clock.now_at() == 1_200_000
