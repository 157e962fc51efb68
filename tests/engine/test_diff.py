"""That a difference names all that is different, in words, and nothing that isn't."""

from dataclasses import replace
from datetime import time, timedelta
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given

from engine import (
    EXIT,
    AtMost,
    Branch,
    Call,
    Cohorts,
    Delay,
    DelayUntil,
    Emit,
    Enter,
    EntryCap,
    Exit,
    Journey,
    Send,
    Throttle,
    Update,
    WaitFor,
    after,
    all_of,
    days,
    hours,
    on,
    profile,
    receipt,
    value,
    where,
)
from engine.diff import Change, compare, fates
from engine.renaming import with_new_names
from engine.simulator import Simulate
from engine.steps import AnyStep
from tests.engine.generated import seeds, some_journey

OLD = Journey(
    name="cart",
    version=3,
    entry=on("cart_updated", where("items", ">", 0)),
    start="cooldown",
    reentry=after(days(7)),
    exit_on=on("order_placed"),
    steps={
        "cooldown": Delay(hours(1), then="remind"),
        "remind": Send("email", template="cart_reminder", then="answer"),
        "answer": WaitFor(receipt("remind", "clicked"), timeout=days(1), then="done", on_timeout="tier"),
        "tier": Branch([(profile("tier", "==", "gold"), "gold")], otherwise="experiment"),
        "gold": Send("email", template="gold_offer", then="done"),
        "experiment": Cohorts({"discount": 50, "control": 50}),
        "discount": Send("email", template="ten_percent", then="done"),
        "control": Exit("control group"),
        "done": Exit(),
    },
)


GOLD = profile("tier", "==", "gold")
CLICKED = receipt("remind", "clicked")


def changed(**steps: Any) -> Journey:
    """Return version 4 with other steps; a step given as None is gone."""
    merged = {name: step for name, step in {**OLD.steps, **steps}.items() if step is not None}
    return replace(OLD, version=4, steps=merged)


def told(new: Journey, old: Journey = OLD) -> list[str]:
    difference = compare(old, new)
    return [f"{change.kind} {change.place}: {change.words}" for change in [*difference.rules, *difference.steps]]


@pytest.mark.parametrize(
    ("rule", "given", "expected"),
    [
        ("entry", on("cart_updated", where("items", ">", 1)), "asks `items > 1` instead of `items > 0`"),
        ("entry", on("cart_updated", where("items", ">", 0), GOLD), "now also asks `profile.tier == 'gold'`"),
        ("entry", on("cart_updated"), "no longer asks `items > 0`"),
        ("entry", on("cart_filled"), "`cart_filled` instead of `cart_updated and items > 0`"),
        ("reentry", after(days(14)), "`again after 2 weeks` instead of `again after 1 week`"),
        ("exit_on", None, "`order_placed` is gone"),
        ("goal", on("order_placed", within=days(3)), "`order_placed within 3 days` is new"),
        ("key", "cart_id", "'cart_id' is new"),
        ("start", "remind", "'remind' instead of 'cooldown'"),
        ("late_after", hours(5), "5 hours instead of 3 days"),
        ("holdout", 5, "5 instead of 0"),
        ("at_most", AtMost(3, days(7)), "3 messages within 1 week is new"),
        ("entry_cap", EntryCap(100, days(1)), "100 entries within 1 day is new"),
        ("moves", {"gold": EXIT}, "'gold' is new: 'exit'"),
        ("description", "Carts.", "has other words"),
    ],
)
def test_a_rule_that_is_different(rule: str, given: Any, expected: str) -> None:
    assert told(replace(OLD, version=4, **{rule: given})) == [f"changed {rule}: {expected}"]


