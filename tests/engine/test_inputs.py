"""What one input does to a user's runs, and in which order."""

from dataclasses import replace

import pytest

from engine import (
    Branch,
    Delay,
    Exit,
    Journey,
    Send,
    WaitFor,
    always,
    any_of,
    days,
    did,
    hours,
    minutes,
    not_,
    on,
    profile,
    where,
)
from engine.conditions import Condition
from engine.errors import InvalidInput
from engine.events import MAX_CARRIED_BYTES, MAX_DEPTH, carried
from engine.profiles import MAX_ATTRIBUTES, encoded_size
from engine.simulator import BEGIN, Simulate
from schemas.inputs import Event, Resumed


def waiting_for(name: str, *cases: tuple[str, str], entry: str = "start", key: str | None = None) -> Journey:
    """A journey that waits a day for one of several events, each with an exit of its own."""
    return Journey(
        name=name,
        version=1,
        entry=on(entry),
        key=key,
        reentry=always,
        start="wait",
        steps={
            "wait": WaitFor([(on(event), step) for event, step in cases], timeout=days(1), on_timeout="silent"),
            **{step: Exit(step) for _, step in cases},
            "silent": Exit("silent"),
        },
    )


def test_every_run_gets_every_event_the_oldest_run_first(simulate: Simulate) -> None:
    user = simulate(
        waiting_for("a", ("go", "gone"), entry="third"),
        waiting_for("b", ("go", "gone"), entry="first"),
        waiting_for("c", ("go", "gone"), entry="second"),
    )
    for name in ("first", "second", "third", "go"):
        user.event(name)
    assert [entry.journey for entry in user.journal if entry.kind == "exited"] == ["b", "c", "a"]
    assert not user.runs


def test_a_keyed_run_hears_only_events_with_its_key(simulate: Simulate) -> None:
    user = simulate(waiting_for("carts", ("paid", "paid"), key="cart_id"))
    user.event("start", cart_id="one")
    user.event("start", cart_id="two")
    user.event("paid")
    user.event("paid", cart_id="three")
    assert [run.key for run in user.runs] == ["one", "two"]
    user.event("paid", cart_id="two")
    assert [run.key for run in user.runs] == ["one"]


@pytest.mark.parametrize(
    "awaited",
    [profile("tier", "==", "gold"), did("searched", at_least=2), any_of(on("x"), profile("tier", "==", "gold"))],
)
def test_what_an_event_changes_about_the_user_every_run_sees_whatever_its_key(
    simulate: Simulate, awaited: Condition
) -> None:
    wait = WaitFor(awaited, timeout=days(1), then="end", on_timeout="silent")
    user = simulate(
        Journey(
            name="carts", version=1, entry=on("start"), key="cart_id", start="wait",
            steps={"wait": wait, "end": Exit(), "silent": Exit("silent")},
        )
    )  # fmt: skip
    user.event("start", cart_id="one")
    user.event("searched", cart_id="another")
    user.identify(tier="silver")
    assert user.step == "wait"
    user.event("searched", cart_id="another")
    user.identify(tier="gold")
    assert user.exits == ["done"]


def test_an_exit_on_the_profile_ends_runs_of_every_key(simulate: Simulate) -> None:
    journey = replace(waiting_for("carts", ("paid", "paid"), key="cart_id"), exit_on=profile("plan", "==", "none"))
    user = simulate(journey)
    user.event("start", cart_id="one")
    user.event("start", cart_id="two")
    user.identify(plan="none")
    assert user.exits == ["exit_on", "exit_on"]


def test_a_key_is_a_text_or_a_whole_number_and_lies_as_deep_as_its_path_says(simulate: Simulate) -> None:
    user = simulate(waiting_for("carts", ("paid", "paid"), key="cart.id"))
    for odd in ({"id": True}, {"id": None}, {"id": 1.5}, {"id": ""}, {"id": ["1"]}, {}):
        user.event("start", cart=odd)
    user.event("start")
    assert not user.runs
    assert user.reasons("not_entered") == ["the event has no cart.id"] * 7
    user.event("start", cart={"id": 7})
    assert [run.key for run in user.runs] == ["7"]
    user.event("paid", cart={"id": "7"})
    assert user.exits == ["paid"]


