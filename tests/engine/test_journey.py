"""What a journey refuses when it is made, and in which words."""

from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from engine import (
    Branch,
    Cohorts,
    Delay,
    Exit,
    Journey,
    JourneyError,
    Send,
    WaitFor,
    all_of,
    any_of,
    days,
    hours,
    not_,
    on,
    profile,
    receipt,
    where,
)
from tests.engine.generated import seeds

DONE = {"done": Exit()}


def made(**changes: Any) -> Journey:
    given: dict[str, Any] = {"name": "cart", "version": 3, "entry": on("cart_updated"), "start": "done", "steps": DONE}
    return Journey(**{**given, **changes})


def refusal(**changes: Any) -> str:
    with pytest.raises(JourneyError) as error:
        made(**changes)
    return str(error.value)


def test_a_step_that_leads_nowhere_names_the_nearest_right_name() -> None:
    steps = {
        "answer": WaitFor(on("replied"), timeout=days(1), then="done", on_timeout="ofer"),
        "offer": Send("email", template="offer", then="done"),
        **DONE,
    }
    assert refusal(start="answer", steps=steps) == (
        "cart v3: 'answer' leads to 'ofer' (none in 1 day), which is not a step; did you mean 'offer'?"
    )


def test_where_no_name_is_near_all_are_named() -> None:
    steps = {"pause": Delay(hours(1), then="xyz"), **DONE}
    assert refusal(start="pause", steps=steps) == (
        "cart v3: 'pause' leads to 'xyz' (after 1 hour), which is not a step; the steps are pause, done"
    )


def test_a_start_that_is_not_a_step_is_refused() -> None:
    assert refusal(start="dine") == (
        "cart v3: it starts at 'dine' (cart_updated), which is not a step; did you mean 'done'?"
    )


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (Branch([(profile("tier", "==", "gold"), "gone")], otherwise="done"), "(profile.tier == 'gold')"),
        (Branch([(profile("tier", "==", "gold"), "done")], otherwise="gone"), "(otherwise)"),
        (Cohorts({"gone": 1, "done": 3}), "(25%)"),
        (Send("email", template="x", then="gone"), "(sent)"),
        (Send("email", template="x", then="gone", on_failed="done"), "(accepted)"),
        (Send("email", template="x", then="done", on_failed="gone"), "(failed)"),
        (Send("email", template="x", then="done", on_blocked="gone"), "(blocked)"),
        (WaitFor(on("a"), timeout=days(1), then="gone", on_timeout="done"), "(a)"),
        (WaitFor([(on("a"), "done"), (on("b"), "gone")], timeout=days(1), on_timeout="done"), "(b)"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_way_out_of_every_kind_of_step_is_checked(step: object, told: str) -> None:
    assert refusal(start="first", steps={"first": step, **DONE}) == (
        f"cart v3: 'first' leads to 'gone' {told}, which is not a step; did you mean 'done'?"
    )


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        ("exit_on", {"exit_on": receipt("remid", "opened")}),
        ("goal", {"goal": on("order_placed", receipt("remid", "opened"), within=days(1))}),
        ("entry", {"entry": on("cart_updated", not_(receipt("remid", "opened")))}),
    ],
)
def test_a_receipt_of_what_does_not_send_is_refused_wherever_it_stands(place: str, changes: dict[str, Any]) -> None:
    steps = {"remind": Send("email", template="x", then="done"), **DONE}
    assert refusal(start="remind", steps=steps, **changes) == (
        f"cart v3: {place} asks for a receipt of 'remid', which is not a step that sends; did you mean 'remind'?"
    )


def test_a_receipt_of_a_step_of_another_kind_is_refused() -> None:
    steps = {"wait": WaitFor(receipt("done", "opened"), timeout=days(1), then="done", on_timeout="done"), **DONE}
    assert refusal(start="wait", steps=steps) == (
        "cart v3: 'wait' asks for a receipt of 'done', which is not a step that sends; did you mean 'done'?"
    )


@pytest.mark.parametrize(
    "entry", [profile("x", "exists"), all_of(), not_(on("a")), any_of(on("a"), where("x", "==", 1))]
)
def test_an_entry_needs_an_event(entry: Any) -> None:
    assert refusal(entry=entry) == f"cart v3: entry `{entry}` names no event; begin it with on(...)"