@pytest.mark.parametrize(
    ("step", "given", "expected"),
    [
        ("cooldown", Delay(hours(2), then="remind"), ["duration: 2 hours instead of 1 hour"]),
        ("cooldown", Delay(hours(1), then="answer"), ["then leads to 'answer' instead of 'remind'"]),
        (
            "remind",
            Send(["push", "email"], template="cart_reminder", then="answer"),
            ["channel: 'push', 'email' instead of 'email'"],
        ),
        (
            "remind",
            Send("email", template="cart_reminder", then="answer", on_blocked="done"),
            ["on_blocked: 'done' is new"],
        ),
        (
            "remind",
            Send("email", template="cart_reminder", then="answer", transactional=True),
            ["transactional: yes instead of no"],
        ),
        (
            "answer",
            WaitFor([(CLICKED, "done"), (on("a"), "gold")], timeout=days(1), on_timeout="tier"),
            ["`a` leads to 'gold': a new case"],
        ),
        ("answer", WaitFor([(CLICKED, "done")], timeout=days(1), on_timeout="tier"), []),
        (
            "answer",
            WaitFor(on("a"), timeout=days(2), then="done", on_timeout="tier"),
            [
                "`a` leads to 'done': a new case",
                "`remind clicked` no longer leads to 'done'",
                "timeout: 2 days instead of 1 day",
            ],
        ),
        (
            "tier",
            Branch([(GOLD, "done")], otherwise="experiment"),
            ["`profile.tier == 'gold'` leads to 'done' instead of 'gold'"],
        ),
        ("experiment", Cohorts({"discount": 60, "control": 50}), ["weights: 'discount' is 60 instead of 50"]),
        (
            "experiment",
            Cohorts({"control": 50, "discount": 50}),
            ["weights: in another order, so that users fall elsewhere"],
        ),
        ("experiment", Cohorts({"discount": 50, "control": 50}, salt="x"), ["salt: 'x' is new"]),
        ("control", Exit("held out"), ["reason: 'held out' instead of 'control group'"]),
        ("control", Delay(hours(1), then="done"), ["wait 1 hour, instead of leave"]),
    ],
)
def test_a_step_that_is_different(step: str, given: Any, expected: list[str]) -> None:
    assert told(changed(**{step: given})) == [f"changed {step}: {words}" for words in expected]


def test_the_order_of_cases_is_part_of_their_meaning() -> None:
    gold, old_hand = GOLD, profile("orders", ">", 9)
    before = changed(tier=Branch([(gold, "gold"), (old_hand, "discount")], otherwise="experiment"))
    after_ = changed(tier=Branch([(old_hand, "discount"), (gold, "gold")], otherwise="experiment"))
    assert told(after_, before) == [
        "changed tier: its cases are asked in another order: `profile.orders > 9`, `profile.tier == 'gold'`"
    ]


def test_dates_clocks_and_values_are_told_in_words() -> None:
    before = changed(
        cooldown=DelayUntil(date=value("profile.due"), offset=-days(3), at=time(9), if_past="exit", then="remind")
    )
    after_ = changed(
        cooldown=DelayUntil(date=value("profile.due"), offset=-days(1), at=time(18), if_past="exit", then="remind")
    )
    assert told(after_, before) == [
        "changed cooldown: at: 18:00 instead of 09:00",
        "changed cooldown: offset: -1 day instead of -3 days",
    ]
    before = changed(cooldown=Update({"stage": "new", "cart": value("event.cart_id")}, then="remind"))
    after_ = changed(cooldown=Update({"stage": "old", "cart": value("event.id", default="none")}, then="remind"))
    assert told(after_, before) == [
        "changed cooldown: profile: 'stage' is 'old' instead of 'new'",
        "changed cooldown: profile: 'cart' is `event.id or 'none'` instead of `event.cart_id`",
    ]


def test_a_step_that_comes_and_one_that_goes() -> None:
    new = changed(
        control=None,
        experiment=None,
        discount=None,
        sms=Send("sms", template="offer", then="done"),
        tier=Branch([(GOLD, "gold")], otherwise="sms"),
    )
    assert told(new) == [
        "changed tier: otherwise leads to 'sms' instead of 'experiment'",
        "added sms: sms: offer",
        "removed experiment: split at random",
        "removed discount: email: ten_percent",
        "removed control: leave",
    ]


def test_a_step_with_a_new_name_is_no_new_step(simulate: Simulate) -> None:
    new = changed(
        experiment=None,
        trial=OLD.steps["experiment"],
        tier=Branch([(GOLD, "gold")], otherwise="trial"),
    )
    assert compare(OLD, new).renamed == {"experiment": "trial"}
    assert told(new) == ["renamed trial: was called 'experiment' (who falls where is drawn anew: the name is the salt)"]
    ways = set()
    for number in range(40):
        for journey in (OLD, new):
            user = simulate(journey, user_id=f"u{number}")
            user.event("cart_updated", items=1)
            user.wait(days(2))
            ways.add((number, "control group" in user.exits))
    assert len(ways) > 40  # the words are true: some users fall elsewhere