def test_a_run_never_sees_the_input_that_created_it(simulate: Simulate) -> None:
    user = simulate(waiting_for("echo", ("start", "again")))
    user.event("start")
    assert user.step == "wait"
    user.event("start")
    assert user.exits == ["again"]


def test_a_run_does_not_exit_on_the_event_that_began_it(simulate: Simulate) -> None:
    journey = Journey(
        name="echo",
        version=1,
        entry=on("start"),
        exit_on=on("start"),
        goal=on("start", within=days(1)),
        start="wait",
        steps={"wait": Delay(hours(1), then="end"), "end": Exit()},
    )
    user = simulate(journey)
    user.event("start")
    assert (user.step, user.exits, user.goals) == ("wait", [], [])


def test_a_run_that_ended_on_an_event_leaves_room_for_one_that_the_same_event_begins(simulate: Simulate) -> None:
    user = simulate(waiting_for("echo", ("start", "again")))
    user.event("start")
    user.event("start")
    user.event("start")
    assert user.exits == ["again", "again"]
    assert len(user.runs) == 1
    assert len({entry.run for entry in user.journal if entry.kind == "entered"}) == 3


def test_an_exit_is_checked_before_the_step_sees_the_event(simulate: Simulate) -> None:
    journey = Journey(
        name="both",
        version=1,
        entry=on("start"),
        exit_on=on("bought"),
        start="wait",
        steps={
            "wait": WaitFor(on("bought"), timeout=days(1), then="thanks", on_timeout="end"),
            "thanks": Send("email", template="thanks", then="end"),
            "end": Exit(),
        },
    )
    user = simulate(journey)
    user.event("start")
    user.event("bought")
    assert (user.exits, user.sent, user.trail) == (["exit_on"], [], ["wait"])


def test_an_exit_holds_wherever_the_run_is(simulate: Simulate) -> None:
    journey = Journey(
        name="leaving",
        version=1,
        entry=on("start"),
        exit_on=on("bought", where("total", ">=", 10)),
        start="pause",
        steps={"pause": Delay(days(1), then="send"), "send": Send("email", template="x", then="end"), "end": Exit()},
    )
    user = simulate(journey)
    user.event("start")
    user.event("bought", total=9)
    assert user.step == "pause"
    user.event("bought", total=10)
    user.wait(days(2))
    assert (user.exits, user.sent) == (["exit_on"], [])


def test_an_exit_on_the_profile_ends_the_run_at_the_input_that_changes_it(simulate: Simulate) -> None:
    journey = Journey(
        name="prospects",
        version=1,
        entry=on("start"),
        exit_on=profile("plan", "==", "paid"),
        start="pause",
        steps={"pause": Delay(days(1), then="send"), "send": Send("email", template="x", then="end"), "end": Exit()},
    )
    user = simulate(journey)
    user.event("start")
    user.identify(plan="paid")
    assert user.exits == ["exit_on"]


def test_an_exit_that_holds_already_is_obeyed_at_the_latest_when_the_wait_is_over(simulate: Simulate) -> None:
    """Nobody is heard from in between, so no event would let the run see its exit."""
    journey = Journey(
        name="prospects",
        version=1,
        entry=on("start"),
        exit_on=profile("plan", "==", "paid"),
        start="pause",
        steps={"pause": Delay(days(1), then="send"), "send": Send("email", template="x", then="end"), "end": Exit()},
    )
    user = simulate(journey, plan="paid")
    user.event("start")
    user.wait(days(1))
    assert (user.exits, user.sent) == (["exit_on"], [])


