"""What reaches every user of a partition: sweeps, schedules, pauses, stops and moves; and what quotas answer."""

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from engine import Delay, Exit, Journey, Send, Throttle, always, hours, on, profile, schedule
from engine.definitions import freeze_policy
from engine.policy import Cap, Policy
from engine.runtime import states
from engine.runtime.steering import CHUNK
from schemas.inputs import Asked, Controlled, Entered, Swept
from tests.runtime.stage import TENANT, Stage
from tests.runtime.trial_journeys import greeting, news

HOUR_MS = 3_600_000


def reminder(version: int = 1, **more: object) -> Journey:
    return Journey(
        name="reminder", version=version, entry=on("go"), start="wait",
        steps={"wait": Delay(hours(1), then="send"), "send": Send("push", template="hello", then="end"), "end": Exit()},
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def control(stage: Stage, action: str) -> None:
    stage.put(None, msgspec.json.encode(Controlled(TENANT, "reminder", action)))  # type: ignore[arg-type]


async def test_silent_users_are_stopped_by_a_sweep_however_many_they_are() -> None:
    stage = Stage()
    stage.publish(reminder())
    for number in range(2 * CHUNK + 3):
        stage.event(f"u{number:05}", "go")
    control(stage, "stop")
    await stage.play()
    exited = stage.journal("exited")
    assert {entry.reason for entry in exited} == {"stopped"}
    assert len({entry.user for entry in exited}) == len(exited) == 2 * CHUNK + 3
    assert stage.host.timers == {}


async def test_a_sweep_sees_users_that_came_in_the_same_batch_and_only_those_of_its_tenant() -> None:
    stage = Stage()
    stage.publish(reminder())
    stage.event("ann", "go")
    stage.put(b"shop-two:bob", msgspec.json.encode(Entered("x", "reminder", "api")))
    stage.put(None, msgspec.json.encode(Swept("s1", TENANT)))
    await stage.play()
    woken = [record.key for record in stage.log.of("events") if b"wake_up" in (record.value or b"")]
    assert woken == [b"shop:ann"]


async def test_a_paused_journey_has_no_timers_and_gets_them_back() -> None:
    stage = Stage()
    stage.publish(reminder())
    stage.event("ann", "go", profile={"push_token": "t"})
    control(stage, "pause")
    await stage.play()
    assert stage.host.timers == {}
    stage.pass_time(5 * HOUR_MS)
    control(stage, "resume")
    await stage.play()
    assert stage.sent("ann") == ["hello"]


async def test_a_pause_is_known_again_after_a_restart() -> None:
    stage = Stage()
    stage.publish(reminder())
    stage.event("ann", "go")
    control(stage, "pause")
    await stage.play()
    stage.restart()
    stage.pass_time(5 * HOUR_MS)
    stage.event("ann", "looked")
    await stage.play()
    assert (stage.sent("ann"), stage.step("ann")) == ([], "wait")


async def test_moves_reach_silent_users_and_are_known_again_after_a_restart() -> None:
    stage = Stage()
    stage.publish(reminder())
    stage.event("ann", "go")
    stage.publish(reminder(2, moves={"wait": "end"}))
    await stage.play()
    stage.restart()
    stage.event("bob", "go")
    await stage.play()
    assert [(entry.user, entry.reason) for entry in stage.journal("moved")] == [("ann", "from v1, wait")]
    assert stage.step("bob") == "wait"


async def test_a_policy_is_activated_through_the_log_and_known_after_a_restart() -> None:
    stage = Stage()
    stage.publish(Journey(
        name="hi", version=1, entry=on("go"), reentry=always, start="send",
        steps={"send": Send("push", template="hello", then="end"), "end": Exit()},
    ))  # fmt: skip
    stage.event("ann", "go", profile={"push_token": "t"})
    policy = freeze_policy(TENANT, Policy(version=1, caps=(Cap(1, hours(24)),)))
    stage.definitions.arrive(policy)
    stage.activate(policy)
    stage.event("ann", "go")
    await stage.play()
    stage.restart()
    stage.event("ann", "go")
    await stage.play()
    assert stage.sent("ann") == ["hello", "hello"]
    assert len(stage.journal("blocked")) == 1


def digest(zone: str = "UTC") -> Journey:
    return Journey(
        name="digest", version=1, entry=schedule("0 9 * * *", zone=zone, who=profile("digest", "==", True)), reentry=always,
        start="send", steps={"send": Send("push", template="hello", then="end"), "end": Exit()},
    )  # fmt: skip


async def test_a_schedule_enters_everybody_it_is_for_and_plans_its_next_time() -> None:
    stage = Stage()
    stage.publish(digest())
    stage.event("ann", "looked", profile={"push_token": "t", "digest": True})
    stage.event("bob", "looked", profile={"push_token": "t"})
    await stage.play()
    assert [datetime.fromtimestamp(at / 1000, UTC).hour for at in stage.host.timers.values()] == [9]
    for _ in range(3):
        stage.pass_time(24 * HOUR_MS)
        stage.wake_the_due()
        await stage.play()
    assert stage.sent() == ["hello"] * 3
    assert {message.user for message in stage.messages()} == {"ann"}
    assert len(stage.host.timers) == 1


async def test_a_schedule_missed_during_an_outage_is_caught_up_once() -> None:
    stage = Stage()
    stage.publish(digest())
    stage.event("ann", "looked", profile={"push_token": "t", "digest": True})
    await stage.play()
    stage.pass_time(10 * 24 * HOUR_MS)
    stage.wake_the_due()
    await stage.play()
    assert stage.sent() == ["hello"]


async def test_a_schedules_time_is_not_skipped_by_a_version_that_comes_between_it_and_its_wake_up() -> None:
    stage = Stage()
    stage.publish(news())
    stage.event("ann", "looked")
    await stage.play()
    stage.pass_time(HOUR_MS)
    stage.publish(replace(news(), version=2))
    stage.wake_the_due()  # which is for the time that came before
    await stage.play()
    assert stage.sent() == ["news"]
    stage.pass_time(HOUR_MS)
    stage.wake_the_due()
    await stage.play()
    assert stage.sent() == ["news", "news"]


async def test_a_schedules_time_that_came_before_a_version_without_one_lets_nobody_in() -> None:
    stage = Stage()
    stage.publish(news())
    stage.event("ann", "looked")
    await stage.play()
    stage.pass_time(HOUR_MS)
    stage.publish(replace(news(), version=2, entry=on("asked")))
    await stage.play()
    assert (stage.sent(), stage.host.timers) == ([], {})
    stage.event("ann", "asked")
    await stage.play()
    assert stage.sent() == ["news"]


async def test_while_a_journey_is_paused_or_closed_its_schedule_goes_through_nobody_and_plans_on() -> None:
    stage = Stage()
    stage.publish(digest())
    stage.event("ann", "looked", profile={"push_token": "t", "digest": True})
    await stage.play()
    for action, sent in (("pause", 0), ("resume", 1), ("retire", 1)):
        stage.put(None, msgspec.json.encode(Controlled(TENANT, "digest", action)))  # type: ignore[arg-type]
        stage.pass_time(24 * HOUR_MS)
        await stage.play()
        stage.wake_the_due()
        await stage.play()
        assert len(stage.sent()) == sent
        assert len(stage.host.timers) == 1
    assert stage.journal("not_entered") == []


async def test_a_schedule_on_the_users_clocks_reaches_each_at_their_nine() -> None:
    stage = Stage()
    stage.publish(digest("user"))
    stage.event("ann", "looked", profile={"push_token": "t", "digest": True, "timezone": "Asia/Tokyo"})
    stage.event("bob", "looked", profile={"push_token": "t", "digest": True, "timezone": "America/New_York"})
    await stage.play()
    for _ in range(48):
        stage.pass_time(HOUR_MS)
        stage.wake_the_due()
        await stage.play()
    hours_sent = {
        (message.user, datetime.fromtimestamp(message.requested_at / 1000, UTC).hour) for message in stage.messages()
    }
    assert hours_sent == {("ann", 0), ("bob", 14)}
    assert len(stage.messages()) >= 2


async def test_a_new_version_without_a_schedule_ends_the_campaign() -> None:
    stage = Stage()
    stage.publish(digest())
    await stage.play()
    stage.publish(Journey(name="digest", version=2, entry=on("go"), start="end", steps={"end": Exit()}))
    await stage.play()
    assert stage.host.timers == {}
    assert stage.host.store.get(states.USER + b"shop/campaign:digest") is None


async def test_a_quota_answers_each_run_once_and_lives_through_a_restart() -> None:
    stage = Stage()
    stage.publish(Journey(
        name="slow", version=1, entry=on("go"), start="turn",
        steps={"turn": Throttle(1, then="send"), "send": Send("push", template="hello", then="end"), "end": Exit()},
    ))  # fmt: skip
    for user in ("ann", "bob"):
        stage.event(user, "go", profile={"push_token": "t"})
    await stage.play()
    assert stage.sent() == ["hello"]
    stage.restart()
    stage.event("cleo", "go", profile={"push_token": "t"})
    await stage.play()
    assert sorted(at - stage.log.now for at in stage.host.timers.values()) == [60_000, 120_000]


@pytest.mark.parametrize(
    ("key", "input", "reason"),
    [
        (b"shop:ann", Asked("r:1", "ann", every_ms=5), "a user isn't asked for a place"),
        (b"shop/quota:x", Entered("e", "j", "api"), "a quota is not given a entered"),
        (b"shop/secret:x", Entered("e", "j", "api"), "the key is not tenant:user"),
        (b"shop:ann", Swept("s", "shop"), "this is addressed to a partition: it has no key"),
        (None, Entered("e", "j", "api"), "the record has no key, so it is nobody's"),
    ],
)
async def test_what_is_addressed_wrongly_is_invalid(key: bytes | None, input: object, reason: str) -> None:
    stage = Stage()
    stage.put(key, msgspec.json.encode(input))
    await stage.play()
    assert [stage.reason(record) for record in stage.log.of("events.invalid")] == [reason]


async def test_who_was_erased_stays_unknown_whatever_comes() -> None:
    from schemas.inputs import Erased

    stage = Stage()
    stage.publish(greeting())
    stage.event("ann", "signed_up", profile={"push_token": "t"})
    stage.give("ann", Erased("e1"))
    stage.event("ann", "looked", profile={"email": "ann@example.com"})
    await stage.play()
    assert stage.user("ann").erased
    assert stage.user("ann").profile == {}
