"""What the fixture `simulate` promises to whoever tests a journey with it."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from engine import (
    Branch,
    Call,
    Delay,
    Exit,
    Journey,
    Policy,
    QuietHours,
    Send,
    WaitFor,
    always,
    answer,
    days,
    hours,
    minutes,
    on,
    receipt,
    schedule,
    seconds,
)
from engine.actor import earliest_due
from engine.reactions import Reactions, Script
from engine.simulator import BEGIN, Simulate, SimulatedUser
from schemas.inputs import Event, UserInput
from schemas.outputs import Message

pytest_plugins = ["pytester"]

NUDGE = Journey(
    name="nudge",
    version=1,
    entry=on("start"),
    reentry=always,
    goal=on("order_placed", within=days(3), value="total"),
    start="pause",
    steps={
        "pause": Delay(hours(1), then="mail"),
        "mail": Send("email", template="hello", then="answer"),
        "answer": WaitFor(receipt("mail", "clicked"), timeout=days(1), then="done", on_timeout="silent"),
        "done": Exit(),
        "silent": Exit("silent"),
    },
)


def test_a_users_life_can_be_told_and_asked_about(simulate: Simulate) -> None:
    user: SimulatedUser = simulate(NUDGE, tier="gold")
    assert (user.now, user.step, user.sent, user.profile["tier"]) == (BEGIN, None, [], "gold")
    user.event("start", name="a property called name", items=2)
    assert user.runs[0].event == {"name": "a property called name", "items": 2}
    user.wait(hours(2))
    assert (user.now, user.step, user.sent) == (BEGIN + hours(2), "answer", ["email:hello"])
    user.event("order_placed", total=3)
    user.receipt("mail", "clicked")
    assert (user.trail, user.exits, user.goals) == (["pause", "mail", "answer", "done"], ["done"], ["nudge"])
    assert user.reasons("receipt") == ["clicked"]


def test_waiting_fires_every_timer_at_its_own_time_and_sleeping_fires_none(simulate: Simulate) -> None:
    user = simulate(NUDGE)
    user.event("start")
    user.sleep(minutes(90))
    assert (user.step, user.now) == ("pause", BEGIN + minutes(90))
    user.wait(timedelta(0))  # The worker is up again: what is overdue fires at once.
    assert (user.step, user.sent) == ("answer", ["email:hello"])
    assert user.runs[0].arrived_at == earliest_due(user.state) - 86_400_000  # type: ignore[operator]
    user.wait(days(1) - minutes(30))
    assert user.exits == ["silent"]


def test_a_user_is_reachable_everywhere_unless_the_profile_says_otherwise(simulate: Simulate) -> None:
    assert set(simulate().profile) == {"email", "phone", "push_token"}
    assert simulate(email=None, phone="+4912345").profile == {"phone": "+4912345", "push_token": "token"}


def test_a_user_begins_when_one_says(simulate: Simulate) -> None:
    at = datetime(2030, 2, 28, 23, 59, tzinfo=UTC)
    user = simulate(NUDGE, now=at, user_id="ann")
    user.wait(minutes(1))
    assert user.now == datetime(2030, 3, 1, tzinfo=UTC)
    assert user.user_id == "ann"


def test_two_users_have_nothing_to_do_with_each_other(simulate: Simulate) -> None:
    ann, bob = simulate(NUDGE), simulate(NUDGE)
    ann.event("start")
    assert (ann.step, bob.step) == ("pause", None)


def test_a_receipt_of_what_was_never_sent_is_a_mistake_in_the_test(simulate: Simulate) -> None:
    user = simulate(NUDGE)
    user.event("start")
    with pytest.raises(AssertionError, match="'mail' has sent nothing so far"):
        user.receipt("mail", "clicked")


def test_step_asks_for_a_single_run(simulate: Simulate) -> None:
    other = Journey(
        name="other",
        version=1,
        entry=on("start"),
        start="pause",
        steps={"pause": Delay(hours(1), then="end"), "end": Exit()},
    )
    user = simulate(NUDGE, other)
    user.event("start")
    with pytest.raises(AssertionError, match="2 runs are live; ask `runs`"):
        _ = user.step


def test_whoever_installs_equeengage_has_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from engine import Exit, Journey, Send, on

        welcome = Journey(
            name="welcome",
            version=1,
            entry=on("signed_up"),
            start="hello",
            steps={"hello": Send("email", template="hello", then="done"), "done": Exit()},
        )

        def test_a_new_user_is_greeted(simulate):
            user = simulate(welcome)
            user.event("signed_up")
            assert user.sent == ["email:hello"]
        """
    )
    pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider", "-p", "no:asyncio").assert_outcomes(passed=1)