def test_of_several_matches_the_first_in_written_order_wins(simulate: Simulate) -> None:
    journey = Journey(
        name="order",
        version=1,
        entry=on("start"),
        start="wait",
        steps={
            "wait": WaitFor(
                [(on("paid", where("total", ">", 100)), "large"), (on("paid"), "small"), (on("paid"), "never")],
                timeout=days(1),
                on_timeout="silent",
            ),
            "large": Branch([(where("vip", "==", True), "vip"), (where("vip", "exists"), "other")], otherwise="other"),
            "small": Exit("small"),
            "never": Exit("never"),
            "silent": Exit("silent"),
            "vip": Exit("vip"),
            "other": Exit("other"),
        },
    )
    small, large = simulate(journey), simulate(journey)
    small.event("start")
    small.event("paid", total=100)
    assert small.exits == ["small"]
    large.event("start", vip=True)
    large.event("paid", total=101, vip=False)  # A branch asks about the event that began the run.
    assert large.exits == ["vip"]


def test_a_wait_counts_an_event_of_the_very_same_millisecond(simulate: Simulate) -> None:
    user = simulate(waiting_for("quick", ("go", "gone")))
    user.event("start")
    user.event("go")
    assert user.exits == ["gone"]


def test_an_event_before_the_arrival_does_not_count_for_a_wait(simulate: Simulate) -> None:
    user = simulate(waiting_for("late", ("go", "gone")))
    user.event("go")
    user.event("start")
    assert user.step == "wait"


def test_an_event_that_comes_after_the_arrival_counts_whenever_it_occurred(simulate: Simulate) -> None:
    user = simulate(waiting_for("late", ("go", "gone")))
    user.event("start")
    user.event("go", occurred=BEGIN - days(300))
    assert user.exits == ["gone"]


def test_a_wait_for_a_condition_is_over_when_the_profile_comes_to_fulfil_it(simulate: Simulate) -> None:
    journey = Journey(
        name="upgrade",
        version=1,
        entry=on("start"),
        start="wait",
        steps={
            "wait": WaitFor(profile("plan", "==", "paid"), timeout=days(1), then="paid", on_timeout="free"),
            "paid": Exit("paid"),
            "free": Exit("free"),
        },
    )
    waits, has_it = simulate(journey), simulate(journey, plan="paid")
    waits.event("start")
    waits.identify(name="Ann")
    assert waits.step == "wait"
    waits.identify(plan="paid")
    assert waits.exits == ["paid"]
    has_it.event("start")
    assert has_it.exits == ["paid"]


def test_the_event_at_hand_already_sees_the_profile_it_brings(simulate: Simulate) -> None:
    journey = Journey(
        name="gold",
        version=1,
        entry=on("signed_up", profile("tier", "==", "gold")),
        start="end",
        steps={"end": Exit()},
    )
    user = simulate(journey)
    user.give(Event("m1", "signed_up", user.now_ms, {}, {"tier": "gold"}))
    assert user.exits == ["done"]
    assert user.profile["tier"] == "gold"


def test_identify_sets_attributes_keeps_the_others_and_removes_those_that_are_null(simulate: Simulate) -> None:
    user = simulate(tier="gold", city="Lyon")
    user.identify(tier=None, plan="paid")
    assert "tier" not in user.profile
    assert (user.profile["city"], user.profile["plan"]) == ("Lyon", "paid")


def test_a_profile_that_would_outgrow_its_limits_makes_the_event_invalid_and_changes_nothing(
    simulate: Simulate,
) -> None:
    user = simulate()
    before = user.state
    with pytest.raises(InvalidInput, match=r"would have 600 attributes; 512 is the limit"):
        user.identify(**{f"a{number}": number for number in range(597)})
    with pytest.raises(InvalidInput, match=r"the profile would take \d+ bytes; 65536 is the limit"):
        user.identify(essay="x" * 70_000)
    with pytest.raises(InvalidInput, match="a number beyond 64 bits"):
        user.identify(huge=1 << 64)
    assert user.state is before
    user.identify(**{f"a{number}": number for number in range(MAX_ATTRIBUTES - 3)})
    assert len(user.profile) == MAX_ATTRIBUTES


