"""That an explanation is what the engine did, with what every condition saw, and that a flip is only told if it is one."""

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.explain.answer import answer
from engine import (
    Branch,
    Delay,
    Emit,
    Exit,
    Journey,
    Send,
    Throttle,
    WaitFor,
    after,
    all_of,
    any_of,
    days,
    did,
    hours,
    not_,
    on,
    profile,
    receipt,
    where,
)
from engine.catalog import Catalog
from engine.conditions import Condition, Facts, On, tracker_id
from engine.explain import Explanation, Happening, Look, explain
from engine.judging import Judged, decisive, judge, part_at, with_flipped
from engine.simulator import SimulatedUser, simulate
from engine.watching import Watch, watched_catalog
from schemas.inputs import Controlled, Event, UserInput
from schemas.state import Sent, Track
from tests.engine.generated import (
    BEGIN,
    HOUR,
    Life,
    catalog_of,
    conditions,
    histories,
    properties,
    seeds,
    some_journey,
)

cart = Journey(
    name="cart", version=3, entry=on("cart_updated", where("items", ">", 0)), reentry=after(days(7)),
    exit_on=on("order_placed"), goal=on("order_placed", within=days(3)), start="pause",
    steps={
        "pause": Delay(hours(1), then="remind"),
        "remind": Send("email", template="cart_reminder", then="answer"),
        "answer": WaitFor(receipt("remind", "clicked"), timeout=days(1), then="end", on_timeout="tier"),
        "tier": Branch(
            [(all_of(profile("tier", "==", "gold"), profile("country", "in", ["FR", "DE"])), "gift")], otherwise="end"
        ),
        "gift": Send("email", template="gift", then="end"),
        "end": Exit(),
    },
)  # fmt: skip


def happened(name: str, after_hours: float = 0, profile: dict[str, Any] | None = None, **properties: Any) -> Happening:
    at = BEGIN + round(after_hours * HOUR)
    return at, Event(f"{name}@{at}", name, at, properties, profile or {})


def explained(*happenings: Happening, journey: Journey = cart, until: float = 0, **options: Any) -> Explanation:
    return explain(
        "t", "ada", journey.name, happenings, catalog=catalog_of(journey), alone=True,
        until_at=BEGIN + round(until * HOUR) if until else None, **options,
    )  # fmt: skip


def looks(explanation: Explanation, place: str) -> list[Look]:
    return [look for moment in explanation.moments for look in moment.looks if look.place == place]


def test_an_entry_that_said_no_names_the_part_that_stood_in_the_way_and_what_it_saw() -> None:
    (look,) = looks(explained(happened("cart_updated", items=0)), "entry")
    assert not look.judged.holds
    assert [(part.text, part.holds, part.saw) for part in look.judged.parts] == [
        ("cart_updated", True, "cart_updated"), ("items > 0", False, "0"),
    ]  # fmt: skip
    assert [(flip.text, flip.saw, flip.is_enough) for flip in look.flips] == [("items > 0", "0", True)]


def test_a_flip_that_the_re_entry_rule_would_refuse_all_the_same_is_not_called_enough() -> None:
    told = explained(
        happened("cart_updated", items=1), happened("order_placed", 1), happened("cart_updated", 2, items=0)
    )
    (flip,) = looks(told, "entry")[-1].flips
    assert (flip.is_enough, flip.otherwise) == (False, "re-entry is again after 1 week")


def test_where_two_parts_stand_in_the_way_none_is_decisive() -> None:
    told = explained(happened("cart_updated", items=2, profile={"email": "a@example.com"}), until=30)
    (look,) = looks(told, "tier")
    assert [part.holds for part in look.judged.parts] == [False, False]
    assert look.flips == ()
    told = explained(happened("cart_updated", items=2, profile={"tier": "gold"}), until=30)
    (look,) = looks(told, "tier")
    assert [(flip.text, flip.saw, flip.is_enough) for flip in look.flips] == [
        ("profile.country in ['FR', 'DE']", "absent", True)
    ]


def test_what_concerns_nothing_is_only_counted_by_its_name() -> None:
    told = explained(happened("cart_updated", items=1), *(happened("page", n / 10) for n in range(1, 8)))
    assert told.passed_over == {"page": 7}
    assert [moment.input for moment in told.moments] == ["event cart_updated"]


def test_timers_fire_on_the_way_to_the_time_that_is_asked_for() -> None:
    told = explained(happened("cart_updated", items=1), until=2)
    assert told.runs[0].step == "answer"
    assert told.until_at == BEGIN + 2 * HOUR
    assert [moment.input for moment in told.moments] == ["event cart_updated", "timer"]
    assert [run.step for run in explained(happened("cart_updated", items=1), happened("page", 9), until=0.5).runs] == [
        "pause"
    ]


