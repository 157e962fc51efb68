"""Operators and schedules on the embedded host, with a clock that the test moves: users who say nothing are reached, too."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from engine import EXIT, Cap, Delay, Exit, Journey, Policy, Send, always, days, hours, minutes, on, profile, schedule
from engine.durations import milliseconds
from engine.runtime.controls import Act, Action, control, rollback
from engine.runtime.publish import plan
from schemas.inputs import Event
from tests.scenarios.embedded_world import PARTITIONS, TENANT, World

USERS = [f"u{number}" for number in range(40)]  # in all four partitions
TEMPLATES = {name: {"text": name} for name in ("first", "second", "digest")}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.start()
    yield world
    await world.close()


def letters(version: int = 1, template: str = "first", moves: dict[str, str] | None = None) -> Journey:
    return Journey(
        name="letters", version=version, entry=on("go"), reentry=always, start="wait", moves=moves or {},
        steps={
            "wait": Delay(hours(1), then="send"),
            "send": Send("inapp", template=template, then="rest"),
            "rest": Delay(days(1), then="end"),
            "end": Exit(),
        },
    )  # fmt: skip


async def publish(world: World, *journeys: Journey, policy: Policy | None = None) -> list[str]:
    publication = plan([TENANT], journeys, TEMPLATES, world.host.definitions, policy, world.clock.now)
    if publication.activations:
        await world.host.log.append_atomically(publication.records(PARTITIONS))
    return [str(change) for change in publication.changes]


async def operate(world: World, act: Act) -> None:
    await world.host.log.append_atomically(act.publication.records(PARTITIONS))
    await world.until_quiet()


async def steer(world: World, action: Action, journey: str = "letters") -> None:
    await operate(world, control(world.host.definitions, TENANT, journey, action, world.clock.now))


async def tell(world: World, name: str, users: Sequence[str] = USERS, **profile: object) -> None:
    now = world.clock.now
    await world.append(*[(user, Event(f"{name}-{now}", name, now, {}, profile)) for user in users])
    await world.until_quiet()


async def pass_time(world: World, duration: timedelta) -> None:
    world.clock.now += milliseconds(duration)
    await world.until_quiet()


def sent(world: World) -> dict[str, int]:
    return dict(Counter(message.template.partition("@")[0] for message in world.messages()))


def steps(world: World) -> dict[tuple[int, str], int]:
    return dict(Counter((run.version, run.step) for user in world.users().values() for run in user.runs))


def reasons(world: World, kind: str) -> dict[str, int]:
    return dict(Counter(entry.reason for entry in world.journal() if entry.kind == kind))


async def test_a_pause_holds_everybody_and_resuming_lets_everybody_go_on_though_nobody_says_a_word(
    world: World,
) -> None:
    await publish(world, letters())
    await tell(world, "go")
    await steer(world, "pause")
    await pass_time(world, hours(5))
    await tell(world, "go", ["latecomer"])
    assert (steps(world), sent(world)) == ({(1, "wait"): 40}, {})
    assert reasons(world, "not_entered") == {"the journey is paused": 1}
    await world.restart()
    world.start()
    await pass_time(world, hours(1))
    assert (steps(world), sent(world)) == ({(1, "wait"): 40}, {})
    await steer(world, "resume")
    assert (steps(world), sent(world)) == ({(1, "rest"): 40}, {"first": 40})


async def test_what_a_long_pause_has_held_is_dropped_as_late_and_floods_nobody(world: World) -> None:
    await publish(world, letters())
    await tell(world, "go")
    await steer(world, "pause")
    await pass_time(world, days(3))
    await steer(world, "resume")
    assert (sent(world), reasons(world, "blocked")) == ({}, {"late": 40})
    assert reasons(world, "exited") == {"done": 40}


async def test_a_stop_ends_every_run_and_only_a_new_version_or_a_rollback_opens_the_journey_again(
    world: World,
) -> None:
    await publish(world, letters())
    await tell(world, "go")
    await steer(world, "stop")
    assert (steps(world), reasons(world, "exited")) == ({}, {"stopped": 40})
    await tell(world, "go")
    assert await publish(world, letters()) == [
        "shop: letters v1 is unchanged; it is stopped since 2026-01-05 08:00 UTC, until: equeengage journey rollback letters 1"
    ]
    await tell(world, "go")
    assert steps(world) == {}
    world.clock.now += 1000
    await operate(world, rollback(world.host.definitions, TENANT, "journey", "letters", 1, world.clock.now))
    await tell(world, "go")
    assert steps(world) == {(1, "wait"): 40}


async def test_retiring_lets_runs_finish_and_nobody_in(world: World) -> None:
    await publish(world, letters())
    await tell(world, "go")
    await steer(world, "retire")
    await tell(world, "go", ["latecomer"])
    await pass_time(world, hours(1))
    assert (steps(world), sent(world)) == ({(1, "rest"): 40}, {"first": 40})


async def test_moves_reach_users_who_say_nothing_and_may_end_their_runs(world: World) -> None:
    await publish(world, letters())
    await tell(world, "go")
    await publish(world, letters(2, "second", {"wait": "send"}))
    await world.until_quiet()
    assert (steps(world), sent(world)) == ({(2, "rest"): 40}, {"second": 40})
    assert reasons(world, "moved") == {"from v1, wait": 40}
    await publish(world, letters(3, moves={"rest": EXIT}))
    await world.until_quiet()
    assert (steps(world), reasons(world, "exited")) == ({}, {"moved out by v3": 40})


async def test_after_a_rollback_users_enter_the_older_version_and_runs_finish_where_they_are(world: World) -> None:
    await publish(world, letters())
    await publish(world, letters(2, "second"))
    await tell(world, "go")
    await operate(world, rollback(world.host.definitions, TENANT, "journey", "letters", 1, world.clock.now))
    assert (await publish(world, letters(2, "second")))[0].startswith("shop: letters v2 is not made current again")
    await world.restart()
    world.start()
    await tell(world, "go", ["latecomer"])
    assert steps(world) == {(2, "wait"): 40, (1, "wait"): 1}
    await pass_time(world, hours(1))
    assert sent(world) == {"second": 40, "first": 1}


async def test_a_policy_holds_from_its_publication_on_and_goes_back_with_a_rollback(world: World) -> None:
    await publish(world, letters(), policy=Policy(version=1))
    await publish(world, policy=Policy(version=2, caps=(Cap(1, days(30)),)))
    await tell(world, "go")
    await pass_time(world, hours(25))
    await tell(world, "go")
    await pass_time(world, hours(25))
    assert (sent(world), reasons(world, "blocked")) == ({"first": 40}, {"cap: at most 1 messages within 30 days": 40})
    await operate(world, rollback(world.host.definitions, TENANT, "policy", "policy", 1, world.clock.now))
    await tell(world, "go")
    await pass_time(world, hours(25))
    assert sent(world) == {"first": 80}


def digest(zone: str = "UTC") -> Journey:
    return Journey(
        name="digest", version=1, entry=schedule("0 9 * * *", zone=zone, who=profile("digest", "==", True)),
        reentry=always, start="send",
        steps={"send": Send("inapp", template="digest", then="end"), "end": Exit()},
    )  # fmt: skip


async def test_a_schedule_reaches_those_it_is_for_in_every_partition_once_each_day(world: World) -> None:
    await publish(world, digest())
    await tell(world, "joined", USERS[:30], digest=True)
    await tell(world, "joined", USERS[30:])
    for day in range(1, 4):
        await pass_time(world, hours(24))
        assert sent(world) == {"digest": 30 * day}
    await steer(world, "pause", "digest")
    await pass_time(world, hours(24))
    await steer(world, "resume", "digest")
    assert sent(world) == {"digest": 90}
    await pass_time(world, hours(24))
    assert sent(world) == {"digest": 120}
    assert reasons(world, "not_entered") == {}


async def test_a_schedule_on_the_users_own_clocks(world: World) -> None:
    await publish(world, digest("user"))
    await tell(world, "joined", ["tokyo"], digest=True, timezone="Asia/Tokyo")
    await tell(world, "joined", ["berlin"], digest=True, timezone="Europe/Berlin")
    for _ in range(26):
        await pass_time(world, hours(1))
    hours_of_day = {
        message.user: datetime.fromtimestamp(message.requested_at / 1000, UTC).hour for message in world.messages()
    }
    assert hours_of_day == {"tokyo": 0, "berlin": 8}


async def test_a_run_that_is_due_while_its_user_is_swept_moves_once(world: World) -> None:
    await publish(world, letters())
    await tell(world, "go")
    world.clock.now += milliseconds(minutes(60))
    await steer(world, "pause")
    await steer(world, "resume")
    assert sent(world) == {"first": 40}
