"""What a new version of a journey means for runs, and where users fall in a split."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Cohorts, Delay, Exit, Journey, Send, always, hours, on
from engine.cohorts import cohort, point
from engine.definitions import dump, freeze, load, thaw
from engine.simulator import Simulate


def letter(version: int, template: str) -> Journey:
    return Journey(
        name="letter",
        version=version,
        entry=on("start"),
        reentry=always,
        start="pause",
        steps={
            "pause": Delay(hours(version), then="send"),
            "send": Send("email", template=template, then="end"),
            "end": Exit(f"v{version}"),
        },
    )


def test_runs_finish_on_the_version_they_began_with(simulate: Simulate) -> None:
    user = simulate(letter(1, "old"))
    user.event("start")
    user.publish(letter(2, "new"))
    user.wait(hours(1))
    assert (user.sent, user.exits) == (["email:old"], ["v1"])
    user.event("start")
    user.wait(hours(2))
    assert (user.sent, user.exits) == (["email:old", "email:new"], ["v1", "v2"])


def test_a_version_sends_for_ever_the_templates_it_was_published_with(simulate: Simulate) -> None:
    *_, first = freeze("test", letter(1, "hello"), {"hello": {"text": "Hello"}})
    *_, second = freeze("test", letter(2, "hello"), {"hello": {"text": "Good day"}})
    user = simulate(thaw(first))
    user.event("start")
    user.publish(thaw(second))
    user.wait(hours(1))
    user.event("start")
    user.wait(hours(2))
    names = [message.template for message in user.messages]
    assert user.sent == ["email:hello", "email:hello"]
    assert len(set(names)) == 2
    assert all(name.startswith("hello@") and len(name) == len("hello@") + 12 for name in names)


def split(version: int, weights: dict[str, float], salt: str | None = None) -> Journey:
    return Journey(
        name="split",
        version=version,
        entry=on("start"),
        reentry=always,
        start="lot",
        steps={"lot": Cohorts(weights, salt=salt), **{name: Exit(name) for name in weights}},
    )


POINT = 0.6831036213601105  # of user u1 of tenant test in the split above
HALVES = {"a": 50.0, "b": 50.0}


def test_another_salt_deals_anew(simulate: Simulate) -> None:
    def side(number: int, salt: str | None) -> str:
        user = simulate(split(1, HALVES, salt), user_id=f"user-{number}")
        user.event("start")
        return user.exits[0]

    same = sum(side(number, None) == side(number, "another") for number in range(400))
    assert 150 < same < 250


@pytest.mark.parametrize(
    "weights", [HALVES, {"a": 90.0, "b": 9.0, "c": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1e9}]
)
def test_cohorts_are_as_large_as_their_weights_say(weights: dict[str, float]) -> None:
    users = 20_000
    sizes = Counter(cohort(weights, f"test:user-{number}", "split:lot") for number in range(users))
    total = sum(weights.values())
    for name, weight in weights.items():
        share = weight / total
        tolerance = 5 * (share * (1 - share) / users) ** 0.5  # five standard deviations
        assert abs(sizes[name] / users - share) <= tolerance


def test_two_splits_of_one_user_have_nothing_to_do_with_each_other() -> None:
    both = Counter(
        (cohort(HALVES, f"test:{number}", "x:one"), cohort(HALVES, f"test:{number}", "x:two"))
        for number in range(8_000)
    )
    assert all(abs(count / 8_000 - 0.25) < 0.025 for count in both.values())
    assert len(both) == 4


def test_where_a_user_falls_is_written_in_stone() -> None:
    """Another value here would send running experiments' users to the other side."""
    assert point("test:u1", "split:lot") == pytest.approx(POINT, abs=0)
    assert cohort(HALVES, "test:u1", "split:lot") == ("a" if POINT < 0.5 else "b")


@given(st.text(), st.text())
def test_a_point_lies_between_zero_and_one(user: str, salt: str) -> None:
    assert 0 <= point(user, salt) < 1


@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.floats(1e-9, 1e9), min_size=1, max_size=6),
    st.text(max_size=8),
)
def test_everybody_falls_somewhere(weights: dict[str, float], user: str) -> None:
    assert cohort(weights, user, "salt") in weights


def test_the_order_of_cohorts_survives_the_way_through_json() -> None:
    journey = split(1, {"z": 1.0, "a": 1.0, "m": 2.0})
    lot = load(dump(journey)).steps["lot"]
    assert isinstance(lot, Cohorts)
    assert list(lot.weights) == ["z", "a", "m"]