def test_a_renamed_step_may_change_nothing_else() -> None:
    new = changed(gold=None, gold_mail=OLD.steps["gold"], tier=Branch([(GOLD, "gold_mail")], otherwise="experiment"))
    assert told(new) == ["renamed gold_mail: was called 'gold'"]
    other = changed(
        gold=None,
        gold_mail=Send("sms", template="gold_offer", then="done"),
        tier=Branch([(GOLD, "gold_mail")], otherwise="experiment"),
    )
    assert told(other)[-2:] == ["added gold_mail: sms: gold_offer", "removed gold: email: gold_offer"]


@pytest.mark.parametrize(
    "step",
    [
        Delay(hours(1), then="a"),
        DelayUntil(date=value("profile.x"), then="a", if_past="b", if_missing="c"),
        WaitFor(on("x"), then="a", timeout=hours(1), on_timeout="b"),
        WaitFor([(on("x"), "a"), (on("y"), "b")], timeout=hours(1), on_timeout="c"),
        Throttle(5, then="a"),
        Branch([(profile("x", "==", 1), "a")], otherwise="b"),
        Cohorts({"a": 1, "b": 2}),
        Send("email", template="a", then="a", on_blocked="b", on_failed="c"),
        Call("https://example.com", then="a", on_failed="b"),
        Update({"a": "a"}, then="a"),
        Emit("a", then="a"),
        Enter("a", then="a"),
    ],
    ids=lambda step: step.kind,
)
def test_every_kind_of_step_is_read_with_new_names(step: Any) -> None:
    ends = {"a": Exit(), "b": Exit(), "c": Exit()}
    before = replace(OLD, start="step", steps={"step": step, **ends}, exit_on=None)
    names = {"a": "other_a", "b": "other_b", "c": "other_c"}
    read = with_new_names(before, names)
    assert {target for _, target in read.steps["step"].edges()} == {names[target] for _, target in step.edges()}
    assert getattr(read.steps["step"], "template", "a") == "a"


def test_no_kind_of_step_was_left_out() -> None:
    kinds = {each.__name__ for each in get_args(get_args(AnyStep)[0])}
    parameters = test_every_kind_of_step_is_read_with_new_names.pytestmark[0].args[1]
    assert kinds == {type(step).__name__ for step in parameters} | {"Exit"}


def test_moves_say_which_step_is_which() -> None:
    one, two = Send("email", template="x", then="done"), Send("email", template="x", then="done")
    new = replace(
        changed(
            gold=None,
            this=replace(one, template="gold_offer"),
            that=replace(two, template="gold_offer"),
            tier=Branch([(GOLD, "this"), (on_gold := profile("x", "==", 1), "that")], otherwise="experiment"),
        ),
        moves={"gold": "that"},
    )
    assert str(on_gold) == "profile.x == 1"
    assert compare(OLD, new).renamed == {"gold": "that"}


def test_ways_that_are_new_gone_or_taken_otherwise() -> None:
    new = changed(answer=WaitFor(receipt("remind", "opened"), timeout=days(2), then="done", on_timeout="tier"))
    edges = {(source, label, target): kind for source, label, target, kind in compare(OLD, new).edges()}
    assert {edge: kind for edge, kind in edges.items() if kind} == {
        ("answer", "remind opened", "done"): "changed",
        ("answer", "none in 2 days", "tier"): "changed",
    }
    gone = compare(OLD, changed(tier=Branch([(profile("x", "==", 1), "done")], otherwise="experiment"), gold=None))
    assert [edge for edge in gone.edges() if edge[3]] == [
        ("tier", "profile.x == 1", "done", "added"),
        ("tier", "profile.tier == 'gold'", "gold", "removed"),
        ("gold", "sent", "done", "removed"),
    ]


