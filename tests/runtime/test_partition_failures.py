"""What goes wrong stays where it is: a poison record, a poison journey, a commit that fails."""

import asyncio

import pytest

from engine.runtime import states
from engine.runtime.host import PartitionStopped
from engine.turn import MAX_FIRINGS
from schemas.inputs import Receipt
from tests.runtime.stage import TENANT, Stage
from tests.runtime.trial_journeys import basket, greeting, metronome, poison

HOUR_MS = 3_600_000
BROKEN = b"\x01" + bytes(8) + b"\xc1"  # the right format, and no user: what a bug or a bad disk might leave


def break_state(stage: Stage, user: str) -> None:
    stage.host.states.values[states.USER + f"{TENANT}:{user}".encode()] = BROKEN


async def test_an_exception_outside_a_run_parks_the_record_and_leaves_the_state_as_it_was() -> None:
    stage = Stage()
    stage.publish(greeting())
    break_state(stage, "ada")
    stage.event("ben", "signed_up")
    poisonous = stage.event("ada", "signed_up")
    stage.event("cleo", "signed_up")
    await stage.play()
    [parked] = stage.log.of("dead-letters")
    assert (parked.key, parked.value) == (poisonous.key, poisonous.value)
    assert stage.reason(parked).startswith("DecodeError: ")
    assert dict(parked.headers)["dlq-offset"] == str(poisonous.offset).encode()
    assert stage.host.states.values[states.USER + b"shop:ada"] == BROKEN
    assert [message.user for message in stage.messages()] == ["ben", "cleo"]
    assert stage.host.position == stage.log.of("events")[-1].offset
    assert stage.counted("dead_letters", topic="events", reason="DecodeError") == 1


async def test_the_same_exception_for_more_than_five_users_in_a_row_stops_the_partition_and_writes_nothing() -> None:
    stage = Stage()
    for user in "abcdef":
        break_state(stage, user)
        stage.event(user, "looked")
    with pytest.raises(PartitionStopped, match=r"6 users in a row failed with DecodeError: .*mend it, restart"):
        await stage.play()
    assert stage.log.topics() == ["events"]
    assert stage.host.position == -1


async def test_one_user_may_fail_as_often_as_they_like() -> None:
    stage = Stage()
    break_state(stage, "ada")
    for _ in range(20):
        stage.event("ada", "looked")
    await stage.play()
    assert len(stage.log.of("dead-letters")) == 20


async def test_a_success_in_between_starts_the_count_anew_and_batches_do_not_matter() -> None:
    stage = Stage()
    stage.users.max_records = 2
    for user in "abcde":
        break_state(stage, user)
        stage.event(user, "looked")
    stage.event("well", "looked")
    for user in "fghij":
        break_state(stage, user)
        stage.event(user, "looked")
    await stage.play()
    assert len(stage.log.of("dead-letters")) == 10
    break_state(stage, "k")
    stage.event("k", "looked")
    with pytest.raises(PartitionStopped, match="6 users in a row"):
        await stage.play()


async def test_invalid_records_never_count_nor_do_they_excuse() -> None:
    stage = Stage()
    for number in range(50):
        stage.put(f"shop:bad{number}".encode(), b"{")
    for user in "abcde":
        break_state(stage, user)
        stage.event(user, "looked")
        stage.put(b"shop:bad", b"{")
    await stage.play()
    assert len(stage.log.of("events.invalid")) == 55
    assert len(stage.log.of("dead-letters")) == 5
    break_state(stage, "f")
    stage.event("f", "looked")
    with pytest.raises(PartitionStopped):
        await stage.play()