# When, and why not


def test_messages_are_told_on_the_users_own_clock_and_compare_with_any(simulate: Simulate) -> None:
    user = simulate(NUDGE, timezone="Asia/Tokyo")
    user.event("start")
    user.wait(hours(3))
    assert user.timeline == [(BEGIN + hours(1), "email:hello")]
    [at] = user.sent_at("email:hello")
    assert (at.hour, at.tzname()) == (19, "JST")
    assert user.sent_at("email:another") == []


def test_who_travels_has_each_message_on_the_clock_of_its_time(simulate: Simulate) -> None:
    user = simulate(NUDGE, timezone="Asia/Tokyo")
    user.event("start")
    user.wait(hours(1))
    user.identify(timezone="America/New_York")
    assert [at.hour for at in user.sent_at("email:hello")] == [19]


def test_why_nothing_came_is_told_in_words(simulate: Simulate) -> None:
    user = simulate(NUDGE, Policy(version=1, quiet_hours=(QuietHours(time(8), time(12)),)), consent={"email": True})
    user.event("start")
    user.event("start")
    user.wait(hours(1))
    user.identify(consent={"email": False})
    user.wait(hours(4))
    assert user.why_not == [
        "nudge not entered: already in it  (event start #e2)",
        "nudge mail held: quiet hours until 2026-01-05 12:00 UTC  (timer)",
        "nudge mail not sent: no consent to marketing on email  (timer)",
    ]


def test_a_story_tells_everything_in_order_and_where_the_user_is_now(simulate: Simulate) -> None:
    user = simulate(NUDGE)
    user.event("start")
    user.wait(hours(2))
    assert user.story().splitlines() == [
        "2026-01-05 09:00:00  nudge entered  (event start #e1)",
        "2026-01-05 09:00:00  nudge pause step  (event start #e1)",
        "2026-01-05 10:00:00  nudge mail step  (timer)",
        "2026-01-05 10:00:00  nudge mail sent email:hello  (timer)",
        "2026-01-05 10:00:00  nudge answer step  (timer)",
        "2026-01-05 11:00:00  now; nudge v1 is at answer",
    ]
    assert repr(user) == "<SimulatedUser u1, 1 live runs, sent ['email:hello']>"


def test_a_long_story_keeps_its_end(simulate: Simulate) -> None:
    user = simulate(NUDGE)
    for _ in range(30):
        user.event("start")
        user.event("order_placed")
        user.wait(days(2))
    lines = user.story().splitlines()
    assert len(lines) == 62
    assert lines[0].startswith("...") and lines[-2].endswith("exited: silent  (timer)")


# How people take messages


def test_people_react_by_themselves_when_it_is_time(simulate: Simulate) -> None:
    user = simulate(NUDGE, reactions=Reactions(opens=1, clicks=1))
    user.event("start")
    user.wait(hours(1))
    assert user.reasons("receipt") == []
    user.wait(seconds(2))
    assert user.reasons("receipt") == ["accepted", "delivered"]
    user.wait(days(3))
    assert user.reasons("receipt") == ["accepted", "delivered", "opened", "clicked"]


def test_what_becomes_of_a_message_can_be_written_down(simulate: Simulate) -> None:
    script: Script = {"hello": [("clicked", hours(20)), ("accepted", seconds(1))]}
    user = simulate(NUDGE, reactions=Reactions(bounces=1, scripted=script))
    user.event("start")
    user.wait(days(3))
    receipts = [entry for entry in user.journal if entry.kind == "receipt"]
    assert [(entry.reason, entry.at - user.messages[0].requested_at) for entry in receipts] == [
        ("accepted", 1_000),
        ("clicked", 20 * 3_600_000),
    ]
    assert user.exits == ["done"]


def test_a_provider_can_be_silent(simulate: Simulate) -> None:
    user = simulate(NUDGE, reactions=Reactions(opens=1, clicks=1, scripted={"hello": []}))
    user.event("start")
    user.wait(days(3))
    assert (user.reasons("receipt"), user.exits) == ([], ["silent"])


def test_a_call_is_answered_as_written_down(simulate: Simulate) -> None:
    journey = Journey(
        name="scored",
        version=1,
        entry=on("start"),
        start="score",
        steps={
            "score": Call("https://crm.example.com/score", then="hot", on_failed="end"),
            "hot": Branch([(answer("score.points", ">", 50), "greet")], otherwise="end"),
            "greet": Send("email", template="hot", then="end"),
            "end": Exit(),
        },
    )
    user = simulate(journey, reactions=Reactions(answers={"score": {"points": 80}}))
    user.event("start")
    user.wait(minutes(1))
    assert user.sent == ["call:", "email:hot"]


