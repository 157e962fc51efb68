"""Which steps and ways of a journey tests have passed, and how pytest tells."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given

from engine import (
    EXIT,
    Branch,
    Delay,
    Exit,
    Journey,
    Send,
    WaitFor,
    always,
    days,
    hours,
    on,
    profile,
)
from engine.simulator import Simulate
from engine.simulator.coverage import Coverage, JourneyCoverage
from engine.steps import AnyStep
from tests.engine.generated import Happening, catalog_of, histories, live, seeds, some_journey

pytest_plugins = ["pytester"]


def journey(version: int = 1, moves: dict[str, str] | None = None, **steps: AnyStep) -> Journey:
    return Journey(
        name="journey", version=version, entry=on("go"), reentry=always, start=next(iter(steps)), exit_on=on("leave"),
        goal=on("order", within=days(3)), steps={**steps, "end": Exit(), "late": Exit("late")}, moves=moves or {},
    )  # fmt: skip


def simulating() -> tuple[Simulate, Callable[[], JourneyCoverage]]:
    """What makes users whose ways are watched, and what tells of the only journey they took."""
    coverage = Coverage()

    def only() -> JourneyCoverage:
        [covered] = coverage.journeys
        return covered

    return Simulate(coverage), only


def test_steps_and_ways_that_were_passed_are_known() -> None:
    simulate, covered = simulating()
    user = simulate(journey(wait=Delay(hours(1), then="end")))
    user.event("go")
    assert covered().missing == ["end", "late", "any step > exit_on (leave)", "any step > goal (order within 3 days)"]
    user.wait(hours(1))
    assert (covered().passed, covered().total) == (4, 7)
    assert covered().missing == ["late", "any step > exit_on (leave)", "any step > goal (order within 3 days)"]


def test_an_exit_and_a_goal_are_ways_from_anywhere() -> None:
    simulate, covered = simulating()
    user = simulate(journey(wait=Delay(hours(1), then="end")))
    for name in ("go", "order", "leave"):
        user.event(name)
    assert {way.target for way in covered().ways_passed} == {"wait", "goal", "exit_on"}


ANY = WaitFor([(on("a"), "end"), (on("b"), "end")], timeout=days(1), on_timeout="end")


def test_ways_to_the_same_step_are_told_apart() -> None:
    simulate, covered = simulating()
    user = simulate(journey(wait=ANY))

    def missing() -> list[str]:
        return [each for each in covered().missing if each.startswith("wait >")]

    user.event("go")
    user.event("b")
    assert missing() == ["wait > end (a)", "wait > end (none in 1 day)"]
    user.event("go")
    user.wait(days(1))
    assert missing() == ["wait > end (a)"]
    user.event("go")
    user.event("a")
    assert missing() == []


def test_what_lies_behind_a_step_that_nobody_passed_is_not_told_as_well() -> None:
    simulate, covered = simulating()
    gold = Branch([(profile("tier", "==", "gold"), "mail")], otherwise="end")
    user = simulate(
        journey(which=gold, mail=Send("email", template="hi", then="pause"), pause=Delay(days(1), then="end"))
    )
    user.event("go")
    assert covered().missing[:3] == ["mail", "pause", "late"]
    assert not [each for each in covered().missing if each.startswith(("which", "mail >", "pause >"))]


def test_a_name_of_one_character_leaves_a_doubt_and_then_every_way_counts() -> None:
    simulate, covered = simulating()
    wait = WaitFor([(on("a"), "e"), (on("b"), "late")], timeout=days(1), on_timeout="e")
    user = simulate(journey(wait=wait, e=Exit()))
    user.event("go")
    user.event("a")
    passed = {way.label for way in covered().ways_passed if way.source == "wait"}
    assert passed == {"a", "none in 1 day"}


def test_a_move_to_a_new_version_is_no_way_of_its_table() -> None:
    simulate, _ = simulating()
    user = simulate(journey(wait=Delay(hours(1), then="end")))
    user.event("go")
    user.publish(journey(2, {"wait": "late"}, wait=Delay(hours(1), then="end")))
    assert simulate.coverage is not None
    first, second = simulate.coverage.journeys
    assert (first.steps_passed, second.steps_passed, second.ways_passed) == ({"wait"}, {"late"}, set())
    user.publish(journey(3, {"wait": EXIT}, wait=Delay(hours(1), then="end")))
    assert len(simulate.coverage.journeys) == 3


def test_the_same_journey_is_counted_once_and_another_of_its_name_apart() -> None:
    simulate, _ = simulating()
    for definition in (journey(wait=ANY), journey(wait=ANY), journey(wait=Delay(hours(1), then="end"))):
        user = simulate(definition)
        user.event("go")
        user.publish(definition)
    assert simulate.coverage is not None
    assert [each.total for each in simulate.coverage.journeys] == [9, 7]


@given(seeds, histories)
def test_watching_changes_nothing_and_every_arrival_is_by_a_way_of_the_table(
    seed: int, history: list[Happening]
) -> None:
    original, coverage = some_journey(Random(seed)), Coverage()
    watched = coverage.watched(original)
    assert watched == original
    expected, life = live(catalog_of(original), history), live(catalog_of(watched), history)
    assert (life.user, life.messages, life.journal) == (expected.user, expected.messages, expected.journal)
    coverage.note(life.journal, catalog_of(watched), {})
    [covered] = coverage.journeys
    arrivals = [entry for entry in life.journal if entry.kind == "step"]
    assert covered.steps_passed == {entry.step for entry in arrivals}
    assert {way.target for way in covered.ways_passed if way.source != "any step"} == covered.steps_passed
    assert covered.ways_passed <= {*covered.ways}


# How pytest tells


TESTS = """
    from engine import Branch, Delay, Exit, Journey, Send, WaitFor, days, hours, on, profile

    trial = Journey(
        name="trial", version=2, entry=on("trial_started"), start="settle", exit_on=on("paid"),
        steps={
            "settle": Delay(hours(2), then="who"),
            "who": Branch([(profile("tier", "==", "gold"), "call")], otherwise="hello"),
            "call": Send("sms", template="call_us", then="end"),
            "hello": Send("email", template="hello", then="end"),
            "end": Exit(),
        },
    )

    def test_everybody_is_greeted(simulate):
        user = simulate(trial)
        user.event("trial_started")
        user.wait(days(1))
        assert user.sent == ["email:hello"]
