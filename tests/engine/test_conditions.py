"""What conditions mean: strict comparison, what is absent, and on which events a condition can come true."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from engine import all_of, any_of, days, not_, on, profile, receipt, where
from engine.conditions import Condition, Facts, Where, event_names, leaves
from engine.operators import ABSENT, OPERATORS, RELATIVE, Operator, compare, read
from schemas.state import Sent
from tests.engine.generated import NAMES, conditions, json_values, properties

found_values = st.one_of(st.just(ABSENT), json_values)
asked_values: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.lists(st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=2)), max_size=3).map(tuple),
)


@pytest.mark.parametrize(
    ("found", "op", "value", "holds"),
    [
        (5, "==", 5, True),
        (5, "==", 5.0, True),
        (5, "==", "5", False),
        (True, "==", 1, False),
        (1, "==", True, False),
        (True, "==", True, True),
        (0, "==", False, False),
        (None, "==", None, True),
        (ABSENT, "==", None, False),
        (ABSENT, "!=", "gold", True),
        (None, "!=", "gold", True),
        ("gold", "!=", "gold", False),
        ([1], "==", 1, False),
        (3, ">", 2, True),
        (3, ">", 3, False),
        (3, ">=", 3, True),
        (2.5, "<", 3, True),
        (10**300, ">", 1.5, True),
        ("b", ">", "a", True),
        ("5", ">", 4, False),
        (5, ">", "4", False),
        (True, ">", 0, False),
        (None, "<", 1, False),
        (ABSENT, "<", 1, False),
        (ABSENT, ">=", 1, False),
        ([3], ">", 2, False),
        ("FR", "in", ("DE", "FR"), True),
        ("IT", "in", ("DE", "FR"), False),
        (1, "in", (True, "1"), False),
        (ABSENT, "in", (None,), False),
        (None, "in", (None,), True),
        ("x", "in", (), False),
        ("shoes and socks", "contains", "sock", True),
        ("shoes", "contains", 5, False),
        (["shoes", "socks"], "contains", "socks", True),
        (["shoes"], "contains", "shoe", False),
        ([1, 2], "contains", True, False),
        ({"shoes": 1}, "contains", "shoes", False),
        (5, "contains", 5, False),
        (ABSENT, "contains", "x", False),
        (0, "exists", None, True),
        ("", "exists", True, True),
        (None, "exists", None, False),
        (ABSENT, "exists", None, False),
        (ABSENT, "exists", False, True),
        (None, "exists", False, True),
        (False, "exists", False, False),
    ],
)
def test_values_compare_strictly_by_kind(found: object, op: Operator, value: Any, holds: bool) -> None:
    assert compare(found, op, value) is holds


def test_every_operator_is_known() -> None:
    assert (*OPERATORS, *RELATIVE) == get_args(Operator)


@given(found_values, st.sampled_from(sorted(OPERATORS)), asked_values)
def test_comparing_never_raises_whatever_an_event_holds(found: object, op: Operator, value: Any) -> None:
    assert compare(found, op, value) in (True, False)


@given(found_values, asked_values)
def test_unequal_is_the_exact_opposite_of_equal(found: object, value: Any) -> None:
    assert compare(found, "!=", value) is not compare(found, "==", value)


@given(found_values, asked_values)
def test_present_is_the_exact_opposite_of_absent(found: object, value: Any) -> None:
    assert compare(found, "exists", True) is not compare(found, "exists", False)


@given(json_values, asked_values)
def test_two_things_that_have_an_order_are_one_above_the_other_or_equal(found: object, value: Any) -> None:
    above, below, equal = (compare(found, op, value) for op in (">", "<", "=="))
    assert above + below + equal <= 1
    assert compare(found, ">=", value) is (above or (equal and _has_order(found)))
    assert compare(found, "<=", value) is (below or (equal and _has_order(found)))


def _has_order(value: object) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


@given(found_values, asked_values.filter(lambda value: not isinstance(value, tuple)), st.integers(0, 3))
def test_to_be_in_a_list_is_to_equal_one_of_it(found: object, value: Any, others: int) -> None:
    listed = (*range(others), value)
    assert compare(found, "in", listed) is any(compare(found, "==", item) for item in listed)


# Paths


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", {"b": {"c": 1}, "d.e": 2}),
        ("a.b", {"c": 1}),
        ("a.b.c", 1),
        ("a.b.c.d", ABSENT),
        ("a.x", ABSENT),
        ("a.b.", ABSENT),
        ("x.y", "dotted"),
        ("x.z", ABSENT),
        ("list.0", ABSENT),
        ("nothing", None),
        ("", ABSENT),
        (".", ABSENT),
    ],
)
def test_dots_reach_into_objects_and_a_name_with_dots_is_found_first(path: str, found: object) -> None:
    values = {"a": {"b": {"c": 1}, "d.e": 2}, "x.y": "dotted", "list": [1], "nothing": None}
    assert read(values, path) == found


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4), st.text(max_size=6))
def test_reading_never_raises(values: dict[str, Any], path: str) -> None:
    read(values, path)


# What is judged


def test_conditions_see_the_event_the_profile_and_receipts() -> None:
    facts = Facts({"tier": "gold"}, "bought", {"total": 5}, {"mail": Sent(1, ("accepted", "opened"))})
    assert on("bought").holds(facts)
    assert on("bought", where("total", ">", 4), profile("tier", "==", "gold")).holds(facts)
    assert not on("bought", where("total", ">", 5)).holds(facts)
    assert not on("sold").holds(facts)
    assert receipt("mail", "opened").holds(facts)
    assert not receipt("mail", "clicked").holds(facts)
    assert not receipt("other", "opened").holds(facts)


def test_a_user_without_a_tier_is_among_those_whose_tier_is_not_gold() -> None:
    assert profile("tier", "!=", "gold").holds(Facts({}))
    assert not_(profile("tier", "==", "gold")).holds(Facts({}))


def test_all_of_nothing_holds_and_any_of_nothing_does_not() -> None:
    assert all_of().holds(Facts({}))
    assert not any_of().holds(Facts({}))


@given(conditions(), properties, properties, st.sampled_from([*NAMES, None]))
def test_not_is_the_exact_opposite_and_nothing_raises(
    condition: Condition, values: dict[str, Any], attributes: dict[str, Any], name: str | None
) -> None:
    facts = Facts(attributes, name, values)
    assert not_(condition).holds(facts) is not condition.holds(facts)
    assert all_of(condition).holds(facts) is any_of(condition).holds(facts) is condition.holds(facts)


@given(conditions(), properties, properties, st.sampled_from([*NAMES, "unheard", None]))
def test_a_condition_holds_only_on_events_that_it_is_indexed_by(
    condition: Condition, values: dict[str, Any], attributes: dict[str, Any], name: str | None
) -> None:
    names = event_names(condition)
    if names is not None and condition.holds(Facts(attributes, name, values)):
        assert name in names


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        (on("a"), {"a"}),
        (any_of(on("a"), on("b"), on("a")), {"a", "b"}),
        (any_of(on("a"), profile("x", "exists")), None),
        (all_of(profile("x", "exists"), on("a")), {"a"}),
        (all_of(any_of(on("a"), on("b")), where("x", "==", 1)), {"a", "b"}),
        (not_(on("a")), None),
        (all_of(not_(on("a")), on("b")), {"b"}),
        (where("x", "==", 1), None),
        (receipt("mail", "opened"), None),
        (all_of(), None),
        (any_of(), set()),
    ],
)
def test_the_names_of_the_events_on_which_a_condition_can_come_true(
    condition: Condition, names: set[str] | None
) -> None:
    assert event_names(condition) == names


def test_leaves_are_all_parts_that_have_none_and_every_event_with_its_parts() -> None:
    condition = any_of(on("a", where("x", "==", 1)), not_(all_of(profile("y", "exists"), receipt("mail", "opened"))))
    assert [str(leaf) for leaf in leaves(condition)] == [
        "a and x == 1",
        "x == 1",
        "profile.y is present",
        "mail opened",
    ]


# How they are told and written


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        (on("bought", where("total", ">", 5)), "bought and total > 5"),
        (profile("tier", "in", ["gold", "silver"]), "profile.tier in ['gold', 'silver']"),
        (where("x", "exists"), "x is present"),
        (where("x", "exists", False), "x is absent"),
        (not_(any_of(on("a"), on("b"))), "not (a or b)"),
        (all_of(any_of(on("a"), on("b")), profile("x", "==", True)), "(a or b) and profile.x == True"),
        (receipt("mail", "clicked"), "mail clicked"),
        (all_of(), "always"),
        (any_of(), "never"),
        (on("a", within=days(7)), "a within 1 week"),
    ],
)
def test_a_condition_says_what_it_means(condition: Condition, told: str) -> None:
    assert str(condition) == told


@given(conditions(("mail",)))
def test_a_condition_read_back_from_json_is_equal(condition: Condition) -> None:
    adapter: TypeAdapter[Condition] = TypeAdapter(Condition)
    assert adapter.validate_json(adapter.dump_json(condition)) == condition


@given(st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)))
def test_a_value_keeps_its_kind_on_the_way_through_json(value: bool | float | str) -> None:
    adapter = TypeAdapter(Where)
    back = adapter.validate_json(adapter.dump_json(where("x", "==", value)))
    assert (type(back.value), back.value) == (type(value), value)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_json_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        where("x", "<", value)
