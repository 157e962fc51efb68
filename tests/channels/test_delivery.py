"""How a channel worker delivers: stories on the embedded host, with a provider that remembers."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from agents.channels.pacing import Pace
from engine.errors import PermanentFailure, TemporaryFailure, UnknownOutcome
from engine.runtime.embedded.host import EmbeddedHost
from engine.runtime.host import Fenced, PartitionStopped
from schemas.outputs import Message, Suppression
from schemas.records import NewRecord
from tests.channels.stage import HELLO, HOUR, T0, Provider, Stage, command, template, until

TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_command_is_delivered_and_its_receipt_comes_back(stage: Stage) -> None:
    provider = Provider()
    async with stage.delivering(provider):
        await stage.ask(command(), headers=(("traceparent", TRACEPARENT),))
        await until(stage.receipts)
    assert provider.calls == ["r1:1"]
    assert stage.receipts() == [("r1:1", "accepted")]
    assert stage.journal() == [("r1:1", "attempt")]
    record = next(iter(stage.records("events")))
    assert record.key == b"shop:u1"
    assert dict(record.headers) == {
        "content-type": b"application/json",
        "tenant": b"shop",
        "traceparent": TRACEPARENT,
    }
    told = next(iter(stage.records("journal")))
    assert told.key == b"shop:u1"
    assert dict(told.headers) == {**dict(record.headers), "content-type": b"application/x-ndjson"}


async def test_a_command_that_comes_twice_is_delivered_once(stage: Stage) -> None:
    provider = Provider()
    async with stage.delivering(provider):
        await stage.ask(command(), command(), command(2))
        await until(lambda: len(stage.receipts()) == 2)
    await stage.restart()
    async with stage.delivering(provider):
        await stage.ask(command(), command(3))
        await until(lambda: len(stage.receipts()) == 3)
    assert sorted(provider.calls) == ["r1:1", "r2:1", "r3:1"]


async def test_a_seen_command_is_forgotten_only_after_the_retention(stage: Stage) -> None:
    provider = Provider()
    async with stage.delivering(provider) as partition:
        await stage.ask(command())
        await until(stage.receipts)
        stage.clock.now += 7 * 24 * HOUR
        await stage.ask(command(expires_at=stage.clock.now + HOUR), command(2, expires_at=stage.clock.now + HOUR))
        await until(lambda: len(stage.receipts()) == 2)
        assert provider.calls == ["r1:1", "r2:1"]
        stage.clock.now += 24 * HOUR + 1  # logs delete by whole segments: a day more
        await stage.ask(command(3, expires_at=stage.clock.now + HOUR))
        await until(lambda: len(stage.receipts()) == 3)
        await until(lambda: not partition._ledger.knows("shop", "r1:1"))
        assert partition._ledger.knows("shop", "r2:1")


async def test_an_expired_command_is_dropped_as_late(stage: Stage) -> None:
    provider = Provider()
    async with stage.delivering(provider):
        await stage.ask(command(expires_at=T0))
        await until(stage.receipts)
    assert provider.calls == []
    [receipt] = stage.full_receipts()
    assert (receipt.status, receipt.detail) == ("dropped", "late")


async def test_a_broken_or_missing_template_costs_its_own_message_only(stage: Stage) -> None:
    provider = Provider()
    async with stage.delivering(provider):
        await stage.ask(command(1, profile={}), command(2, template="nowhere@000000000000"), command(3))
        await until(lambda: len(stage.receipts()) == 2)
        assert set(stage.receipts()) == {("r1:1", "failed"), ("r3:1", "accepted")}
        await until(lambda: ("r2:1", "retry") in stage.journal())
        stage.clock.now += 31_000  # it might have been published a moment ago: half a minute of patience
        await until(lambda: ("r2:1", "failed") in stage.receipts())
    assert "rendered" in stage.full_receipts()[0].detail + stage.full_receipts()[1].detail
    assert "nowhere" in stage.full_receipts()[-1].detail


async def test_a_template_that_arrives_a_moment_late_is_waited_for(stage: Stage) -> None:
    late = template("late", text="here I am")
    async with stage.delivering(Provider()):
        await stage.ask(command(template=late.key.rpartition("/")[2]))
        await until(lambda: ("r1:1", "retry") in stage.journal())
        await stage.publish(late)
        stage.clock.now += 10_000
        await until(stage.receipts)
    assert stage.receipts() == [("r1:1", "accepted")]


async def test_a_suppressed_address_gets_nothing_but_transactional_messages_of_other_topics(stage: Stage) -> None:
    provider = Provider()
    suppression = msgspec.json.encode(Suppression("marketing", T0))
    await stage.host.log.append([NewRecord("suppressions", b"shop:email:marketing:u1@example.com", suppression)])
    suppression = msgspec.json.encode(Suppression("all", T0))
    await stage.host.log.append([NewRecord("suppressions", b"shop:email:all:u2@example.com", suppression)])
    async with stage.delivering(provider):
        await stage.ask(
            command(1),
            command(2),
            command(3, address="u1@example.com", transactional=True),
            command(4, address="u2@example.com", transactional=True),
        )
        await until(lambda: len(stage.receipts()) == 4)
    assert set(stage.receipts()) == {
        ("r1:1", "dropped"),
        ("r2:1", "dropped"),
        ("r3:1", "accepted"),
        ("r4:1", "dropped"),
    }
    assert provider.calls == ["r3:1"]


async def test_a_refusal_is_a_receipt(stage: Stage) -> None:
    provider = Provider()
    refusals = {"r1:1": PermanentFailure("no such user", bounced=True), "r2:1": PermanentFailure("content refused")}
    provider.answer = lambda message: refusals[message.id]
    async with stage.delivering(provider):
        await stage.ask(command(1), command(2))
        await until(lambda: len(stage.receipts()) == 2)
    assert set(stage.receipts()) == {("r1:1", "bounced"), ("r2:1", "failed")}


async def test_later_is_tried_again_after_a_pause_and_across_a_restart(stage: Stage) -> None:
    provider = Provider()
    provider.answer = lambda message: TemporaryFailure("greylisted")
    async with stage.delivering(provider):
        await stage.ask(command())
        await until(lambda: ("r1:1", "retry") in stage.journal())
    await stage.restart()
    provider.answer = lambda message: None
    async with stage.delivering(provider):
        await stage.ask(command(2))
        await until(lambda: ("r2:1", "accepted") in stage.receipts())
        assert provider.calls == ["r1:1", "r2:1"]  # not due yet
        stage.clock.now += 7_000
        await until(lambda: ("r1:1", "accepted") in stage.receipts())
    assert stage.journal() == [
        ("r1:1", "attempt"),
        ("r1:1", "retry"),
        ("r2:1", "attempt"),
        ("r1:1", "attempt"),
    ]


async def test_a_provider_that_names_a_time_is_not_asked_before(stage: Stage) -> None:
    provider = Provider()
    provider.answer = lambda message: TemporaryFailure("slow down", retry_after_seconds=600)
    async with stage.delivering(provider):
        await stage.ask(command())
        await until(lambda: ("r1:1", "retry") in stage.journal())
    [retry] = [entry for entry in stage.entries() if entry.kind == "retry"]
    assert retry.reason == "slow down"
    assert retry.detail["due_at"] >= T0 + 600_000


async def test_a_slow_recipient_does_not_keep_others_waiting(stage: Stage) -> None:
    provider = Provider()
    provider.held["r1:1"] = asyncio.Event()
    async with stage.delivering(provider):
        await stage.ask(*(command(number) for number in range(1, 41)))
        await until(lambda: len(stage.receipts()) == 39)
        provider.held["r1:1"].set()
        await until(lambda: len(stage.receipts()) == 40)


async def test_no_more_calls_than_allowed_are_under_way(stage: Stage) -> None:
    provider = Provider()
    provider.held = {f"r{number}:1": asyncio.Event() for number in range(1, 8)}
    async with stage.delivering(provider, pace=Pace(3, 1000)):
        await stage.ask(*(command(number) for number in range(1, 8)))
        await until(lambda: len(provider.calls) == 3)
        provider.held["r2:1"].set()
        await until(lambda: len(provider.calls) == 4)
        assert stage.receipts() == [("r2:1", "accepted")]
        for event in provider.held.values():
            event.set()
        await until(lambda: len(stage.receipts()) == 7)


async def test_the_pace_is_kept(stage: Stage) -> None:
    provider = Provider()
    began = asyncio.get_running_loop().time()
    async with stage.delivering(provider, pace=Pace(10, 50)):
        await stage.ask(*(command(number) for number in range(1, 31)))
        await until(lambda: len(stage.receipts()) == 30)
    # A fifth of a second's worth at once, then 50 a second: the 30th can't begin before 0.4 s.
    assert asyncio.get_running_loop().time() - began >= 0.39


async def test_two_partitions_share_a_pace_and_neither_starves() -> None:
    stage = Stage(partitions=2)
    await stage.publish(HELLO)
    provider, pace = Provider(), Pace(1, 10_000)
    partitions = [stage.partition(provider, pace, number=number) for number in range(2)]
    await stage.host.log.append(
        [
            NewRecord("messages.email", b"shop:x", msgspec.json.encode(command(number)), partition=int(number > 200))
            for number in range(1, 221)
        ]
    )
    tasks = [asyncio.create_task(partition.run()) for partition in partitions]
    small = {f"r{number}:1" for number in range(201, 221)}
    await until(lambda: small <= set(provider.calls), 10)
    assert len(provider.calls) < 150, "the partition with much to do went first with all of it"
    for partition in partitions:
        partition.stop()
    await asyncio.gather(*tasks)
    assert pace.taken == 0
    await stage.close()


async def test_a_tenant_whose_endpoint_hangs_does_not_slow_down_the_others(stage: Stage) -> None:
    class ByTenant(Provider):
        def lane(self, message: Message) -> str | None:
            return message.tenant

    now = 0.0
    provider, pace = ByTenant(), Pace(4, 1000, clock=lambda: now)
    provider.held = {f"r{number}:1": asyncio.Event() for number in range(1, 21)}
    await stage.publish(msgspec.structs.replace(HELLO, tenant="slow"))
    async with stage.delivering(provider, pace=pace):
        await stage.ask(*(command(number, tenant="slow") for number in range(1, 21)))
        await until(lambda: len(provider.calls) == 2)  # half of what may be under way at once
        await stage.ask(*(command(number) for number in range(21, 31)))
        now = 3.0  # this is slow
        await until(lambda: len(stage.receipts()) == 10)
        assert provider.calls[:2] == ["r1:1", "r2:1"]
        assert {message for message, _ in stage.receipts()} == {f"r{number}:1" for number in range(21, 31)}
        for event in provider.held.values():
            event.set()
        # Not before both have ended: whoever comes again while they still hang is put off once more.
        await until(lambda: len(stage.receipts()) >= 12)
        now = 10.0
        stage.clock.now += 70_000
        await until(lambda: len(stage.receipts()) == 30)
    assert len(provider.calls) == 30
    assert pace.taken == 0


async def test_an_error_of_the_host_does_not_cut_off_calls(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = Provider()
    provider.held["r1:1"] = asyncio.Event()
    task = asyncio.create_task(stage.partition(provider).run())
    await stage.ask(command(1))
    await until(lambda: provider.calls)

    async def lose_the_broker(*arguments: str) -> str | None:
        provider.held["r1:1"].set()
        raise OSError("no broker")

    monkeypatch.setattr(stage.host.suppressions, "scope", lose_the_broker)
    await stage.ask(command(2), command(3))
    with pytest.raises(OSError, match="no broker"):
        await task
    assert stage.receipts() == [("r1:1", "accepted")]
    monkeypatch.undo()
    async with stage.delivering(provider):
        await until(lambda: len(stage.receipts()) == 3)
    assert {status for _, status in stage.receipts()} == {"accepted"}, "attempts that were not made were written down"


async def test_what_was_seen_and_what_waits_is_found_again_on_disk(tmp_path: Path) -> None:
    provider = Provider()
    provider.answer = lambda message: TemporaryFailure("busy") if len(provider.calls) == 1 else None
    stage = Stage()
    stage.host = EmbeddedHost.open(tmp_path, 1, clock=stage.clock)
    await stage.publish(HELLO)
    async with stage.delivering(provider):
        await stage.ask(command(1))
        await until(lambda: ("r1:1", "retry") in stage.journal())
        await stage.ask(command(2))
        await until(stage.receipts)
    await stage.close()

    stage.host = EmbeddedHost.open(tmp_path, 1, clock=stage.clock)
    stage.clock.now += 10_000
    async with stage.delivering(provider):
        await stage.ask(command(1), command(2), command(3))
        await until(lambda: len(stage.receipts()) == 3)
    assert sorted(stage.receipts()) == [("r1:1", "accepted"), ("r2:1", "accepted"), ("r3:1", "accepted")]
    assert sorted(provider.calls) == ["r1:1", "r1:1", "r2:1", "r3:1"]
    await stage.close()


async def test_what_can_not_be_read_is_parked_and_delivery_goes_on(stage: Stage) -> None:
    async with stage.delivering(Provider()):
        await stage.host.log.append(
            [
                NewRecord("messages.email", b"shop:u", b'{"id": 3'),
                NewRecord("messages.email", b"shop:u", None),
                NewRecord("messages.email", b"shop:u", msgspec.json.encode(command(1, channel="push"))),
            ]
        )
        await stage.ask(command(2))
        await until(stage.receipts)
    parked = list(stage.records("dead-letters"))
    assert len(parked) == 3
    assert parked[0].value == b'{"id": 3'
    assert dict(parked[2].headers)["dlq-offset"] == b"2"


async def test_a_receiver_that_is_gone_is_suppressed(stage: Stage) -> None:
    provider = Provider()
    provider.answer = lambda message: PermanentFailure("410 Gone", gone=True)
    async with stage.delivering(provider):
        await stage.ask(command())
        await until(stage.receipts)
        await stage.ask(command(2, address="u1@example.com"))
        await until(lambda: len(stage.receipts()) == 2)
    assert provider.calls == ["r1:1"]
    assert stage.receipts() == [("r1:1", "failed"), ("r2:1", "dropped")]


@pytest.mark.parametrize(
    ("transactional", "idempotent", "again"), [(False, False, False), (True, False, True), (False, True, True)]
)
async def test_an_unknown_outcome_is_never_hidden(
    stage: Stage, transactional: bool, idempotent: bool, again: bool
) -> None:
    provider = Provider(idempotent)
    provider.answer = lambda message: UnknownOutcome("connection lost") if len(provider.calls) == 1 else None
    async with stage.delivering(provider):
        await stage.ask(command(transactional=transactional))
        await until(stage.receipts)
        stage.clock.now += 10_000
        if again:
            await until(lambda: len(stage.receipts()) == 2)
    assert stage.receipts()[0] == ("r1:1", "unknown")
    assert provider.calls == ["r1:1"] * (2 if again else 1)
    assert b'equeengage_channel_outcomes_total{channel="email",status="unknown"} 1.0' in stage.metrics.render()[0]


async def test_a_crash_during_a_call_is_unknown_and_marketing_is_not_sent_again(stage: Stage) -> None:
    provider = Provider()
    provider.held = {"r1:1": asyncio.Event(), "r2:1": asyncio.Event()}
    await stage.ask(command(1), command(2, transactional=True))
    old_host = stage.host
    task = asyncio.create_task(stage.partition(provider).run())
    await until(lambda: len(provider.calls) == 2)
    await stage.crash()
    for event in provider.held.values():
        event.set()  # they arrive, and the dead worker can't write it down
    with pytest.raises(PartitionStopped):  # the store is gone
        await task
    await old_host.close()  # what is wrong with the store has been said

    async with stage.delivering(provider):
        await until(lambda: len(stage.receipts()) == 2)
        assert set(stage.receipts()) == {("r1:1", "unknown"), ("r2:1", "unknown")}
        stage.clock.now += 10_000
        await until(lambda: ("r2:1", "accepted") in stage.receipts())
    assert provider.calls == ["r1:1", "r2:1", "r2:1"]


async def test_a_clean_stop_lets_calls_end_and_writes_down_what_they_came_to(stage: Stage) -> None:
    provider = Provider()
    provider.held["r1:1"] = asyncio.Event()
    task = asyncio.create_task(stage.partition(provider).run())
    await stage.ask(command())
    await until(lambda: provider.calls)
    task.cancel()  # how hosts stop a loop
    await asyncio.sleep(0)
    provider.held["r1:1"].set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.receipts() == [("r1:1", "accepted")]


async def test_a_call_that_does_not_end_is_cut_off_at_a_stop_and_is_unknown_afterwards(stage: Stage) -> None:
    provider = Provider()
    provider.held["r1:1"] = asyncio.Event()
    async with stage.delivering(provider, drain_seconds=0.05):
        await stage.ask(command())
        await until(lambda: provider.calls)
    assert stage.receipts() == []
    async with stage.delivering(provider):
        await until(stage.receipts)
    assert stage.receipts() == [("r1:1", "unknown")]


async def test_a_fenced_worker_stops_and_cuts_off_its_calls(stage: Stage) -> None:
    provider = Provider()
    provider.held["r1:1"] = asyncio.Event()
    pace = Pace(10, 1000)
    task = asyncio.create_task(stage.partition(provider, pace).run())
    await stage.ask(command())
    await until(lambda: provider.calls)
    stage.host.partition("messages.email", 0)  # another worker has it now
    with pytest.raises(Fenced):
        await task
    assert pace.taken == 0
    assert stage.receipts() == []


async def test_a_call_does_not_begin_long_after_its_attempt_was_committed(stage: Stage) -> None:
    provider = Provider()
    partition = stage.partition(provider)
    partition._begin_within_seconds = -1.0  # as if the process had been frozen between the two
    await stage.ask(command())
    task = asyncio.create_task(partition.run())
    await until(lambda: ("r1:1", "retry") in stage.journal())
    partition._begin_within_seconds = 5.0
    stage.clock.now += 1000
    await until(stage.receipts)
    partition.stop()
    await task
    assert provider.calls == ["r1:1"]
    assert stage.receipts() == [("r1:1", "accepted")]


async def test_a_bug_in_a_channel_is_an_unknown_outcome(stage: Stage) -> None:
    provider = Provider()
    provider.answer = lambda message: KeyError("oops")
    async with stage.delivering(provider):
        await stage.ask(command())
        await until(stage.receipts)
    assert stage.receipts() == [("r1:1", "unknown")]


async def test_attempts_are_durable_before_the_provider_is_called(stage: Stage) -> None:
    class Suspicious(Provider):
        async def deliver(self, message: Message, content: str) -> str:
            assert not stage.store._unsynced, "called before the attempt was on the disk"
            return await super().deliver(message, content)

    provider = Suspicious()
    async with stage.delivering(provider):
        await stage.ask(*(command(number) for number in range(1, 10)))
        await until(lambda: len(stage.receipts()) == 9)
    assert {status for _, status in stage.receipts()} == {"accepted"}