def test_new_versions_policies_and_what_operators_do_take_effect_at_their_time() -> None:
    stricter = replace(cart, version=4, entry=on("cart_updated", where("items", ">", 5)))
    story: list[Happening] = [
        (BEGIN, cart),
        happened("cart_updated", 1, items=3),
        (BEGIN + 2 * HOUR, stricter),
        happened("cart_updated", 200, items=3),
        (BEGIN + 201 * HOUR, Controlled("t", "cart", "retire")),
        happened("cart_updated", 202, items=9),
    ]
    told = explain("t", "ada", "cart", story, alone=True)
    assert [(look.version, look.judged.holds) for look in looks(told, "entry")] == [(3, True), (4, False)]
    assert looks(told, "entry")[1].flips[0].is_enough
    assert sorted(told.versions) == [3, 4]


def test_what_steps_give_back_and_quotas_answer_is_played_where_there_is_no_log() -> None:
    journey = Journey(
        name="chain", version=1, entry=on("begin"), start="turn",
        steps={
            "turn": Throttle(1, then="tell"), "tell": Emit("told", then="answer"),
            "answer": WaitFor(on("told"), timeout=days(1), then="end", on_timeout="end"), "end": Exit(),
        },
    )  # fmt: skip
    told = explained(happened("begin"), journey=journey)
    assert [moment.input for moment in told.moments] == ["event begin", "granted", "event told"]
    assert told.runs == []


def test_an_input_that_production_put_aside_changes_nothing_here_either() -> None:
    too_long = (BEGIN, Event("m", "x" * 300, BEGIN))
    told = explained(too_long, happened("cart_updated", 1, items=1))
    assert told.refused.total() == 1
    assert len(told.runs) == 1


def test_what_a_merge_brought_and_what_came_by_way_of_an_alias_is_told_as_such() -> None:
    user = simulate(cart, user_id="ann")
    visitor = user.visitor()
    visitor.event("cart_updated", items=2)
    visitor.becomes(user)
    visitor.event("order_placed")
    visitor.event("nothing_special")
    happenings = [(0, cart), *((folded.at, folded.input) for folded in user.log)]
    told = explain(user.tenant, "ann", "cart", happenings)
    assert [moment.input for moment in told.moments][-1] == "event order_placed by way of anon:1"
    assert told.passed_over == {"identify": 1, "nothing_special": 1}
    assert told.state.aliases == {"anon:1": True}
    asked = explain(user.tenant, "anon:1", "cart", [(0, cart), *((each.at, each.input) for each in visitor.log)])
    assert next(answer(asked)) == "anon:1 stands for ann, who took over all of it: ask for ann."


def facts(name: str | None = "paid", **more: Any) -> Facts:
    return Facts({"tier": "gold"}, name, {"total": 5}, now=BEGIN, **more)


@pytest.mark.parametrize(
    ("condition", "seen"),
    [
        (where("total", ">", 3), "5"),
        (where("items", ">", 3), "absent"),
        (profile("tier", "==", "gold"), "'gold'"),
        (receipt("remind", "clicked"), "nothing sent so far"),
        (receipt("hello", "clicked"), "nothing heard so far"),
        (receipt("gift", "clicked"), "accepted, opened"),
        (did("paid"), "2 times ever"),
        (did("paid", within=days(1)), "1 time within 1 day"),
        (did("paid", first=True, within=days(1)), "first on 2025-12-28 08:00 UTC"),
        (did("paid", total="total", total_at_least=3), "2 times ever, total 7 in all"),
        (did("visited"), "never"),
        (on("paid"), "paid"),
        (on("left"), "paid"),
    ],
)  # fmt: skip
def test_what_a_leaf_saw_is_said_in_words(condition: Condition, seen: str) -> None:
    track = Track(BEGIN - 8 * 24 * HOUR, 2, 7, ((BEGIN - 8 * 24 * HOUR, 3), (BEGIN - HOUR, 4)))
    history = {tracker_id(On("paid")): track, tracker_id(On("paid"), "total"): track}
    sends = {"hello": Sent(1), "gift": Sent(2, ("accepted", "opened"))}
    assert judge(condition, facts(history=history, sends=sends)).saw == seen


def test_a_long_value_is_cut() -> None:
    assert len(judge(where("x", "==", 1), Facts({}, "a", {"x": "long" * 100})).saw) == 80


