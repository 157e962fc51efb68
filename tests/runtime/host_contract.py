"""What every host promises to the loops that run on it, as stories; each host's test module runs them all.

A host brings a `harness` fixture (see `Harness`) and one class:

    class TestEmbeddedHost(HostContract): ...

A loop sees a host only from inside: it is called with a `PartitionHost`, once for each partition, and again after a crash.
The loop used here is `CountingLoop`: it counts each user's events in the store and says so in the journal, so that every
event lost, doubled, out of order or half committed shows there.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec
import pytest

from engine.runtime.host import Batch, Definitions, Log, PartitionHost, Suppressions, Unavailable
from engine.runtime.intake import check_tenant, owner_of
from schemas.definitions import Definition
from schemas.inputs import Activated, WakeUp
from schemas.outputs import Suppression
from schemas.records import NewRecord, Record

Loop = Callable[[PartitionHost], Awaitable[None]]


class Harness(Protocol):
    """A host under test, that can be crashed and found again. Its topics are empty when the test begins."""

    patience_seconds: float  # how long at most a test waits for what must come
    log: Log
    definitions: Definitions
    suppressions: Suppressions

    async def open(self, loops: Mapping[str, Loop]) -> None:
        """Start the host, or start it again after `close` or `crash`, with what it kept; run a loop on each partition of
        each topic. Sets the attributes anew."""
        ...

    async def close(self) -> None:
        """Stop as on Ctrl-C."""
        ...

    async def crash(self) -> None:
        """Stop as by kill -9, or worse: nothing the host would still do is done."""
        ...


class HostContract:
    """The stories."""

    async def test_each_users_events_are_folded_once_and_in_order(self, harness: Harness) -> None:
        loop = CountingLoop()
        await harness.open({"events": loop})
        users = [f"t:user{number}" for number in range(7)]
        for round in range(30):
            await harness.log.append([event(user, f"{user}#{round}") for user in users])
        for user in users:
            await eventually(harness, partial(has_told, harness, user, 30))
            assert told(harness, user) == [f"{round + 1} {user}#{round}" for round in range(30)]

    async def test_a_record_arrives_where_its_key_belongs(self, harness: Harness) -> None:
        loop = CountingLoop()
        await harness.open({"events": loop})
        await harness.log.append([event(f"t:user{number}", "x") for number in range(50)])
        await eventually(harness, lambda: len(loop.seen) == 50)

        assert len(loop.hosts) == harness.log.partitions("events") > 1
        for number, record in loop.seen:
            assert loop.hosts[number].partition_for(record.key or b"") == number

    async def test_a_record_addressed_to_a_partition_arrives_there(self, harness: Harness) -> None:
        loop = CountingLoop()
        await harness.open({"events": loop})
        last = harness.log.partitions("events") - 1
        await harness.log.append([NewRecord("events", None, b'{"id": "to you"}', (), last)])
        await eventually(harness, lambda: bool(loop.seen))

        assert [(number, record.key) for number, record in loop.seen] == [(last, None)]

    async def test_a_record_keeps_its_headers_and_gets_the_logs_time(self, harness: Harness) -> None:
        loop = CountingLoop()
        await harness.open({"events": loop})
        before = time.time_ns() // 1_000_000
        await harness.log.append([event("t:ann", "x", headers=(("tenant", b"t"), ("traceparent", b"00-ab")))])
        await eventually(harness, lambda: bool(loop.seen))
        record = loop.seen[0][1]

        assert dict(record.headers) == {"tenant": b"t", "traceparent": b"00-ab"}
        assert before - 1000 <= record.timestamp <= time.time_ns() // 1_000_000 + 1000

    async def test_a_poll_with_nothing_to_read_returns_empty_and_a_wake_ends_it_early(self, harness: Harness) -> None:
        polls: list[tuple[float, int]] = []
        hosts: list[PartitionHost] = []

        async def loop(host: PartitionHost) -> None:
            hosts.append(host)
            for timeout in (0.05, 3600.0):
                began = time.monotonic()
                records = await host.poll(10, timeout)
                polls.append((time.monotonic() - began, len(records)))
            await asyncio.Event().wait()

        await harness.open({"events": loop})
        count = harness.log.partitions("events")
        await eventually(harness, lambda: len(polls) == count)
        for host in hosts:
            host.wake()
        await eventually(harness, lambda: len(polls) == 2 * count)
        assert all(records == 0 for _, records in polls)

    async def test_a_poll_returns_no_more_than_it_was_asked_for(self, harness: Harness) -> None:
        loop = CountingLoop(limit=3)
        await harness.open({"events": loop})
        await harness.log.append([event("t:ann", str(number)) for number in range(20)])
        await eventually(harness, lambda: len(loop.seen) == 20)

        assert max(loop.batches) <= 3

    async def test_after_a_clean_stop_nothing_is_read_again(self, harness: Harness) -> None:
        await harness.open({"events": (first := CountingLoop())})
        await harness.log.append([event("t:ann", str(number)) for number in range(10)])
        await eventually(harness, lambda: len(told(harness, "t:ann")) == 10)
        await harness.close()

        await harness.open({"events": (second := CountingLoop())})
        await harness.log.append([event("t:ann", "new")])
        await eventually(harness, lambda: len(told(harness, "t:ann")) == 11)
        assert len(first.seen) == 10
        assert second.ids() == ["new"]
        assert told(harness, "t:ann")[-1] == "11 new", "the store is as it was left"

    async def test_what_was_not_committed_is_read_again_and_has_left_no_trace(self, harness: Harness) -> None:
        stuck = CountingLoop(hold="before commit")
        await harness.open({"events": stuck})
        await harness.log.append([event("t:ann", str(number)) for number in range(5)])
        await eventually(harness, lambda: bool(stuck.seen))
        assert told(harness, "t:ann") == []
        await harness.crash()

        await harness.open({"events": (loop := CountingLoop())})
        await eventually(harness, lambda: len(told(harness, "t:ann")) == 5)
        assert loop.ids() == ["0", "1", "2", "3", "4"]
        assert told(harness, "t:ann") == ["1 0", "2 1", "3 2", "4 3", "5 4"]

    async def test_what_was_committed_and_durable_is_not_read_again(self, harness: Harness) -> None:
        stuck = CountingLoop(hold="after durable")
        await harness.open({"events": stuck})
        await harness.log.append([event("t:ann", str(number)) for number in range(5)])
        await eventually(harness, lambda: stuck.held > 0)
        committed = [record for _, record in stuck.seen]
        await harness.crash()

        await harness.open({"events": (loop := CountingLoop())})
        await eventually(harness, lambda: len(told(harness, "t:ann")) == 5)
        assert loop.ids() == [str(number) for number in range(len(committed), 5)]
        assert told(harness, "t:ann") == ["1 0", "2 1", "3 2", "4 3", "5 4"]

    async def test_an_error_in_the_loop_costs_nothing_and_doubles_nothing(self, harness: Harness) -> None:
        loop = CountingLoop(fail_times=1)
        await harness.open({"events": loop})
        await harness.log.append([event("t:ann", str(number)) for number in range(5)])
        await eventually(harness, lambda: len(told(harness, "t:ann")) == 5)

        assert told(harness, "t:ann") == ["1 0", "2 1", "3 2", "4 3", "5 4"]

    async def test_crashes_under_load_lose_nothing_confirmed_and_double_nothing(self, harness: Harness) -> None:
        confirmed: list[str] = []
        tried: list[str] = []
        users = [f"t:user{number}" for number in range(5)]
        for crash in range(4):
            await harness.open({"events": CountingLoop(limit=7, durable=crash % 2 == 0)})
            writers = [asyncio.create_task(_write(harness.log, user, crash, tried, confirmed)) for user in users]
            await eventually(harness, partial(_has_grown, confirmed, len(confirmed) + 60))
            await harness.crash()
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)

        await harness.open({"events": CountingLoop()})
        await eventually(
            harness, lambda: set(confirmed) <= {line.split()[1] for user in users for line in told(harness, user)}
        )
        for user in users:
            lines = [line.split() for line in told(harness, user)]
            ids = [id for _, id in lines]
            assert [int(count) for count, _ in lines] == list(range(1, len(lines) + 1)), "the states follow the journal"
            assert max(Counter(ids).values(), default=1) == 1, "nothing twice"
            assert set(ids) <= set(tried)
            assert ids == sorted(ids, key=tried.index), "in the order in which they were appended"

    async def test_a_state_deleted_stays_deleted(self, harness: Harness) -> None:
        await harness.open({"events": CountingLoop()})
        await harness.log.append([event("t:ann", "1"), event("t:bob", "1"), event("t:ann", "erase")])
        await eventually(harness, lambda: len(told(harness, "t:ann")) == 2 and len(told(harness, "t:bob")) == 1)
        await harness.close()
        await harness.open({"events": CountingLoop()})
        await harness.log.append([event("t:ann", "2"), event("t:bob", "2")])
        await eventually(harness, lambda: len(told(harness, "t:ann")) == 3 and len(told(harness, "t:bob")) == 2)

        assert told(harness, "t:ann") == ["1 1", "gone erase", "1 2"]
        assert told(harness, "t:bob") == ["1 1", "2 2"]

    async def test_a_store_is_scanned_in_order_and_by_range(self, harness: Harness) -> None:
        loop = CountingLoop()
        await harness.open({"events": loop})
        await harness.log.append([event(f"t:user{number}", "x") for number in range(40)])
        await eventually(harness, lambda: sum(loop.batches) == 40 and not loop.busy)
        found = []
        for host in loop.hosts.values():
            keys = [key for key, _ in host.store.scan(b"u", b"v")]
            assert keys == sorted(keys)
            assert [key for key, _ in host.store.scan(b"ut:user3", b"ut:user4")] == [
                key for key in keys if key.startswith(b"ut:user3")
            ]
            assert list(host.store.scan(b"v")) == []
            found += keys

        assert sorted(found) == sorted(f"ut:user{number}".encode() for number in range(40))

    async def test_what_a_fold_sends_elsewhere_arrives_there_and_its_answer_comes_back(self, harness: Harness) -> None:
        async def answer(host: PartitionHost) -> None:
            while True:
                records = await host.poll(100, 0.1)
                if records:
                    batch = Batch(records[-1].offset)
                    for record in records:
                        id = json.loads(record.value or b"{}")["id"]
                        batch.outputs.append(event((record.key or b"").decode(), f"answer-to-{id}"))
                    await host.commit(batch)

        await harness.open({"events": CountingLoop(send_to="messages.email"), "messages.email": answer})
        users = [f"t:user{number}" for number in range(10)]
        await harness.log.append([event(user, "hello") for user in users])
        for user in users:
            await eventually(harness, partial(has_told, harness, user, 2))
            assert told(harness, user) == ["1 hello", "2 answer-to-hello"]

    async def test_a_definition_is_waited_for_and_activated_in_every_partition(self, harness: Harness) -> None:
        loop = CountingLoop()
        await harness.open({"events": loop})
        definition = Definition("t", "journey", "welcome", 1, "ab" * 32, msgspec.Raw(b'{"steps": {}}'))
        waiting = asyncio.create_task(harness.definitions.wait(definition.key))
        assert harness.definitions.find(definition.key) is None
        count = harness.log.partitions("events")
        activation = msgspec.json.encode(Activated("t", "journey", "welcome", 1, "ab" * 32))
        await harness.log.append_atomically(
            [
                NewRecord("definitions", definition.key.encode(), msgspec.json.encode(definition)),
                *(NewRecord("events", None, activation, (), number) for number in range(count)),
            ]
        )
        found = await asyncio.wait_for(waiting, harness.patience_seconds)
        await eventually(harness, lambda: len(loop.seen) == count)

        assert (found.name, found.version, bytes(found.body)) == ("welcome", 1, b'{"steps": {}}')
        assert sorted(number for number, _ in loop.seen) == list(range(count))
        await harness.crash()
        await harness.open({"events": CountingLoop()})
        await asyncio.wait_for(harness.definitions.wait(definition.key), harness.patience_seconds)
        assert [each.key for each in harness.definitions.all()] == ["t/journey/welcome@1"]

    async def test_a_suppression_counts_at_once_for_its_topic_or_for_all(self, harness: Harness) -> None:
        await harness.open({})
        scope = harness.suppressions.scope
        assert await scope("t", "email", "ann@example.com", "news") is None
        await harness.log.append([suppression("t:email:news:ann@example.com", "news")])
        await eventually_is(harness, lambda: scope("t", "email", "ann@example.com", "news"), "news")
        assert await scope("t", "email", "ann@example.com", "offers") is None
        assert await scope("u", "email", "ann@example.com", "news") is None
        await harness.log.append([suppression("t:email:all:ann@example.com", "all")])
        await eventually_is(harness, lambda: scope("t", "email", "ann@example.com", "offers"), "all")
        await harness.crash()
        await harness.open({})
        await eventually_is(harness, lambda: harness.suppressions.scope("t", "email", "ann@example.com", "x"), "all")
        await harness.log.append([NewRecord("suppressions", b"t:email:all:ann@example.com", None)])
        await eventually_is(harness, lambda: harness.suppressions.scope("t", "email", "ann@example.com", "x"), None)
        assert await harness.suppressions.scope("t", "email", "ann@example.com", "news") == "news"

    async def test_who_is_due_is_woken_not_before_and_once(self, harness: Harness) -> None:
        loop = CountingLoop()
        await harness.open({"events": loop})
        await harness.log.append([event("t:ann", "wake-in-300"), event("t:bob", "wake-in-500")])
        await eventually(harness, lambda: len(loop.woken) == 2)
        first = {key: (due_at, woken_at) for key, due_at, woken_at in loop.woken}
        await harness.log.append([event("t:ann", "wake-in-100")])  # a later one, to see that none came in between
        await eventually(harness, lambda: len(loop.woken) == 3)

        assert set(first) == {b"t:ann", b"t:bob"}
        assert all(woken_at >= due_at for due_at, woken_at in first.values())

    async def test_a_wake_up_is_its_actors_whatever_kind_of_actor_that_is(self, harness: Harness) -> None:
        loop = CountingLoop()
        await harness.open({"events": loop})
        await harness.log.append([event("t:ann", "wake-in-100"), event("t/campaign:digest", "wake-in-100")])
        await eventually(harness, lambda: len(loop.woken) == 2)
        wake_ups = [record for _, record in loop.seen if b'"wake_up"' in (record.value or b"")]
        owners = [owner_of(record.key or b"") for record in wake_ups]

        for record in wake_ups:
            check_tenant(record.headers, "t")
        assert sorted(owners) == [("t", "", "ann"), ("t", "campaign", "digest")]

    async def test_a_timer_outlives_a_crash(self, harness: Harness) -> None:
        stuck = CountingLoop(hold="after durable")
        await harness.open({"events": stuck})
        await harness.log.append([event("t:ann", "wake-in-100")])
        await eventually(harness, lambda: stuck.held > 0)
        await harness.crash()
        await harness.open({"events": (loop := CountingLoop())})
        await eventually(harness, lambda: bool(loop.woken))

        assert {key for key, _, _ in loop.woken} == {b"t:ann"}, "perhaps twice: before the crash and after it"

    async def test_the_log_is_read_oldest_first(self, harness: Harness) -> None:
        await harness.open({})
        for number in range(20):
            await harness.log.append([NewRecord("journal", b"t:ann", b"%d" % number)])
        records = await asyncio.to_thread(_read, harness.log, "journal", b"t:ann")

        assert [record.value for record in records] == [b"%d" % number for number in range(20)]
        assert [record.offset for record in records] == sorted({record.offset for record in records})
        assert [record.timestamp for record in records] == sorted(record.timestamp for record in records)


class CountingLoop:
    """Counts each user's events in the store, `u<user>` -> format byte, due, count, and tells it to the journal.

    An event's id may ask for something: `erase`, `wake-in-<ms>`. `hold` makes it stand still for ever, "before commit" or
    "after durable", the first time it has read something; `fail_times` makes it raise before that many commits.
    """

    def __init__(
        self, limit: int = 100, *, hold: str = "", fail_times: int = 0, durable: bool = False, send_to: str = ""
    ) -> None:
        self.limit, self.hold, self.fail_times, self.durable, self.send_to = limit, hold, fail_times, durable, send_to
        self.hosts: dict[int, PartitionHost] = {}
        self.seen: list[tuple[int, Record]] = []  # partition, record
        self.batches: list[int] = []  # how many records each had
        self.woken: list[tuple[bytes, int, int]] = []  # user, due, the wake-up's time
        self.held = 0
        self.busy = 0

    async def __call__(self, host: PartitionHost) -> None:
        self.hosts[host.number] = host
        while True:
            records = await host.poll(self.limit, 0.2)
            if records:
                self.busy += 1
                try:
                    await self._fold(host, records)
                finally:
                    self.busy -= 1

    def ids(self) -> list[str]:
        return [json.loads(record.value or b"{}")["id"] for _, record in self.seen]

    async def _fold(self, host: PartitionHost, records: Sequence[Record]) -> None:
        self.seen += [(host.number, record) for record in records]
        self.batches.append(len(records))
        batch = Batch(records[-1].offset)
        dues: dict[bytes, int] = {}
        for record in records:
            if record.key is not None:
                self._count(host, record, batch, dues)
        if self.hold == "before commit":
            await self._stand_still()
        if self.fail_times > 0:
            self.fail_times -= 1
            raise RuntimeError("the loop fails, as the test wants it to")
        await host.commit(batch)
        if self.durable or self.hold == "after durable":
            await host.durable()
        if self.hold == "after durable":
            await self._stand_still()

    def _count(self, host: PartitionHost, record: Record, batch: Batch, dues: dict[bytes, int]) -> None:
        assert record.key is not None
        user, value = record.key, json.loads(record.value or b"{}")
        key = b"u" + user
        state = batch.states[key] if key in batch.states else host.store.get(key)
        due = int.from_bytes(state[1:9], "big") if state else 0
        before = batch.timers[user][0] if user in batch.timers else due or None
        if value.get("type") == "wake_up":
            self.woken.append((user, msgspec.convert(value, WakeUp).due_at, record.timestamp))
        if due and due <= record.timestamp:
            due = 0
        if value.get("type") == "wake_up":
            count = int(state[9:]) if state else 0
        else:
            id, count = value["id"], (int(state[9:]) if state else 0) + 1
            if id.startswith("wake-in-"):
                due = record.timestamp + int(id.removeprefix("wake-in-"))
            word = "gone" if id == "erase" else count
            batch.outputs.append(NewRecord("journal", user, f"{word} {id}".encode()))
            if self.send_to and not id.startswith("answer"):
                batch.outputs.append(NewRecord(self.send_to, user, json.dumps({"id": id}).encode()))
            if id == "erase":
                batch.states[key] = None
                batch.timers[user] = (before, None)
                return
        batch.states[key] = b"\1" + due.to_bytes(8, "big") + b"%d" % count
        batch.timers[user] = (before, due or None)

    async def _stand_still(self) -> None:
        self.held += 1
        await asyncio.Event().wait()


def event(user: str, id: str, headers: tuple[tuple[str, bytes], ...] = ()) -> NewRecord:
    return NewRecord("events", user.encode(), json.dumps({"id": id}).encode(), headers)


def suppression(key: str, scope: str) -> NewRecord:
    return NewRecord("suppressions", key.encode(), msgspec.json.encode(Suppression(scope, 1)))


def told(harness: Harness, user: str) -> list[str]:
    """What the journal says about a user: `<count> <event>`, oldest first."""
    return [
        (record.value or b"").decode()
        for record in harness.log.read("journal", user.encode())
        if record.key == user.encode()
    ]


def has_told(harness: Harness, user: str, lines: int) -> bool:
    return len(told(harness, user)) == lines


async def eventually(harness: Harness, holds: Callable[[], Any]) -> None:
    """Return when it holds; fail when it still doesn't after the harness's patience."""
    await eventually_is(harness, lambda: _in_thread(lambda: bool(holds())), True)


async def eventually_is(harness: Harness, ask: Callable[[], Awaitable[Any]], wanted: Any) -> None:
    deadline = time.monotonic() + harness.patience_seconds
    while (answer := await ask()) != wanted:
        if time.monotonic() > deadline:
            pytest.fail(f"still {answer!r} after {harness.patience_seconds:g} s, not {wanted!r}")
        await asyncio.sleep(0.01)


async def _in_thread(question: Callable[[], bool]) -> bool:
    return await asyncio.to_thread(question)  # reading a log blocks, and the host runs on this event loop


def _read(log: Log, topic: str, key: bytes) -> list[Record]:
    return list(log.read(topic, key))


async def _write(log: Log, user: str, crash: int, tried: list[str], confirmed: list[str]) -> None:
    """Append one event after the other until the log is gone. One that wasn't confirmed may be there or not."""
    for number in range(100_000):
        id = f"{user}/{crash}/{number}"
        tried.append(id)
        try:
            await log.append([event(user, id)])
        except Unavailable:
            return
        confirmed.append(id)


def _has_grown(entries: list[str], size: int) -> bool:
    return len(entries) >= size
