"""That a backtest gives each version what production would have given it, and tells their differences right."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as with_fields

from engine import (
    Cap,
    Delay,
    Emit,
    Exit,
    Journey,
    JourneyError,
    Policy,
    Send,
    Throttle,
    WaitFor,
    always,
    days,
    hours,
    minutes,
    on,
    receipt,
    where,
)
from engine.backtest import DAY_MS, Backtest, Lane, Version, World
from engine.comparison import Comparison, compare, difference_between, merged
from engine.reactions import ACCEPTED_MS, DELIVERED_MS, Reactions
from engine.simulator import SimulatedUser
from schemas.inputs import Event
from schemas.outputs import JournalEntry, Message
from schemas.state import User
from tests.engine.generated import BEGIN, HOUR, KINDS, seeds, some_happening, some_journey

EMAIL = {"email": "ada@example.com"}
DAY = 20_454 * DAY_MS  # midnight, 1 January 2026


def reminder(version: int = 1, **changes: Any) -> Journey:
    journey = Journey(
        name="reminder", version=version, entry=on("cart_updated", where("items", ">", 0)), reentry=always,
        exit_on=on("closed"), goal=on("order_placed", within=days(3), value="total"), start="pause",
        steps={
            "pause": Delay(hours(1), then="remind"),
            "remind": Send("email", template="cart_reminder", then="answer"),
            "answer": WaitFor(receipt("remind", "opened"), timeout=days(2), then="end", on_timeout="again"),
            "again": Send("email", template="last_call", then="end"),
            "end": Exit(),
        },
    )  # fmt: skip
    return replace(journey, **changes)


def event(id: str, name: str, at: int, **properties: Any) -> Event:
    return Event(id, name, at, properties)


def played(old: Journey, new: Journey, *records: tuple[str, Event], until_at: int | None = None) -> Comparison:
    backtest = Backtest(Version(old), Version(new), World(profile=EMAIL))
    for user, input in records:
        backtest.give(user, input, input.occurred_at)
    for _ in backtest.finish(until_at):
        pass
    return compare(backtest, {"email": 0.5})


def test_timers_fire_on_the_way_at_their_own_time_and_run_on_to_the_horizon() -> None:
    records = [("ada", event("m1", "cart_updated", DAY, items=1)), ("ada", event("m2", "page", DAY + 30 * DAY_MS))]
    result = played(reminder(), reminder(2), *records, until_at=DAY + 31 * DAY_MS)
    assert result.old.templates == {
        "email:cart_reminder": 1,
        "email:last_call": 1,
    }  # None too late, although unheard for days.
    assert result.old.messages_per_day == {"email": {"2026-01-01": 1, "2026-01-03": 1}}
    assert result.old.exits == {"done": 1}
    assert (result.until_at, result.last_at) == ("2026-02-01T00:00:00Z", "2026-01-31T00:00:00Z")


def test_without_a_horizon_time_ends_with_the_last_record_of_anybody() -> None:
    records = [("ada", event("m1", "cart_updated", DAY, items=1)), ("ben", event("m2", "page", DAY + 2 * HOUR))]
    result = played(reminder(), reminder(2), *records)
    assert result.old.templates == {"email:cart_reminder": 1}
    assert result.old.still_in == 1


def test_goals_count_once_with_their_value_and_a_text_is_a_number_where_it_is_one() -> None:
    records = [
        ("ada", event("m1", "cart_updated", DAY, items=1)),
        ("ada", event("m2", "order_placed", DAY + HOUR, total="12.50")),
        ("ada", event("m3", "order_placed", DAY + 2 * HOUR, total=99)),
        ("ben", event("m4", "cart_updated", DAY, items=1)),
        ("ben", event("m5", "order_placed", DAY + HOUR, total="a lot")),
        ("cy", event("m6", "cart_updated", DAY, items=1)),
        ("cy", event("m7", "order_placed", DAY + 4 * DAY_MS, total=1)),
    ]
    result = played(reminder(), reminder(2), *records)
    assert (result.old.goals, result.old.goal_value) == (2, 12.5)
    assert result.old.goal_rate == pytest.approx(2 / 3)
    assert result.old.goals_per_day == {"2026-01-01": 2}


def test_what_is_kept_back_and_what_does_not_enter_is_counted_by_reason() -> None:
    backtest = Backtest(Version(reminder()), Version(reminder(2)))
    backtest.give("ada", event("m1", "cart_updated", DAY, items=1), DAY)
    backtest.give("ada", event("m2", "cart_updated", DAY, items=2), DAY + 1)
    backtest.give("ben", event("m3", "cart_updated", DAY - 4 * DAY_MS, items=2), DAY)
    list(backtest.finish(DAY + 10 * DAY_MS))
    outcome = compare(backtest).new
    assert outcome.not_entered == {"already in it": 1, "the event came too late": 1}
    assert outcome.blocked == {"no address for email": 2}
    assert (outcome.sent, outcome.cost) == (0, 0)


def test_the_cost_is_by_the_channels_prices() -> None:
    result = played(
        reminder(), reminder(2), ("ada", event("m1", "cart_updated", DAY, items=1)), until_at=DAY + 9 * DAY_MS
    )
    assert (result.old.sent, result.old.cost) == (2, 1.0)


def test_records_out_of_order_are_late_and_counted() -> None:
    records = [("ada", event("m1", "page", DAY + 5 * DAY_MS)), ("ada", event("m2", "cart_updated", DAY, items=1))]
    result = played(reminder(), reminder(2), *records)
    assert (result.disordered, result.furthest_back_seconds) == (1, 5 * 86_400)
    assert result.old.not_entered == {"the event came too late": 1}


def test_users_of_whom_one_is_recorded_after_the_other_each_have_their_own_time() -> None:
    records = [
        ("ada", event("m1", "cart_updated", DAY + 9 * DAY_MS, items=1)),
        ("ben", event("m2", "cart_updated", DAY, items=1)),
    ]
    result = played(reminder(), reminder(2), *records, until_at=DAY + 20 * DAY_MS)
    assert result.disordered == 0
    assert result.old.entered_per_day == {"2026-01-01": 1, "2026-01-10": 1}


SAME = reminder()
CALM = reminder(2, start="again")


@pytest.mark.parametrize(
    ("new", "kind"),
    [
        (reminder(2), None),
        (reminder(2, entry=on("cart_updated", where("items", ">", 5))), "only_old"),
        (reminder(2, start="again"), "fewer"),
        (reminder(2, steps={**SAME.steps, "pause": Delay(hours(2), then="remind")}), "times"),
        (
            reminder(2, steps={**SAME.steps, "again": Send("email", template="farewell", then="end")}), "others",
        ),
        (reminder(2, goal=on("order_placed", within=minutes(1))), "goal_only_old"),
        (reminder(2, steps={**SAME.steps, "end": Exit("over")}), "ends"),
    ],
)  # fmt: skip
def test_a_user_is_told_apart_by_what_matters_most(new: Journey, kind: str | None) -> None:
    records = [
        ("ada", event("m1", "cart_updated", DAY, items=1)),
        ("ada", event("m2", "order_placed", DAY + HOUR // 2, total=1)),
    ]
    result = played(SAME, new, *records, until_at=DAY + 9 * DAY_MS)
    assert [difference.kind for difference in result.differences] == ([kind] if kind else [])
    assert result.differing_users == (1 if kind else 0)
    back = played(new, SAME, *records, until_at=DAY + 9 * DAY_MS)
    opposite = {"only_old": "only_new", "fewer": "more", "goal_only_old": "goal_only_new"}
    assert [difference.kind for difference in back.differences] == ([opposite.get(kind, kind)] if kind else [])


def test_the_example_is_the_user_with_the_shortest_story() -> None:
    records = [("busy", event(f"m{n}", "cart_updated", DAY + n * DAY_MS * 9, items=1)) for n in range(3)]
    records += [("calm", event("m9", "cart_updated", DAY, items=1))]
    result = played(SAME, CALM, *records, until_at=DAY + 90 * DAY_MS)
    assert [(each.users, each.example) for each in result.differences] == [(2, "calm")]


def test_throttles_let_everybody_go_on_at_once_and_what_a_step_emits_comes_back() -> None:
    journey = Journey(
        name="chained", version=1, entry=on("begin"), start="turn",
        steps={
            "turn": Throttle(1, then="tell"),
            "tell": Emit("told", then="answer"),
            "answer": WaitFor(on("told"), timeout=days(1), then="heard", on_timeout="deaf"),
            "heard": Exit("heard"), "deaf": Exit("deaf"),
        },
    )  # fmt: skip
    result = played(journey, journey, *((f"u{n}", event(f"m{n}", "begin", DAY)) for n in range(50)))
    assert result.old.exits == {"heard": 50}


def test_a_journey_that_feeds_itself_without_end_is_refused_with_its_name() -> None:
    journey = Journey(
        name="echo", version=1, entry=on("shout"), reentry=always, start="again",
        steps={"again": Emit("shout", then="end"), "end": Exit()},
    )  # fmt: skip
    with pytest.raises(JourneyError, match="echo v1: for 'ada' more than 1000 inputs"):
        played(journey, journey, ("ada", event("m1", "shout", DAY)))


def message(number: int = 1) -> Message:
    return Message(
        f"r:{number}", "default", f"u{number}", "email", "a@example.com", "hello@abc", "j", 1, "s", "r", DAY, DAY
    )  # fmt: skip


def test_shares_of_messages_are_opened_clicked_and_bounce() -> None:
    heard = [Reactions(0.3, 0.1, 0.05).to(message(n), 1) for n in range(4000)]
    statuses = [[receipt.status for _, receipt in each] for each in heard]
    assert sum("bounced" in each for each in statuses) == pytest.approx(200, rel=0.2)
    assert sum("opened" in each for each in statuses) == pytest.approx(1140, rel=0.1)
    assert sum("clicked" in each for each in statuses) == pytest.approx(380, rel=0.2)
    for each, told in zip(heard, statuses, strict=True):
        assert [at for at, _ in each] == sorted(at for at, _ in each)
        assert each[0][0] == DAY + ACCEPTED_MS and each[1][0] == DAY + DELIVERED_MS
        assert "opened" in told or "clicked" not in told
        assert ("bounced" in told) is not ("delivered" in told)


def test_who_opens_a_message_opens_it_in_either_version() -> None:
    ours, theirs = message(), with_fields(message(), id="other:3", journey="j2", version=7, requested_at=DAY + 999)
    half = Reactions(0.5)
    for nth in range(1, 50):
        assert [r.status for _, r in half.to(ours, nth)] == [r.status for _, r in half.to(theirs, nth)]


@pytest.mark.parametrize(
    ("shares", "complaint"),
    [((1.5, 0.0, 0.0), "opens is a share"), ((0.0, 0.1, 0.0), "clicks .0.1. are a part"), ((0, 0, -1), "bounces is a")],
)
def test_shares_that_cannot_be_are_refused(shares: tuple[float, float, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Reactions(*shares)


UNTHROTTLED = tuple(kind for kind in KINDS if kind != "throttle")


@given(seeds, st.lists(seeds, min_size=1, max_size=12))
def test_a_lane_does_with_a_user_what_the_simulator_does(seed: int, drawn: list[int]) -> None:
    """The simulator takes the receipts that the lane's people gave, at the same times, and comes to the same journal."""
    journey = replace(
        some_journey(Random(seed), kinds=UNTHROTTLED), entry_cap=None
    )  # whose quotas are asked in vain here
    told: list[JournalEntry] = []
    lane = Lane(Version(journey), World("t", Reactions(0.6, 0.3, 0.1), EMAIL), told.append)
    lane_inputs: list[tuple[Any, int]] = []
    fold = lane._fold

    def folding(person: Any, input: Any, now: int) -> None:
        lane_inputs.append((input, now))
        fold(person, input, now)

    lane._fold = folding  # type: ignore[method-assign]
    now = BEGIN
    for number, each in enumerate(drawn):
        happening = some_happening(Random(each), number)
        now += happening.pause
        if happening.event is not None:
            lane.give("u", happening.event, now)
    lane.pass_time("u", now + 400 * HOUR)

    user = SimulatedUser(journey, user_id="u", tenant="t")
    user.state = User(profile=dict(EMAIL))
    for input, at in lane_inputs:
        user.now_ms = at
        user.give(input)
    assert [entry for entry in user.journal if entry.journey == journey.name] == told