def test_texts_are_compared_part_by_part() -> None:
    before = {"cart_reminder": {"subject": "Your cart", "html": "<p>\nHello\n</p>"}, "gold_offer": {"text": "x"}}
    after_ = {"cart_reminder": {"subject": "Your cart", "html": "<p>\nHi\n</p>"}, "gold_offer": {"text": "x"}}
    difference = compare(OLD, OLD, before, after_)
    (text,) = difference.texts
    assert (text.template, text.part) == ("cart_reminder", "html")
    assert text.lines == ("@@ -1,3 +1,3 @@", " <p>", "-Hello", "+Hi", " </p>")
    assert difference.needs_version
    assert not compare(OLD, OLD, before, before).needs_version
    assert not compare(OLD, OLD, None, after_).texts


def test_what_becomes_of_everybody(simulate: Simulate) -> None:
    new = replace(
        changed(
            answer=Delay(days(2), then="tier"),
            gold=None,
            tier=Branch([(profile("x", "==", 1), "done")], otherwise="experiment"),
        ),
        moves={"answer": "answer", "cooldown": EXIT},
    )
    counts = {(3, "answer"): 12, (3, "remind"): 1, (2, "answer"): 30, (3, "cooldown"): 5, (4, "answer"): 99}
    assert [
        (fate.runs, fate.version, fate.step, fate.state, fate.words) for fate in fates(compare(OLD, new), counts)
    ] == [
        (30, 2, "answer", "", "move to 'answer' of v4"),
        (12, 3, "answer", "is changed", "move to 'answer' of v4"),
        (5, 3, "cooldown", "is as it was", "leave when v4 is activated"),
        (1, 3, "remind", "is as it was", "finish on v3"),
    ]
    waiting, cooling = simulate(OLD), simulate(OLD)
    for user in (waiting, cooling):
        user.event("cart_updated", items=1)
    waiting.wait(hours(2))
    for user in (waiting, cooling):
        user.publish(new)
    assert (waiting.runs[0].version, waiting.runs[0].step) == (4, "answer")
    assert cooling.runs == ()


# For every journey


@given(seeds)
def test_nothing_is_different_from_itself(seed: int) -> None:
    journey = some_journey(Random(seed))
    difference = compare(journey, replace(journey, version=9))
    assert difference.is_empty
    assert all(kind is None for *_, kind in difference.edges())


@given(seeds, seeds)
def test_two_journeys_that_are_not_equal_are_told_apart(one: int, other: int) -> None:
    before, after_ = some_journey(Random(one)), some_journey(Random(other))
    difference = compare(before, after_)
    assert difference.is_empty == (before == after_)
    places = {*after_.steps, *before.steps}
    assert {change.place for change in difference.steps} <= places
    assert all("\n" not in change.words and change.words for change in [*difference.rules, *difference.steps])


@given(seeds)
def test_one_step_changed_is_one_step_told(seed: int) -> None:
    dice = Random(seed)
    journey = some_journey(dice)
    waits = [name for name, step in journey.steps.items() if isinstance(step, Delay | WaitFor)]
    if not waits:
        return
    name = dice.choice(waits)
    step: Any = journey.steps[name]
    field = "duration" if isinstance(step, Delay) else "timeout"
    longer = replace(step, **{field: getattr(step, field) + timedelta(days=1)})
    difference = compare(journey, replace(journey, version=2, steps={**journey.steps, name: longer}))
    assert [(change.kind, change.place) for change in difference.steps] == [("changed", name)]
    assert not difference.rules


@given(seeds)
def test_steps_renamed_throughout_are_no_other_difference(seed: int) -> None:
    journey = some_journey(Random(seed))
    new = _renamed(journey, "s0", "s0_new")
    changes = compare(journey, new).steps
    assert [(change.kind, change.place) for change in changes if change.kind != "renamed"] == []
    assert Change("renamed", "s0_new", changes[0].words) == changes[0]


def _renamed(journey: Journey, old: str, new: str) -> Journey:
    """Return the journey with a step called otherwise, in its JSON."""
    from engine.definitions import dump, load

    body = dump(journey).replace(f'"{old}"'.encode(), f'"{new}"'.encode())
    return load(body.replace(f'"{old}.'.encode(), f'"{new}.'.encode()))  # where an answer's field begins with it


def test_conditions_joined_are_compared_part_by_part() -> None:
    gold, rich = GOLD, profile("worth", ">", 100)
    before = replace(OLD, exit_on=all_of(gold, on("order_placed")))
    assert told(replace(before, version=4, exit_on=all_of(gold, rich, on("order_placed"))), before) == [
        "changed exit_on: now also asks `profile.worth > 100`"
    ]
