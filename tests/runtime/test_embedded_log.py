"""What the embedded log confirms and when, what it refuses, what it gives its readers, and what it forgets."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runtime.embedded import layout
from engine.runtime.embedded import log as embedded_log
from engine.runtime.embedded.host import EmbeddedHost
from engine.runtime.host import Batch, Fenced, Overloaded, PartitionHost, PartitionStopped, Unavailable
from engine.runtime.store import MemoryStore
from schemas.records import NewRecord

HOUR_MS = 3_600_000


class SlowDisk(MemoryStore):
    """A store whose syncs take until they are let go, one by one."""

    def __init__(self) -> None:
        super().__init__(layout.FAMILIES)
        self.begun = 0
        self.gate = threading.Semaphore(0)
        self.is_slow = False

    def sync(self) -> None:
        self.begun += 1
        covered = len(self._unsynced)
        if self.is_slow and not self.gate.acquire(timeout=20):
            raise TimeoutError("nobody let the sync go")
        if self.fails_with is not None:
            raise self.fails_with
        del self._unsynced[:covered]


class Clock:
    def __init__(self, now: int = 1_000_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@pytest.fixture
async def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def host(disk: SlowDisk, clock: Clock) -> AsyncIterator[EmbeddedHost]:
    host = EmbeddedHost(disk, partitions=2, clock=clock, retention=timedelta(days=1))
    yield host
    disk.is_slow = False
    disk.gate.release(100)
    await host.close()


def new(id: str, topic: str = "events", partition: int | None = 0) -> NewRecord:
    return NewRecord(topic, b"t:ann", id.encode(), (), partition)


async def until(holds: Callable[[], bool]) -> None:
    """Let the host work until it holds."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


async def fold_all(partition: PartitionHost) -> list[str]:
    """Fold everything that is there, without outputs; return what it was."""
    folded = []
    while records := await partition.poll(1000, 0):
        folded += [(record.value or b"").decode() for record in records]
        await partition.commit(Batch(records[-1].offset))
    return folded


# Durability.


async def test_an_append_is_confirmed_after_a_sync_that_began_after_it(host: EmbeddedHost, disk: SlowDisk) -> None:
    disk.is_slow, begun = True, disk.begun
    first = asyncio.create_task(host.log.append([new("1")]))
    await until(lambda: disk.begun == begun + 1)
    second = asyncio.create_task(host.log.append([new("2")]))
    third = asyncio.create_task(host.log.append([new("3")]))
    await asyncio.sleep(0)
    disk.gate.release()
    await first
    await until(lambda: disk.begun == begun + 2)

    assert not second.done(), "the sync that has ended began before it was written"
    assert not third.done()
    disk.gate.release()
    await asyncio.gather(second, third)
    assert disk.begun == begun + 2, "and the two have shared one"


async def test_what_is_appended_in_one_go_takes_one_sync_and_one_write_per_partition(
    host: EmbeddedHost, disk: SlowDisk
) -> None:
    begun = disk.begun
    await asyncio.gather(*[host.log.append([new(str(number))]) for number in range(100)])

    assert disk.begun == begun + 1
    assert len(list(disk.scan(layout.LOG))) == 1


async def test_a_fold_runs_ahead_of_the_sync_and_durable_waits_for_it(host: EmbeddedHost, disk: SlowDisk) -> None:
    partition = host.partition("events", 0)
    disk.is_slow = True
    appended = asyncio.create_task(host.log.append([new("1")]))
    await asyncio.sleep(0)
    assert await fold_all(partition) == ["1"]
    durable = asyncio.create_task(partition.durable())
    await until(lambda: disk.begun > 0)
    assert not appended.done()
    assert not durable.done()
    disk.gate.release(2)
    await asyncio.gather(appended, durable)


async def test_a_waiter_who_gives_up_takes_nobody_along(host: EmbeddedHost, disk: SlowDisk) -> None:
    disk.is_slow, begun = True, disk.begun
    first, second = asyncio.create_task(host.log.append([new("1")])), asyncio.create_task(host.log.append([new("2")]))
    await until(lambda: disk.begun == begun + 1)
    first.cancel()
    disk.gate.release(2)
    await second

    with pytest.raises(asyncio.CancelledError):
        await first