def greeting(name: str, entry: str, priority: int = 0) -> Journey:
    return Journey(
        name=name, version=1, entry=on(entry), reentry=always, priority=priority, start="send",
        steps={"send": Send("email", template=name, then="end"), "end": Exit()},
    )  # fmt: skip


def several(*journeys: Journey, policy: Policy, name: str = "all of it") -> Version:
    return Version(journeys[0], (policy,), journeys[1:], name)


def test_journeys_that_compete_for_one_cap_are_played_together_and_each_is_counted() -> None:
    """The newcomer takes the cap's only place where it has the higher priority; alone, it would have harmed nobody."""
    policy = Policy(version=1, caps=(Cap(1, days(7)),))
    tips, offer = greeting("tips", "visited"), greeting("offer", "visited", priority=5)
    backtest = Backtest(
        several(tips, greeting("thanks", "bought"), policy=policy),
        several(tips, greeting("thanks", "bought"), offer, policy=policy),
        World(profile=EMAIL),
    )
    for number, user in enumerate(("ada", "ben")):
        backtest.give(user, event(f"m{number}", "visited", DAY), DAY)
    backtest.give("cy", event("m2", "bought", DAY), DAY)
    list(backtest.finish())
    result = compare(backtest)
    assert (result.old.journey, result.old.entered, result.new.entered) == ("all of it", 3, 5)
    assert result.old.templates == {"email:tips": 2, "email:thanks": 1}
    assert result.new.templates == {"email:offer": 2, "email:thanks": 1}
    counts = {"entered": 2, "messages": 0, "blocked": 2, "goals": 0}
    assert result.new.by_journey == {
        "offer": {**counts, "messages": 2, "blocked": 0},
        "thanks": {"entered": 1, "messages": 1, "blocked": 0, "goals": 0},
        "tips": counts,
    }
    assert [(each.kind, each.users) for each in result.differences] == [("others", 2)]