async def test_a_poison_journey_suspends_its_own_runs_and_the_users_others_go_on() -> None:
    stage = Stage()
    stage.publish(poison())
    stage.publish(greeting())
    for user in "abcdefgh":  # more than five: an exception inside a run says nothing about the partition
        stage.event(user, "signed_up")
    await stage.play()
    for message in stage.messages():
        stage.give(message.user, Receipt(message.id, "accepted", stage.log.now, "inapp"))
    stage.pass_time(HOUR_MS)
    await stage.play()
    stage.wake_the_due()
    await stage.play()
    assert [entry.reason for entry in stage.journal("suspended")] == [
        "LoopError: poison v1: other > one > other loops without waiting"
    ] * 8
    assert stage.sent("a") == ["hello", "hello", "goodbye"]
    [suspended] = stage.user("a").runs
    assert (suspended.journey, suspended.step) == ("poison", "one")
    assert stage.host.timers == {}
    assert not stage.log.of("dead-letters")
    assert stage.counted("runs_suspended", tenant=TENANT, journey="poison") == 8


async def test_a_suspended_run_stands_still_also_after_a_restart_and_goes_on_when_it_is_resumed() -> None:
    """An outage has made too many short waits due at once."""
    stage = Stage()
    stage.publish(metronome())
    stage.event("ada", "signed_up")
    await stage.play()
    stage.pass_time(10 * MAX_FIRINGS * 1000)
    stage.event("ada", "looked")
    await stage.play()
    [suspended] = stage.user("ada").runs
    assert suspended.suspended.startswith("RuntimeError: more than 1000 timers were due at once")
    stage.restart()
    stage.pass_time(HOUR_MS)
    stage.event("ada", "looked")
    stage.event("ada", "signed_up")
    await stage.play()
    assert stage.user("ada").runs == (suspended,)
    assert stage.host.timers == {}
    stage.resume("ada", suspended.id)
    stage.restart()
    await stage.play()
    [resumed] = stage.user("ada").runs
    assert resumed.visit == suspended.visit + MAX_FIRINGS
    assert [entry.kind for entry in stage.journal() if entry.kind in ("suspended", "resumed")] == [
        "suspended", "resumed", "suspended",
    ]  # fmt: skip


async def test_resuming_a_run_whose_journey_is_poison_suspends_it_again_and_harms_nobody() -> None:
    stage = Stage()
    stage.publish(poison())
    stage.event("ada", "signed_up")
    await stage.play()
    [message] = stage.messages()
    stage.give("ada", Receipt(message.id, "accepted", stage.log.now, "inapp"))
    stage.resume("ada", message.run)
    stage.event("ada", "looked", profile={"plan": "free"})
    await stage.play()
    assert len(stage.journal("suspended")) == 2
    assert stage.user("ada").profile == {"plan": "free"}
    assert not stage.log.of("dead-letters")


async def test_a_commit_that_fails_applies_nothing_and_the_partition_goes_on_when_it_can() -> None:
    """As when dead-letters is full, or may not be written to."""
    stage = Stage()
    stage.publish(basket())
    await stage.play()
    stage.event("ada", "basket_filled", basket="b1")
    break_state(stage, "ben")
    stage.event("ben", "looked")
    before = dict(stage.host.states.values)
    for _ in range(3):
        stage.host.fails_with = OSError("dead-letters: the topic takes no records")
        with pytest.raises(OSError, match="dead-letters"):
            await stage.play()
        assert stage.host.states.values == before
        assert stage.log.topics() == ["events"]
        stage.restart()
    await stage.play()
    assert len(stage.log.of("dead-letters")) == 1
    assert stage.step("ada") == "pause"
    assert stage.counted("dead_letters", topic="events", reason="DecodeError") == 1  # of four folds one counts


async def test_whoever_has_lost_the_partition_writes_nothing_more() -> None:
    stage = Stage()
    stage.publish(greeting())
    task = asyncio.create_task(stage.users.run())
    await stage.until_idle(task)
    former, stage.host = stage.host, stage.host.reopen()
    stage.event("ada", "signed_up")
    former.wake()
    await asyncio.wait({task}, timeout=10)
    assert type(task.exception()).__name__ == "Fenced"
    assert stage.messages() == []