@pytest.mark.parametrize("what", ["sync", "write"])
async def test_when_the_disk_fails_nothing_is_confirmed_ever_again_and_all_stops(
    host: EmbeddedHost, disk: SlowDisk, what: str
) -> None:
    stopped: list[str] = []

    async def loop(partition: PartitionHost) -> None:
        try:
            while True:
                await partition.poll(10, 3600)
        except PartitionStopped as error:
            stopped.append(str(error))
            raise

    host.start({"events": loop})
    await host.log.append([new("1")])
    disk.is_slow, begun = what == "sync", disk.begun
    appended = asyncio.create_task(host.log.append([new("2")]))
    if what == "sync":
        await until(lambda: disk.begun == begun + 1)  # written, and not yet on the disk
    disk.fails_with = PartitionStopped("the disk is full: make room, then start again")
    disk.gate.release()
    with pytest.raises(Unavailable, match="make room"):
        await appended
    disk.fails_with = None  # a second try would "succeed"
    with pytest.raises(Unavailable, match="make room"):
        await host.log.append([new("3")])
    with pytest.raises(PartitionStopped, match="make room"):
        await host.log.durable()
    assert "make room" in str(await asyncio.wait_for(host.failed(), 20))
    await until(lambda: len(stopped) == 2)
    assert all("make room" in reason for reason in host.stopped.values())


async def test_a_suppression_counts_before_it_is_on_the_disk(host: EmbeddedHost, disk: SlowDisk) -> None:
    disk.is_slow = True
    appended = asyncio.create_task(host.log.append([NewRecord("suppressions", b"t:email:all:ann@example.com", b"{}")]))
    await asyncio.sleep(0)
    assert await host.suppressions.scope("t", "email", "ann@example.com", "news") == "all"
    assert not appended.done()
    disk.gate.release()
    await appended


# What is refused.


async def test_a_log_that_is_not_folded_refuses_events_until_it_is(
    host: EmbeddedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_log, "MOST_UNFOLDED_RECORDS", 10)
    partition = host.partition("events", 0)
    await host.log.append([new(str(number)) for number in range(11)])
    with pytest.raises(Overloaded):
        await host.log.append([new("12")])
    await host.log.append([new("sent", "messages.email")])  # what the engine itself writes is never refused

    assert len(await fold_all(partition)) == 11
    await host.log.append([new("12")])


async def test_a_partition_that_stands_still_does_not_close_the_door_for_the_others(
    host: EmbeddedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_log, "MOST_UNFOLDED_RECORDS", 10)

    async def loop(partition: PartitionHost) -> None:
        if partition.number == 0:
            raise PartitionStopped("the operator has to look")
        await fold_all(partition)

    host.start({"events": loop})
    await until(lambda: len(host.stopped) == 1)
    for _ in range(3):
        await host.log.append([new(str(number)) for number in range(11)])
    assert host.log.partition("events", 0).unfolded_records() == 33, "and nothing of it is lost"


async def test_large_events_are_refused_by_their_bytes(host: EmbeddedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_log, "MOST_UNFOLDED_BYTES", 10_000)
    partition = host.partition("events", 0)
    await host.log.append([new("x" * 20_000)])
    with pytest.raises(Overloaded):
        await host.log.append([new("y")])
    await fold_all(partition)
    await host.log.append([new("y")])


async def test_a_batch_with_a_record_for_nowhere_is_refused_whole(host: EmbeddedHost) -> None:
    partition = host.partition("events", 0)
    for wrong in (new("2", partition=7), NewRecord("definitions", None, b"{}")):
        with pytest.raises(ValueError, match=r"partition|key"):
            await host.log.append([new("1"), wrong])
    await host.log.append([new("3")])

    assert await fold_all(partition) == ["3"]


async def test_a_partition_opened_once_more_fences_whoever_had_it(host: EmbeddedHost) -> None:
    zombie = host.partition("events", 0)
    await host.log.append([new("1"), new("2")])
    waiting = asyncio.create_task(host.partition("events", 1).poll(1, 3600))
    await asyncio.sleep(0)
    records = await zombie.poll(10, 0)
    owner = host.partition("events", 0)
    host.partition("events", 1)

    with pytest.raises(Fenced):
        await zombie.commit(Batch(records[-1].offset, {b"key": b"zombie"}))
    with pytest.raises(Fenced):
        await waiting
    assert owner.store.get(b"key") is None
    assert await fold_all(owner) == ["1", "2"]


