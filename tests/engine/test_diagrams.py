"""That a journey is drawn whole, in lines that mermaid takes."""

import re
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given

from engine import Branch, Delay, Exit, Journey, Send, days, hours, on, profile, where
from engine.diagrams import COLOURS, MAX_LABEL, RESERVED, difference_to_mermaid, to_data, to_mermaid
from engine.diff import compare
from tests.engine.generated import journeys

LABEL = r"(?:(?!%%)[^:;#\n])*[^:;#\s]"
LINES = [
    re.compile(pattern)
    for pattern in (
        r"stateDiagram-v2",
        r"  %% [a-z0-9_]+ v\d+( to [a-z0-9_]+ v\d+)?",
        rf"  _?[a-z][a-z0-9_]*: {LABEL}",
        rf"  (\[\*\]|_?[a-z][a-z0-9_]*) --> _?[a-z][a-z0-9_]*: {LABEL}",
        r"  _?[a-z][a-z0-9_]* --> \[\*\]",
        r"  note right of _?[a-z][a-z0-9_]*",
        rf"    {LABEL}",
        r"  end note",
        r"  classDef [a-z]+ [a-z0-9:,#-]+",
        r"  class [a-z_][a-z0-9_,]* [a-z]+",
    )
]


def readable(diagram: str) -> list[str]:
    """Return the lines of a diagram, each of which mermaid takes."""
    assert diagram.endswith("\n")
    lines = diagram.splitlines()
    for line in lines:
        assert any(pattern.fullmatch(line) for pattern in LINES), line
    return lines


def check(journey: Journey) -> list[str]:
    lines = readable(to_mermaid(journey))
    ends = [line for line in lines if line.endswith(" --> [*]") and ": " not in line]
    assert len(ends) == sum(isinstance(step, Exit) for step in journey.steps.values())
    for name in journey.steps:
        assert sum(line.startswith(f"  {name}: {name} | ") for line in lines) == (name not in RESERVED)
    arrows = [line.strip().partition(": ")[0] for line in lines if " --> " in line and line not in ends]
    assert arrows == [f"{source} --> {target}" for source, _, target in journey.edges()]
    return lines


@given(journeys())
def test_every_step_is_drawn_once_and_every_way_as_an_arrow(journey: Journey) -> None:
    check(journey)


def test_a_diagram_reads_well() -> None:
    journey = Journey(
        name="cart",
        version=3,
        entry=on("cart_updated", where("items", ">", 0)),
        exit_on=on("order_placed"),
        start="cooldown",
        steps={
            "cooldown": Delay(hours(1), then="tier"),
            "tier": Branch([(profile("tier", "==", "gold"), "gold")], otherwise="done"),
            "gold": Send(["push", "email"], template="gold_offer", then="done"),
            "done": Exit(),
        },
    )
    assert check(journey) == [
        "stateDiagram-v2",
        "  %% cart v3",
        "  cooldown: cooldown | wait 1 hour",
        "  tier: tier | decide",
        "  gold: gold | push or email, gold_offer",
        "  done: done | leave",
        "  [*] --> cooldown: cart_updated and items > 0",
        "  cooldown --> tier: after 1 hour",
        "  tier --> gold: profile.tier == 'gold'",
        "  tier --> done: otherwise",
        "  gold --> done: sent",
        "  done --> [*]",
        "  note right of cooldown",
        "    leaves at once on order_placed",
        "  end note",
    ]


@pytest.mark.parametrize(
    "odd",
    [
        "a:b;c#d",
        "line\nbreak",
        "x" * 256,
        "%%{init: {}}%%",
        "%%%",
        "a{b}",
        "<b>&</b>",
        "[*]",
        "state x {",
        "as",
        "note left of a",
        "-->",
        "end note",
        "  ",
        "\r\n",
    ],
)
def test_what_an_author_writes_cannot_break_the_diagram(odd: str) -> None:
    journey = Journey(
        name="odd",
        version=1,
        entry=on(odd),
        exit_on=on("b", where("x", "==", odd)),
        start="pause",
        steps={"pause": Delay(days(1), then="end"), "end": Exit(odd)},
    )
    assert all(len(line) < 40 + MAX_LABEL for line in check(journey))