def nested(levels: int) -> object:
    value: object = "the bottom"
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


def test_an_event_that_nests_deeper_than_a_state_can_be_read_back_is_invalid(simulate: Simulate) -> None:
    user = simulate(waiting_for("deep", ("go", "gone")))
    for properties, attributes in (({"a": nested(MAX_DEPTH)}, {}), ({}, {"a": [1, nested(900)]})):
        with pytest.raises(InvalidInput, match="nests deeper than 64 levels"):
            user.give(Event("m1", "start", user.now_ms, properties, attributes))
    user.give(Event("m1", "start", user.now_ms, {"a": nested(MAX_DEPTH - 1)}))
    assert user.runs[0].event == {"a": nested(MAX_DEPTH - 1)}


def test_an_event_without_an_id_or_a_name_or_with_an_endless_one_is_invalid(simulate: Simulate) -> None:
    user = simulate()
    for id, name in (("", "start"), ("m1", ""), ("m" * 257, "start"), ("m1", "s" * 257)):
        with pytest.raises(InvalidInput, match="an id and a name, each of 1 to 256 characters"):
            user.give(Event(id, name, user.now_ms))


def test_a_run_keeps_of_its_event_what_fits_into_two_kilobytes(simulate: Simulate) -> None:
    user = simulate(waiting_for("large", ("go", "gone")))
    user.event("start", first="a" * 500, essay="x" * 5_000, number=1 << 70, last="z" * 500)
    assert user.runs[0].event == {"first": "a" * 500, "last": "z" * 500}


def test_what_is_carried_never_takes_more_than_its_limit() -> None:
    for count in (1, 2, 15, 16, 17, 300):
        kept = carried({f"property_{number}": "x" * (4000 // count) for number in range(count)})
        size = encoded_size(kept)
        assert size is not None and size <= MAX_CARRIED_BYTES


def test_an_input_that_changes_nothing_gives_back_the_very_same_user(simulate: Simulate) -> None:
    user = simulate(waiting_for("calm", ("go", "gone")))
    user.event("start")
    handled = user.give(Resumed("no such run"))
    assert handled.user is user.state
    assert not (handled.messages or handled.journal)


def test_every_entry_of_the_journal_names_the_input_that_caused_it(simulate: Simulate) -> None:
    user = simulate(waiting_for("told", ("go", "gone")))
    user.event("start", message_id="m1")
    user.wait(minutes(5))
    user.event("go", message_id="m2")
    assert [(entry.kind, entry.cause) for entry in user.journal] == [
        ("entered", "event start #m1"),
        ("step", "event start #m1"),
        ("step", "event go #m2"),
        ("exited", "event go #m2"),
    ]
    user.event("start")
    user.wait(days(1))
    assert user.journal[-1].cause == "timer"


def test_a_run_never_ends_silently(simulate: Simulate) -> None:
    user = simulate(waiting_for("told", ("go", "gone")))
    for _ in range(3):
        user.event("start")
        user.wait(days(2))
    entered = [entry.run for entry in user.journal if entry.kind == "entered"]
    assert [entry.run for entry in user.journal if entry.kind == "exited"] == entered
    assert user.exits == ["silent"] * 3


def test_waiting_for_the_opposite_of_something_is_over_at_once(simulate: Simulate) -> None:
    journey = Journey(
        name="opposite",
        version=1,
        entry=on("start"),
        start="wait",
        steps={
            "wait": WaitFor(not_(profile("paused", "==", True)), timeout=days(1), then="go", on_timeout="end"),
            "go": Exit("go"),
            "end": Exit(),
        },
    )
    paused, running = simulate(journey, paused=True), simulate(journey)
    paused.event("start")
    assert paused.step == "wait"
    paused.identify(paused=None)
    assert paused.exits == ["go"]
    running.event("start")
    assert running.exits == ["go"]