async def test_a_directory_keeps_its_number_of_partitions(host: EmbeddedHost, disk: SlowDisk) -> None:
    again = EmbeddedHost(disk, partitions=7)
    assert again.partitions("events") == 2
    assert again.partitions("definitions") == 1


# Time.


async def test_time_in_the_log_never_goes_back(host: EmbeddedHost, clock: Clock) -> None:
    partition = host.partition("events", 0)
    for now in (5000, 4000, 6000):
        clock.now = now
        await host.log.append([new("x")])

    assert [record.timestamp for record in await partition.poll(10, 0)] == [5000, 5000, 6000]


async def test_a_clock_far_behind_the_log_is_refused_until_an_operator_agrees(clock: Clock) -> None:
    store = MemoryStore(layout.FAMILIES)
    host = EmbeddedHost(store, clock=clock)
    await host.log.append([new("x")])
    await host.close()
    store = store.reopen()
    clock.now -= 11 * 60_000
    with pytest.raises(PartitionStopped, match=r"0:11:00 after .* set the clock right"):
        EmbeddedHost(store, clock=clock)
    host = EmbeddedHost(store, clock=clock, accept_clock=True)
    await host.close()


# What readers get.


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(
        st.integers(1, 9) | st.tuples(st.integers(1, 7)) | st.just("commit") | st.just("reopen"), max_size=30
    ),
    tail=st.sampled_from([1, 40, 10_000]),
)
def test_a_reader_gets_everything_once_and_in_order_whatever_fits_into_memory(
    steps: list[int | tuple[int] | str], tail: int
) -> None:
    asyncio.run(_read_and_append(steps, tail))