def test_receipts_come_while_the_worker_is_down_and_let_overdue_timers_fire(simulate: Simulate) -> None:
    user = simulate(NUDGE, reactions=Reactions(opens=1, clicks=1, scripted={"hello": [("opened", days(2))]}))
    user.event("start")
    user.wait(hours(1))
    user.sleep(days(1) + hours(12))
    assert (user.step, user.exits) == ("answer", [])
    user.sleep(hours(12))
    assert user.exits == ["silent"]


# Schedules


def test_a_schedule_comes_round_by_itself(simulate: Simulate) -> None:
    user = simulate(DIGEST)
    user.wait(days(7))
    assert [at.isoformat() for at in user.sent_at("email:digest")] == [
        "2026-01-06T09:00:00+00:00",
        "2026-01-09T09:00:00+00:00",
    ]


def test_a_schedule_on_the_users_clocks_reaches_each_at_their_nine(simulate: Simulate) -> None:
    users = [simulate(replace(DIGEST, entry=schedule("0 9 * * 2", zone="user")), timezone=zone)
             for zone in ("Pacific/Auckland", "UTC", "America/Los_Angeles")]  # fmt: skip
    for user in users:
        user.wait(days(3))
    assert [user.sent_at("email:digest")[0].hour for user in users] == [9, 9, 9]
    assert len({user.sent_at("email:digest")[0] for user in users}) == 3


def test_a_schedule_missed_while_the_worker_was_down_is_caught_up_once(simulate: Simulate) -> None:
    user = simulate(replace(DIGEST, entry=schedule("0 * * * *"), reentry=always))
    user.sleep(hours(5) + minutes(30))
    user.wait(timedelta(0))
    assert len(user.sent) == 1


def test_a_schedules_time_that_came_while_the_worker_was_down_is_not_skipped_by_a_new_version(
    simulate: Simulate,
) -> None:
    daily = Journey(
        name="daily", version=1, entry=schedule("0 9 * * *"), reentry=always, start="mail",
        steps={"mail": Send("email", template="news", then="end"), "end": Exit()},
    )  # fmt: skip
    user = simulate(daily)
    user.sleep(hours(25))
    user.publish(replace(daily, version=2))
    assert user.sent == ["email:news"]
    user.wait(hours(22))
    assert user.sent == ["email:news"]
    user.wait(hours(1))
    assert user.sent == ["email:news"] * 2


def test_a_paused_and_a_retired_journey_and_one_that_has_lost_its_schedule_reach_nobody(simulate: Simulate) -> None:
    paused, retired, other = simulate(DIGEST), simulate(DIGEST), simulate(DIGEST)
    paused.control("digest", "pause")
    retired.control("digest", "retire")
    other.publish(replace(DIGEST, version=2, entry=on("go")))
    for user in (paused, retired, other):
        user.wait(days(7))
        assert user.sent == []


DIGEST = Journey(
    name="digest",
    version=1,
    entry=schedule("0 9 * * 2,5"),
    reentry=always,
    start="send",
    steps={"send": Send("email", template="digest", then="end"), "end": Exit()},
)


def test_what_never_comes_to_an_end_is_told_instead_of_going_on_for_ever(simulate: Simulate) -> None:
    ping = Journey(
        name="ping",
        version=1,
        entry=on("ping"),
        reentry=always,
        start="pong",
        steps={"pong": Send("email", template="pong", then="end", transactional=True), "end": Exit()},
    )
    user = simulate(ping, reactions=Reactions(scripted={"pong": [("accepted", timedelta(0))]}))
    user.event("ping")
    user.wait(days(1))  # A receipt that takes no time is fine,
    user.simulation.reactions = Echo()  # type: ignore[assignment]
    user.event("ping")
    with pytest.raises(AssertionError, match="there is always something due"):
        user.wait(days(1))  # and one that leads to itself isn't.


class Echo:
    """A provider whose every receipt makes the next message."""

    def to(self, message: Message, nth: int) -> list[tuple[int, UserInput]]:
        return [(message.requested_at, Event(f"echo-{nth}", "ping", message.requested_at))]


def test_a_failing_test_shows_the_story_of_its_users(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from engine import Exit, Journey, Send, on

        welcome = Journey(name="welcome", version=1, entry=on("signed_up"), start="hello",
                          steps={"hello": Send("email", template="hello", then="done"), "done": Exit()})

        def test_nobody_is_greeted(simulate):
            user = simulate(welcome, user_id="ann")
            user.event("signed_up")
            assert user.sent == []
        """
    )
    result = pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider", "-p", "no:asyncio")
    result.stdout.fnmatch_lines(["*simulated user ann*", "*welcome hello sent email:hello*", "*now"])