def test_parts_of_a_backtest_of_several_journeys_add_up() -> None:
    policy = Policy(version=1, caps=(Cap(1, days(7)),))
    side = several(greeting("tips", "visited"), greeting("offer", "visited"), policy=policy)

    def part(*users: str) -> Comparison:
        backtest = Backtest(side, side, World(profile=EMAIL))
        backtest.notice(DAY)
        for user in users:
            backtest.give(user, event(f"of {user}", "visited", DAY), DAY)
        list(backtest.finish())
        return compare(backtest)

    assert merged([part("ada"), part(), part("ben", "cy")]) == part("ada", "ben", "cy")


@given(seeds, st.lists(seeds, min_size=1, max_size=12))
def test_a_version_against_itself_differs_for_nobody(seed: int, drawn: list[int]) -> None:
    journey = some_journey(Random(seed))
    backtest = Backtest(Version(journey), Version(replace(journey, version=2)), World("t", Reactions(0.5, 0.5), EMAIL))
    now = BEGIN
    for number, each in enumerate(drawn):
        happening = some_happening(Random(each), number)
        now += happening.pause
        if happening.event is not None:
            backtest.give(f"u{each % 3}", happening.event, now)
    list(backtest.finish(now + 100 * HOUR))
    result = compare(backtest)
    assert result.differences == []
    assert with_fields(result.old, journey="") == with_fields(result.new, journey="")
    for user_id, person in backtest.old.people.items():
        assert difference_between(person, backtest.new.person(user_id)) is None