async def _read_and_append(steps: list[int | tuple[int] | str], tail: int) -> None:
    """Append some (a number), poll for some (a tuple), commit what was read, or open the partition anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded_log, "MOST_TAIL_BYTES", tail)
        host = EmbeddedHost(MemoryStore(layout.FAMILIES), partitions=1)
        partition = host.partition("events", 0)
        appended = given = committed = 0
        for step in [*steps, *[(1000,)] * 300]:  # at the end everything has been read
            if isinstance(step, int):
                host.log.stage([new(str(number)) for number in range(appended, appended + step)])
                appended += step
            elif isinstance(step, tuple):
                records = await partition.poll(step[0], 0)
                assert [record.offset for record in records] == list(range(given, given + len(records)))
                assert [int(record.value or b"") for record in records] == [record.offset for record in records]
                assert min(1, appended - given) <= len(records) <= step[0]
                given += len(records)
            elif step == "commit":
                await partition.commit(Batch(given - 1))
                committed = given
            else:
                partition = host.partition("events", 0)
                given = committed
        assert given == appended
        await host.close()


# Loops.


async def test_a_loop_that_fails_goes_on_from_what_was_committed_and_a_stopped_one_does_not(host: EmbeddedHost) -> None:
    folded: list[str] = []
    failures = 1

    async def loop(partition: PartitionHost) -> None:
        nonlocal failures
        if partition.number == 1:
            raise PartitionStopped("the operator has to look")
        while True:
            records = await partition.poll(1, 3600)
            if records and failures:
                failures -= 1
                raise RuntimeError("once")
            for record in records:
                await partition.commit(Batch(record.offset))
                folded.append((record.value or b"").decode())

    host.start({"events": loop})
    await host.log.append([new("1"), new("2")])
    await until(lambda: folded == ["1", "2"])

    assert host.stopped == {("events", 1): "the operator has to look"}


async def test_a_flood_of_timers_is_drained_with_a_bounded_number_of_wake_ups_and_none_twice(
    host: EmbeddedHost, clock: Clock
) -> None:
    users = [b"t:user%d" % number for number in range(2500)]
    partition = host.partition("events", 0)
    await partition.commit(Batch(-1, timers=dict.fromkeys(users, (None, clock.now + 1000))))
    partition.ring()
    assert await partition.poll(10_000, 0) == [], "before their time nobody is woken"
    clock.now += 1000
    woken: list[bytes] = []
    for _ in range(100):
        partition.ring()
        records = await partition.poll(10_000, 0)
        if not records:
            break
        assert len(records) <= 1000
        woken += [record.key or b"" for record in records]
        await partition.commit(
            Batch(records[-1].offset, timers={record.key or b"": (clock.now, None) for record in records})
        )

    assert sorted(woken) == sorted(users)


async def test_nobody_is_woken_in_a_partition_that_stands_still(host: EmbeddedHost, clock: Clock) -> None:
    async def loop(partition: PartitionHost) -> None:
        await partition.commit(Batch(-1, timers={b"t:ann": (None, clock.now + 10)}))
        if partition.number == 0:
            raise PartitionStopped("the operator has to look")
        await asyncio.Event().wait()

    host.start({"events": loop})
    await until(lambda: len(host.stopped) == 1)
    clock.now += 1000
    await until(lambda: host.log.partition("events", 1).end == 1)

    assert host.log.partition("events", 0).end == 0


# What is forgotten.


async def append_hourly(host: EmbeddedHost, clock: Clock, hours: int, topic: str = "events") -> None:
    for hour in range(hours):
        await host.log.append([new(f"{hour}a", topic), new(f"{hour}b", topic)])
        clock.now += HOUR_MS


def kept(host: EmbeddedHost, topic: str = "events") -> list[str]:
    key = next(b"%d" % number for number in range(99) if layout.partition_of(b"%d" % number, 2) == 0)
    return [(record.value or b"").decode() for record in host.log.read(topic, key)]


async def test_records_older_than_the_retention_are_forgotten_once_folded(host: EmbeddedHost, clock: Clock) -> None:
    partition = host.partition("events", 0)
    await append_hourly(host, clock, 30)
    host.forget()
    assert len(kept(host)) == 60, "not before they are folded"
    await fold_all(partition)
    host.forget()

    assert kept(host)[0] == "6a"
    assert len(kept(host)) == 48


async def test_records_without_a_reader_are_forgotten_by_age(host: EmbeddedHost, clock: Clock) -> None:
    await append_hourly(host, clock, 30, "journal")
    host.forget()

    assert kept(host, "journal")[0] == "6a"


async def test_offsets_and_time_go_on_after_everything_was_forgotten(
    host: EmbeddedHost, disk: SlowDisk, clock: Clock
) -> None:
    await fold_all(host.partition("events", 0))
    await append_hourly(host, clock, 3)
    await fold_all(host.partition("events", 0))
    clock.now += 1000 * HOUR_MS
    host.forget()
    assert kept(host) == ["2a", "2b"], "the last group stays, for what it says about the next"
    clock.now -= 1000 * HOUR_MS
    again = EmbeddedHost(disk.reopen(), clock=clock)
    partition = again.partition("events", 0)
    await again.log.append([new("next")])
    records = await partition.poll(10, 0)
    await again.close()

    assert [(record.offset, record.value) for record in records] == [(6, b"next")]


@settings(max_examples=50, deadline=None)
@given(
    groups=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=12), before=st.integers(0, 40)
)
def test_what_is_forgotten_is_a_prefix_of_the_log(groups: list[tuple[int, int]], before: int) -> None:
    asyncio.run(_forget_before(groups, before))


async def _forget_before(groups: list[tuple[int, int]], before: int) -> None:
    clock = Clock(0)
    host = EmbeddedHost(MemoryStore(layout.FAMILIES), partitions=2, clock=clock, retention=timedelta(milliseconds=1))
    expected: list[tuple[str, int]] = []
    for number, (size, passes) in enumerate(groups):
        clock.now += passes
        host.log.stage([new(f"{number}.{each}", "journal") for each in range(size)])
        host.log.write()
        expected += [(f"{number}.{each}", clock.now) for each in range(size)]
    last = [value for value, _ in expected if value.startswith(f"{len(groups) - 1}.")]
    clock.now = before + 1
    host.forget()

    assert kept(host, "journal") == ([value for value, at in expected if at >= before] or last)
    await host.close()