some_facts = st.builds(
    Facts,
    properties,
    st.sampled_from(["a", "b", None]),
    properties,
    st.just({"s": Sent(1, ("opened",))}),
    st.none(),
)


@given(conditions(["s"]), some_facts)
def test_the_verdict_is_that_of_the_condition_and_follows_from_the_parts(condition: Condition, facts: Facts) -> None:
    def check(judged: Judged) -> None:
        held = [part.holds for part in judged.parts]
        if judged.kind == "all_of":
            assert judged.holds is all(held)
        elif judged.kind == "any_of":
            assert judged.holds is any(held)
        elif judged.kind == "not":
            assert judged.holds is not held[0]
        else:
            assert not held
        for part in judged.parts:
            check(part)

    judged = judge(condition, facts)
    assert judged.holds is condition.holds(facts)
    check(judged)


@given(conditions(["s"]), some_facts)
def test_a_decisive_leaf_turned_round_turns_the_condition_round_and_any_other_does_not(
    condition: Condition, facts: Facts
) -> None:
    judged = judge(condition, facts)
    found = list(decisive(judged))
    for path in leaf_paths(judged):
        turned = with_flipped(condition, path).holds(facts) is not judged.holds
        assert turned is (path in found), path
        assert part_at(judged, path).kind == "leaf"


def leaf_paths(judged: Judged, path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    if judged.kind == "leaf":
        return [path]
    return [found for place, part in enumerate(judged.parts) for found in leaf_paths(part, (*path, place))]


@given(seeds, seeds, histories)
def test_watching_changes_nothing(seed: int, other: int, history: list[Any]) -> None:
    """The same history with and without: the same states, messages, journal; also of a journey that isn't watched."""
    plain = catalog_of(some_journey(Random(seed)), some_journey(Random(other), "beside"))
    watch = Watch()
    lives = [Life(plain), Life(watched_catalog(plain, "t", "generated", watch))]
    for life in lives:
        for happening in history:
            life.wait(life.now + happening.pause)
            life.meet(happening)
        life.wait(life.now + 100 * HOUR)
    assert lives[0].user == lives[1].user
    assert lives[0].journal == lives[1].journal
    assert lives[0].messages == lives[1].messages
    assert all(seen.where.journey == "generated" for seen in watch.looks)
    for seen in watch.looks:
        assert isinstance(seen.judged.holds, bool)


@given(seeds, histories)
def test_the_story_is_the_simulators_and_an_entry_follows_its_verdict(seed: int, history: list[Any]) -> None:
    journey = some_journey(Random(seed), entries=("on", "on", "api", "changed"))
    now, story = BEGIN, list[Happening]()
    for happening in history:
        now += happening.pause
        if happening.event is not None:
            story.append((now, happening.event))
    told = explain("t", "u", journey.name, story, catalog=catalog_of(journey), alone=True, until_at=now + 100 * HOUR)

    user = SimulatedUser(journey, user_id="u", tenant="t", profile=dict.fromkeys(("email", "phone", "push_token")))
    user.now_ms = BEGIN
    for at, input in story:
        wait(user, at)
        user.give(typed(input))
    wait(user, now + 100 * HOUR)
    assert user.state == told.state
    ours = [entry for entry in user.journal if entry.journey == journey.name]
    assert ours == [entry for moment in told.moments for entry in moment.journal]
    for moment in told.moments:
        kinds = {entry.kind for entry in moment.journal}
        for look in moment.looks:
            if look.place == "entry":
                assert look.judged.holds is bool(kinds & {"entered", "not_entered"})


def wait(user: SimulatedUser, at: int) -> None:
    user.wait(timedelta(milliseconds=at - user.now_ms))


def typed(input: Any) -> UserInput:
    assert isinstance(input, Event)
    return input


def test_a_journey_without_conditions_and_one_that_is_not_there_are_explained_too() -> None:
    assert explain("t", "ada", "nothing", [happened("x")]).moments == []
    assert explain("t", "ada", "cart", [], catalog=Catalog()).versions == {}


def test_not_and_any_of_name_what_would_have_changed_them() -> None:
    either = any_of(where("a", "==", 1), where("b", "==", 2))
    journey = replace(cart, entry=all_of(on("cart_updated"), not_(profile("tier", "==", "gold")), either))
    told = explained(happened("cart_updated", b=2, profile={"tier": "gold"}), journey=journey)
    (look,) = looks(told, "entry")
    assert [(flip.text, flip.is_enough) for flip in look.flips] == [("profile.tier == 'gold'", True)]