def test_an_entry_that_can_never_hold_is_refused() -> None:
    assert refusal(entry=any_of()) == "cart v3: entry `never` names no event; begin it with on(...)"


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        (where("x", "in", "gold"), "has `x in 'gold'`: 'in' needs a list of values, such as ['gold']"),
        (profile("x", ">", None), "has `profile.x > None`: '>' needs a number or a text to compare with"),
        (where("x", "<=", True), "has `x <= True`: '<=' needs a number or a text to compare with"),
        (where("x", "<", [1]), "has `x < [1]`: '<' needs a number or a text to compare with"),
        (where("x", "==", [1, 2]), "has `x == [1, 2]`: to compare with several values write 'in', [1, 2]"),
        (where("x", "exists", 0), "has `x is present`: 'exists' takes True, False or nothing, not 0"),
    ],
)
def test_a_comparison_that_could_never_hold_is_refused(condition: Any, told: str) -> None:
    assert refusal(exit_on=not_(any_of(on("b", condition)))) == f"cart v3: exit_on {told}"
    steps = {"choice": Branch([(condition, "done")], otherwise="done"), **DONE}
    assert refusal(start="choice", steps=steps) == f"cart v3: 'choice' {told}"


# Loops


def test_a_loop_without_a_wait_is_refused_and_shown() -> None:
    steps = {
        "ask": Send("email", template="x", then="choice"),
        "choice": Branch([(profile("vip", "==", True), "done")], otherwise="ask"),
        **DONE,
    }
    assert refusal(start="ask", steps=steps) == (
        "cart v3: ask > choice > ask is a loop without a wait; put a Delay or a WaitFor into it"
    )


def test_a_step_that_leads_to_itself_is_a_loop() -> None:
    steps = {"again": Send("email", template="x", then="again")}
    assert refusal(start="again", steps=steps) == (
        "cart v3: again > again is a loop without a wait; put a Delay or a WaitFor into it"
    )


def test_a_loop_with_a_wait_in_it_is_a_habit() -> None:
    made(start="news", steps={"news": Send("email", template="x", then="week"), "week": Delay(days(7), then="news")})
    again = WaitFor(on("order_placed"), timeout=days(30), then="again", on_timeout="done")
    made(start="again", steps={"again": again, **DONE})


def test_a_send_that_waits_for_its_provider_does_not_wait_when_it_is_blocked() -> None:
    """Somebody without an address would go round for ever."""
    steps = {
        "one": Send("email", template="x", then="two", on_failed="done"),
        "two": Send("sms", template="x", then="one", on_failed="done"),
        **DONE,
    }
    assert refusal(start="one", steps=steps).startswith("cart v3: one > two > one is a loop without a wait")
    made(
        start="one",
        steps={
            "one": Send("email", template="x", then="two", on_failed="done", on_blocked="done"),
            "two": Send("sms", template="x", then="one", on_failed="done", on_blocked="done"),
            **DONE,
        },
    )
    made(start="retry", steps={"retry": Send("email", template="x", then="done", on_failed="retry"), **DONE})


@given(seeds)
def test_exactly_the_tables_that_could_loop_without_waiting_are_refused(seed: int) -> None:
    dice = Random(seed)
    names = [f"s{number}" for number in range(dice.randint(1, 7))]
    steps: dict[str, Any] = {}
    for name in names:
        one, other = dice.choice([*names, "end"]), dice.choice([*names, "end"])
        steps[name] = dice.choice(
            [
                Branch([(profile("x", "exists"), one)], otherwise=other),
                Cohorts({one: 1, other: 1}),
                Send("email", template="x", then=one, on_blocked=other),
                Send("email", template="x", then=one, on_failed=other),
                Delay(hours(1), then=one),
                WaitFor(on("a"), timeout=hours(1), then=one, on_timeout=other),
            ]
        )
    steps["end"] = Exit()
    try:
        made(start=names[0], steps=steps)
        refused = ""
    except JourneyError as error:
        refused = str(error)
    assert bool(refused) is _can_loop(steps)
    if refused:
        told = refused.removeprefix("cart v3: ").partition(" is a loop")[0].split(" > ")
        assert told[0] == told[-1]
        assert all(after in _ways(steps[before]) for before, after in pairwise(told))


def _ways(step: Any) -> set[str]:
    """Where a run may go on to at once, said in the simplest way."""
    match step:
        case Branch():
            return {step.otherwise, *(target for _, target in step.cases)}
        case Cohorts():
            return set(step.weights)
        case Send(on_failed=None):
            return {step.then, step.on_blocked or step.then}
        case Send():
            return {step.on_blocked or step.then}
        case _:
            return set()


def _can_loop(steps: dict[str, Any]) -> bool:
    """Naively: can a step be reached from itself?"""
    reach = {name: _ways(step) for name, step in steps.items()}
    for _ in steps:
        reach = {name: ways.union(*(reach[way] for way in ways)) for name, ways in reach.items()}
    return any(name in ways for name, ways in reach.items())


