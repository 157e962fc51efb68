"""What users did before: counts, sums and first times over windows, lookbacks, and waits that time alone ends."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine import Exit, Journey, Send, WaitFor, always, days, did, hours, not_, on, profile, where
from engine.conditions import Condition, Facts, On
from engine.history import MAX_TRACKS, Tracker, note, trackers_of
from engine.simulator import Simulate
from engine.steps import Branch
from schemas.state import Track


def asks(condition: Condition) -> Journey:
    return Journey(
        name="asks", version=1, entry=on("ask"), reentry=always, start="ask",
        steps={"ask": Branch([(condition, "yes")], otherwise="no"), "yes": Exit("yes"), "no": Exit("no")},
    )  # fmt: skip


def test_three_orders_within_thirty_days(simulate: Simulate) -> None:
    user = simulate(asks(did("order", at_least=3, within=days(30))))
    for pause in (0, 10, 15):
        user.wait(days(pause))
        user.event("ask")
        user.event("order")
    user.event("ask")
    user.wait(days(5) + timedelta(milliseconds=1))  # the first order is thirty days and a millisecond old
    user.event("ask")
    assert user.exits == ["no", "no", "no", "yes", "no"]


def test_the_event_at_hand_counts_so_the_third_order_begins_a_journey(simulate: Simulate) -> None:
    loyal = Journey(
        name="loyal", version=1, entry=on("order", did("order", at_least=3)), start="thanks",
        steps={"thanks": Send("push", template="thanks", then="end"), "end": Exit()},
    )  # fmt: skip
    user = simulate(loyal)
    for _ in range(2):
        user.event("order")
    assert user.sent == []
    user.event("order")
    assert user.sent == ["push:thanks"]


def test_never_and_at_most(simulate: Simulate) -> None:
    user = simulate(asks(did("order", at_most=0)))
    user.event("ask")
    user.event("order")
    user.event("ask")
    assert user.exits == ["yes", "no"]


def test_a_sum_over_a_window_counts_only_what_matches(simulate: Simulate) -> None:
    spent = did(on("order", where("currency", "==", "EUR")), total="amount", total_at_least=100, within=days(7))
    user = simulate(asks(spent))
    for currency, amount in (("EUR", 60), ("USD", 500), ("EUR", 39.5), ("EUR", "lots")):
        user.event("order", currency=currency, amount=amount)
    user.event("ask")
    user.event("order", currency="EUR", amount=0.5)
    user.event("ask")
    assert user.exits == ["no", "yes"]


def test_the_first_time_lies_within(simulate: Simulate) -> None:
    user = simulate(asks(did("login", first=True, within=days(7))))
    user.event("login")
    user.event("ask")
    user.wait(days(8))
    user.event("login")
    user.event("ask")
    assert user.exits == ["yes", "no"]


def test_late_events_count_when_they_occurred(simulate: Simulate) -> None:
    user = simulate(asks(did("order", at_least=1, within=days(7))))
    user.event("order", occurred=datetime(2025, 12, 1, tzinfo=UTC))
    user.event("ask")
    user.event("order", occurred=datetime(2030, 1, 1, tzinfo=UTC))  # from the future: clamped to now
    user.event("ask")
    user.wait(days(8))
    user.event("ask")
    assert user.exits == ["no", "yes", "no"]


def test_duplicates_count_once(simulate: Simulate) -> None:
    user = simulate(asks(did("order", at_least=2)))
    user.event("order", message_id="m1")
    user.event("order", message_id="m1")
    user.event("ask")
    assert user.exits == ["no"]


def test_a_wait_for_silence_ends_by_a_timer_exactly_when_the_window_is_empty(simulate: Simulate) -> None:
    silent = Journey(
        name="silent", version=1, entry=on("login"), start="wait",
        steps={
            "wait": WaitFor(not_(did("login", within=days(7))), timeout=days(90), then="miss", on_timeout="end"),
            "miss": Send("push", template="miss", then="end"),
            "end": Exit(),
        },
    )  # fmt: skip
    user = simulate(silent)
    begun = user.now_ms
    user.event("login")
    user.wait(days(3))
    user.event("login")
    user.wait(days(60))
    assert user.sent == ["push:miss"]
    assert user.messages[0].requested_at == begun + 10 * 86_400_000 + 1


def test_a_wait_for_a_date_that_comes_near_ends_by_a_timer_also_when_the_date_moves(simulate: Simulate) -> None:
    ending = Journey(
        name="ending", version=1, entry=on("go"), start="wait",
        steps={
            "wait": WaitFor(profile("ends", "within_next", days(3)), timeout=days(90), then="warn", on_timeout="end"),
            "warn": Send("push", template="warn", then="end"),
            "end": Exit(),
        },
    )  # fmt: skip
    user = simulate(ending, ends="2026-01-20T00:00:00+00:00")
    user.event("go")
    user.identify(ends="2026-02-20T00:00:00+00:00")
    user.wait(days(20))
    assert user.sent == []
    user.wait(days(40))
    assert user.messages[0].requested_at == int(datetime(2026, 2, 17, tzinfo=UTC).timestamp() * 1000)


def waits(lookback: timedelta | None) -> Journey:
    return Journey(
        name="waits", version=1, entry=on("go"), reentry=always, start="wait",
        steps={
            "wait": WaitFor(
                on("paid", where("total", ">", 10)), timeout=hours(1), lookback=lookback, then="yes", on_timeout="no"
            ),
            "yes": Exit("yes"),
            "no": Exit("no"),
        },
    )  # fmt: skip


def test_without_lookback_only_what_comes_after_the_arrival_counts(simulate: Simulate) -> None:
    user = simulate(waits(None))
    user.event("paid", total=20)
    user.event("go")
    user.wait(hours(1))
    user.event("go")
    user.event(
        "paid",
        total=20,
    )
    assert user.exits == ["no", "yes"]


def test_with_lookback_what_occurred_shortly_before_counts_too(simulate: Simulate) -> None:
    user = simulate(waits(hours(2)))
    user.event("paid", total=5)
    user.event("go")
    user.wait(hours(1))
    user.event("paid", total=20)
    user.wait(hours(1))
    user.event("go")
    user.wait(hours(2))
    user.event("go")
    user.wait(hours(1))
    assert user.exits == ["no", "yes", "no"]


def test_a_run_never_sees_the_input_that_created_it_not_even_looking_back(simulate: Simulate) -> None:
    again = Journey(
        name="again", version=1, entry=on("order"), start="wait",
        steps={
            "wait": WaitFor(on("order"), timeout=days(1), lookback=days(1), then="twice", on_timeout="once"),
            "twice": Exit("twice"),
            "once": Exit("once"),
        },
    )  # fmt: skip
    user = simulate(again)
    user.event("order")
    assert user.exits == []
    user.wait(days(1))
    assert user.exits == ["once"]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=40), st.integers(1, 4), st.integers(1, 20))
def test_what_is_kept_is_enough_to_judge_exactly(happened: list[tuple[int, int]], least: int, window: int) -> None:
    condition = did("x", at_least=least, within=timedelta(seconds=window))
    tracker = Tracker(trackers_of(asks(condition))[0].id, On("x"), None, condition.keep, window * 1000)
    history: dict[str, Track] = {}
    told: list[int] = []
    now = 0
    for pause, late in happened:
        now += pause * 1000
        at = max(0, now - late * 1000)
        history = note(history, [tracker], Facts({}, "x", {}, history=history, now=now), at)
        told.append(at)
        expected = sum(at >= now - window * 1000 for at in told) >= least
        assert condition.holds(Facts({}, history=history, now=now)) is expected
    assert all(len(track.recent) <= least for track in history.values())


def test_a_state_holds_a_bounded_number_of_tracks() -> None:
    history: dict[str, Track] = {}
    for number in range(MAX_TRACKS + 10):
        tracker = Tracker(f"t{number}", On("x"), None, 1, 1000)
        history = note(history, [tracker], Facts({}, "x", {}, now=1), 1)
    assert len(history) == MAX_TRACKS


@pytest.mark.parametrize(
    "wrong", [{"total": "x"}, {"total_at_least": 5}, {"first": True}, {"at_least": 0}, {"at_most": 300}]
)
def test_a_question_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        did("x", **wrong)  # type: ignore[arg-type]