def test_a_step_may_have_a_name_that_means_something_to_mermaid() -> None:
    journey = Journey(
        name="words",
        version=1,
        entry=on("a"),
        exit_on=on("b"),
        start="click",
        steps={"click": Delay(days(1), then="default"), "default": Exit()},
    )
    assert to_mermaid(journey).splitlines()[2:] == [
        "  _click: click | wait 1 day",
        "  _default: default | leave",
        "  [*] --> _click: a",
        "  _click --> _default: after 1 day",
        "  _default --> [*]",
        "  note right of _click",
        "    leaves at once on b",
        "  end note",
    ]


@given(journeys("one"), journeys("two"))
def test_a_difference_draws_every_step_and_every_way_of_both(one: Journey, two: Journey) -> None:
    difference = compare(one, two)
    lines = readable(difference_to_mermaid(difference))
    gone = [name for name in one.steps if difference.kind_of(name) == "removed"]
    for name in [*two.steps, *gone]:
        assert sum(line.startswith(f"  {name}: {name} | ") for line in lines) == 1
    arrows = [line for line in lines if " --> " in line and not line.endswith("--> [*]")]
    assert len(arrows) == len(list(difference.edges()))
    assert sum(": - " in line for line in arrows) == sum(kind == "removed" for *_, kind in difference.edges())


def test_a_difference_is_coloured() -> None:
    old = Journey(
        name="cart", version=3, entry=on("cart_updated"), start="cooldown",
        steps={"cooldown": Delay(hours(1), then="gold"), "gold": Send("push", template="x", then="done"), "done": Exit()},
    )  # fmt: skip
    new = replace(old, version=4, steps={"cooldown": Delay(hours(2), then="done"), "done": Exit()})
    assert readable(difference_to_mermaid(compare(old, new))) == [
        "stateDiagram-v2",
        "  %% cart v3 to cart v4",
        "  cooldown: cooldown | wait 2 hours",
        "  done: done | leave",
        "  gold: gold | push, x",
        "  [*] --> cooldown: cart_updated",
        "  cooldown --> done: + after 2 hours",
        "  cooldown --> gold: - after 1 hour",
        "  gold --> done: - sent",
        "  done --> [*]",
        f"  classDef changed {COLOURS['changed']}",
        f"  classDef removed {COLOURS['removed']}",
        "  class cooldown changed",
        "  class gold removed",
    ]


def test_counts_show_where_everybody_is() -> None:
    journey = Journey(
        name="cart", version=3, entry=on("cart_updated"), start="click",
        steps={"click": Delay(hours(1), then="done"), "done": Exit()},
    )  # fmt: skip
    lines = readable(to_mermaid(journey, {"click": 1234, "elsewhere": 5}))
    assert "  _click: click | wait 1 hour | 1234 here" in lines
    assert "  done: done | leave | 0 here" in lines
    assert lines[-1] == "  class _click occupied"
    assert not any("occupied" in line for line in readable(to_mermaid(journey, {})))


@given(journeys())
def test_data_for_an_editor_has_every_step_and_every_way(journey: Journey) -> None:
    drawn = msgspec.json.decode(msgspec.json.encode(to_data(journey, {journey.start: 2})))
    assert [step["name"] for step in drawn["steps"]] == list(journey.steps)
    assert [step["runs"] for step in drawn["steps"]] == [2 * (name == journey.start) for name in journey.steps]
    assert [(way["from"], way["when"], way["to"]) for way in drawn["ways"]] == list(journey.edges())
    assert all("runs" not in step for step in to_data(journey)["steps"])