def test_a_thousand_steps_in_diamonds_are_checked_at_once() -> None:
    """2**333 ways lead through this table; a check that walked them all would never return."""
    steps: dict[str, Any] = {}
    for number in range(333):
        steps[f"top{number}"] = Branch([(profile("x", "exists"), f"left{number}")], otherwise=f"right{number}")
        for side in ("left", "right"):
            steps[f"{side}{number}"] = Send("email", template="x", then=f"top{number + 1}")
    made(start="top0", steps={**steps, "top333": Exit()})
    assert "is a loop without a wait" in refusal(
        start="top0", steps={**steps, "top333": Branch([(profile("x", "exists"), "top0")], otherwise="left1")}
    )


def test_a_very_long_chain_is_no_recursion() -> None:
    steps: dict[str, Any] = {f"s{number}": Send("email", template="x", then=f"s{number + 1}") for number in range(999)}
    made(start="s0", steps={**steps, "s999": Exit()})


# Fields


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Cart"},
        {"name": ""},
        {"name": "x" * 65},
        {"version": 0},
        {"version": 1_000_000},
        {"steps": {}},
        {"steps": {"Done": Exit()}},
        {"key": ""},
        {"late_after": timedelta(0)},
        {"description": "x" * 2001},
        {"entery": on("a")},
    ],
    ids=repr,
)
def test_fields_are_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        made(**changes)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Delay(timedelta(0), then="done"),
        lambda: Delay(hours(-1), then="done"),
        lambda: WaitFor(on("a"), timeout=timedelta(0), then="done", on_timeout="done"),
        lambda: WaitFor(on("a"), timeout=days(1), on_timeout="done"),
        lambda: WaitFor([(on("a"), "done")], timeout=days(1), then="done", on_timeout="done"),
        lambda: WaitFor([], timeout=days(1), on_timeout="done"),
        lambda: Branch([], otherwise="done"),
        lambda: Cohorts({}),
        lambda: Cohorts({"done": 0}),
        lambda: Cohorts({"done": float("nan")}),
        lambda: Cohorts({"done": float("inf")}),
        lambda: Send([], template="x", then="done"),
        lambda: Send("E-Mail", template="x", then="done"),
        lambda: Send("email", template="../x", then="done"),
        lambda: Send("email", template="x", then="done", on_fail="done"),  # type: ignore[call-arg]
        lambda: where("x", "=", 1),  # type: ignore[arg-type]
        lambda: on("", where("x", "exists")),
        lambda: on("a", within=timedelta(0)),
        lambda: receipt("x", "read"),  # type: ignore[arg-type]
    ],
)
def test_steps_and_conditions_are_checked_when_they_are_made(make: Any) -> None:
    with pytest.raises(ValidationError):
        make()


def test_a_journey_tells_its_edges_its_templates_and_its_conditions_in_the_order_of_the_table() -> None:
    journey = made(
        start="remind",
        exit_on=on("order_placed"),
        goal=on("order_placed", within=days(3)),
        steps={
            "remind": Send("email", template="reminder", then="answer"),
            "answer": WaitFor(receipt("remind", "clicked"), timeout=days(1), then="done", on_timeout="last"),
            "last": Send(["push", "email"], template="reminder", then="bye"),
            "bye": Send("email", template="bye", then="done"),
            **DONE,
        },
    )
    assert list(journey.edges()) == [
        ("[*]", "cart_updated", "remind"),
        ("remind", "sent", "answer"),
        ("answer", "remind clicked", "done"),
        ("answer", "none in 1 day", "last"),
        ("last", "sent", "bye"),
        ("bye", "sent", "done"),
    ]
    assert journey.template_names() == ["reminder", "bye"]
    assert [place for place, _ in journey.conditions()] == ["entry", "exit_on", "goal", "'answer'"]
    assert journey.label == "cart v3"
    assert journey.entry_names == {"cart_updated"}


def test_steps_say_in_a_few_words_what_a_run_does_there() -> None:
    steps: list[Any] = [
        Delay(hours(36), then="done"),
        WaitFor(on("a"), timeout=days(1), then="done", on_timeout="done"),
        WaitFor([(on("a"), "done"), (receipt("x", "opened"), "done")], timeout=days(7), on_timeout="done"),
        Branch([(on("a"), "done")], otherwise="done"),
        Cohorts({"done": 1}),
        Send(["push", "email"], template="hello", then="done"),
        Exit(),
    ]
    assert [step.describe() for step in steps] == [
        "wait 1 day 12 hours",
        "wait up to 1 day for a",
        "wait up to 1 week for a or x opened",
        "decide",
        "split at random",
        "push or email: hello",
        "leave",
    ]