"""


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    pytester.makepyfile(TESTS)
    return pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider", "-p", "no:asyncio", *options)


def test_pytest_tells_what_no_test_passed_if_it_is_asked(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--journey-coverage")
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "*= journey coverage =*",
            "trial v2    67 %  4 of 5 steps, 4 of 7 ways",
            "    no test passed call",
            "    no test passed any step > exit_on (paid)",
        ]
    )


def test_pytest_says_nothing_unless_it_is_asked(pytester: pytest.Pytester) -> None:
    result = run(pytester)
    assert "coverage" not in result.stdout.str()


@pytest.mark.parametrize(("wanted", "code"), [("66", 0), ("67", 1)])
def test_too_little_may_be_a_failure(pytester: pytest.Pytester, wanted: str, code: int) -> None:
    result = run(pytester, f"--journey-coverage-fail-under={wanted}")
    assert result.ret == code
    assert ("FAILED: 66.7 % were passed, 67 % are required" in result.stdout.str()) is bool(code)


def test_only_the_journeys_that_are_named_count(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--journey-coverage-of=welcome*", "--journey-coverage-fail-under=1")
    result.stdout.fnmatch_lines(["no journey was simulated: use the fixture `simulate`"])
    assert result.ret == 1


def test_a_failure_stays_a_failure(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_wrong(simulate):\n    assert simulate() is None\n")
    result = pytester.runpytest_inprocess(
        "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "--journey-coverage-fail-under=0"
    )
    assert result.ret == 1
