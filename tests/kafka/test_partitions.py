"""A worker owns partitions, folds what is in them, and finds everything again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from engine.runtime.host import PartitionHost
from engine.runtime.kafka import clients, topics
from engine.runtime.kafka.appender import Appender
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.kafka.partition_store import PartitionStore
from engine.runtime.kafka.partitioner import partition_of
from engine.runtime.kafka.partitions import Partitions, Work
from engine.runtime.kafka.wake_ups import BrokerClock, host_clock
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka
from engine.runtime.store import Memory
from schemas.records import NewRecord
from tests.kafka.cluster import (
    configure,
    delete_all_records,
    ends_of,
    enlarge,
    make_anew,
    messages,
    produce,
    states,
    truncate_changelog,
    until,
)
from tests.kafka.counting import count_events, expected, fold

pytestmark = pytest.mark.kafka
Loop = Callable[[PartitionHost], Awaitable[None]]
KEYS = [b"acme:user-%d" % (number % 50) for number in range(2000)]


@asynccontextmanager
async def worker(
    settings: Kafka, directory: Path, run: Loop = count_events, member: str | None = None
) -> AsyncIterator[Partitions]:
    """A worker in this process."""
    clock = BrokerClock()
    appender = Appender(settings, clock.learn_append)
    await appender.start()
    partitions = Partitions(
        settings, Work("events", "users", run), appender, clock, Metrics(), directory, member=member
    )
    try:
        await partitions.start()
        try:
            yield partitions
        finally:
            await partitions.stop()
    finally:
        await appender.close()


async def all_are_open(partitions: Partitions) -> None:
    async def holds() -> bool:
        owned = list(partitions._owned.values())
        return bool(owned) and all(partition.sleepers is not None for partition in owned)

    await until(holds, "the partitions are open")


async def are_stopped(partitions: Partitions, count: int) -> None:
    async def holds() -> bool:
        return len(partitions.stopped) == count

    await until(holds, f"{count} partitions are stopped")


async def open_store(settings: Kafka, directory: Path, number: int, cluster: str = "") -> PartitionStore:
    """Open a stopped worker's store, as of a cluster (the broker's own if none is given)."""
    cluster = cluster or await topics.cluster_id(settings)
    changelog = topics.changelog_name(settings, "users")
    identity = f"{cluster}/{changelog}/{number} of {settings.partitions}"
    return PartitionStore.open(directory / str(number), Memory(), identity, 0, True)[0]


async def all_is_as_expected(settings: Kafka, keys: list[bytes], but: bytes = b"") -> None:
    """Wait until every event is folded; then nothing may be lost, and nothing doubled. One user may be left out."""
    counts, sent = expected(keys)

    async def holds() -> bool:
        return {key: count for key, count in (await states(settings)).items() if key != but} == counts

    await until(holds, "every user has counted every event")
    assert await messages(settings) == sent


async def test_events_of_a_plain_producer_are_each_folded_once(kafka_settings: Kafka, tmp_path: Path) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path):
        await all_is_as_expected(kafka_settings, KEYS)


async def test_a_restarted_worker_goes_on_where_it_was(kafka_settings: Kafka, tmp_path: Path) -> None:
    await topics.create(kafka_settings)
    keys: list[bytes] = []
    for _ in range(3):
        await produce(kafka_settings, KEYS[:500])
        keys += KEYS[:500]
        async with worker(kafka_settings, tmp_path, member="worker-1"):
            await all_is_as_expected(kafka_settings, keys)


async def test_an_emptied_data_directory_is_rebuilt_from_the_changelog(kafka_settings: Kafka, tmp_path: Path) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path / "first"):
        await all_is_as_expected(kafka_settings, KEYS)
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path / "second"):
        await all_is_as_expected(kafka_settings, KEYS + KEYS)


async def test_a_store_that_was_away_too_long_is_made_anew(
    kafka_settings: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have missed a tombstone, and the erased would come back."""
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path):
        await all_is_as_expected(kafka_settings, KEYS)
    number = partition_of(KEYS[0], kafka_settings.partitions)
    store = await open_store(kafka_settings, tmp_path, number)
    store._store.write([("states", b"acme:erased", b"1")])
    store.confirm(host_clock() - int(topics.TOMBSTONES_KEPT.total_seconds() * 1000) // 2 - 60_000)
    store.close()
    async with worker(kafka_settings, tmp_path) as partitions:
        await all_are_open(partitions)
    store = await open_store(kafka_settings, tmp_path, number)
    try:
        assert store.states.get(b"acme:erased") is None
        assert store.states.get(KEYS[0]) == b"40"
    finally:
        store.close()


async def test_a_store_of_another_cluster_is_not_taken_for_ours(kafka_settings: Kafka, tmp_path: Path) -> None:
    await topics.create(kafka_settings)
    for number in range(kafka_settings.partitions):
        store = await open_store(kafka_settings, tmp_path, number, cluster="another")
        store._store.write([("states", KEYS[0], b"7")])
        store.close()
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path):
        await all_is_as_expected(kafka_settings, KEYS)


async def test_a_changelog_that_was_made_anew_stops_its_partition_with_an_explanation(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path):
        await all_is_as_expected(kafka_settings, KEYS)
    changelog = topics.changelog_name(kafka_settings, "users")
    await make_anew(kafka_settings, changelog)
    async with worker(kafka_settings, tmp_path) as partitions:
        await are_stopped(partitions, kafka_settings.partitions)
        assert f"of {changelog}-0, which ends at 0: the topic was truncated or made anew" in partitions.stopped[0]
    assert await states(kafka_settings) == {}


async def test_states_deleted_from_the_changelog_stop_their_partition_and_who_has_them_goes_on(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path / "has-them"):
        await all_is_as_expected(kafka_settings, KEYS)
    sent = await messages(kafka_settings)
    await truncate_changelog(kafka_settings)
    async with worker(kafka_settings, tmp_path / "empty") as partitions:
        await are_stopped(partitions, kafka_settings.partitions)
        assert "the states between were deleted from the topic" in partitions.stopped[0]
        assert "EQUEENGAGE_KAFKA__ACCEPT_GAP=true" in partitions.stopped[0]
    async with worker(kafka_settings, tmp_path / "has-them") as partitions:
        await all_are_open(partitions)
        await produce(kafka_settings, KEYS)
        await all_is_as_expected(kafka_settings, KEYS + KEYS)
    assert await messages(kafka_settings) > sent


async def test_records_deleted_before_they_were_folded_stop_the_partition_until_an_operator_agrees(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path):
        await all_is_as_expected(kafka_settings, KEYS)
    await produce(kafka_settings, KEYS)
    await delete_all_records(kafka_settings, "events")
    await produce(kafka_settings, KEYS[:50])
    async with worker(kafka_settings, tmp_path) as partitions:
        await are_stopped(partitions, kafka_settings.partitions)
        assert "records between were deleted unread" in partitions.stopped[0]
        assert "EQUEENGAGE_KAFKA__ACCEPT_GAP=true" in partitions.stopped[0]
    agreed = kafka_settings.model_copy(update={"accept_gap": True})
    async with worker(agreed, tmp_path):
        await all_is_as_expected(agreed, KEYS + KEYS[:50])


async def test_an_idle_partition_survives_that_retention_empties_its_log(
    kafka_settings: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left behind the last event are markers of transactions: nobody's records, but offsets."""
    monkeypatch.setattr("engine.runtime.kafka.partition.MOVES_STAMP_AFTER_SECONDS", 0.1)
    await topics.create(kafka_settings)
    log = KafkaLog(kafka_settings)
    events = [NewRecord("events", key, b"{}") for key in KEYS]
    await log.append_atomically(events)
    async with worker(kafka_settings, tmp_path) as partitions:
        await all_is_as_expected(kafka_settings, KEYS)
        ends = await ends_of(kafka_settings, "events")

        async def stamps_are_moved() -> bool:
            return all(
                partition is not None and partition.through + 1 == end
                for partition, end in zip(map(partitions._owned.get, range(len(ends))), ends, strict=True)
            )

        await until(stamps_are_moved, "the stamps are moved over the markers")
    await delete_all_records(kafka_settings, "events")
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path):
        await all_is_as_expected(kafka_settings, KEYS + KEYS)


async def test_a_batch_that_is_too_large_for_a_topic_loses_nothing(
    kafka_settings: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "BATCH_BYTES", 24_000)  # or it would have to be halved nine times
    kafka_settings = kafka_settings.model_copy(update={"compression": "none"})  # the broker counts what it is sent
    await topics.create(kafka_settings)
    for topic in (topics.changelog_name(kafka_settings, "users"), f"{kafka_settings.prefix}.messages.email"):
        await configure(kafka_settings, topic, {"max.message.bytes": "3000"})
    keys = [b"acme:user-%d" % (number % 700) for number in range(4200)]  # 20 bytes each: far more than 3,000 a batch
    await produce(kafka_settings, keys)
    async with worker(kafka_settings, tmp_path) as partitions:
        await all_is_as_expected(kafka_settings, keys)
        assert any(partition._writer._batch_bytes <= 3000 for partition in partitions._owned.values())


async def test_a_state_that_no_topic_takes_stops_its_partition_and_no_other(
    kafka_settings: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "BATCH_BYTES", 24_000)  # or it would have to be halved nine times
    await topics.create(kafka_settings)
    await configure(kafka_settings, topics.changelog_name(kafka_settings, "users"), {"max.message.bytes": "3000"})
    giant = KEYS[0]
    number = partition_of(giant, kafka_settings.partitions)

    async def run(host: PartitionHost) -> None:
        while True:
            records = await host.poll(500, 1.0)
            if records:
                batch = fold(host, records)
                if giant in batch.states:
                    batch.states[giant] = Random(1).randbytes(5000)  # nothing to compress
                await host.commit(batch)

    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path, run) as partitions:
        await are_stopped(partitions, 1)
        assert "a record of 5,011 bytes for 'acme:user-0' is larger than topic" in partitions.stopped[number]
        others = [key for key in KEYS if partition_of(key, kafka_settings.partitions) != number]
        await all_is_as_expected(kafka_settings, others)


async def test_records_that_a_producer_has_put_into_the_wrong_partition_are_forwarded(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS, partitioner=lambda key, everywhere, available: everywhere[len(key) % 4])
    async with worker(kafka_settings, tmp_path):
        await all_is_as_expected(kafka_settings, KEYS)


async def test_records_dated_by_a_producers_clock_stop_the_partition(kafka_settings: Kafka, tmp_path: Path) -> None:
    await topics.create(kafka_settings)
    events = f"{kafka_settings.prefix}.events"
    await configure(kafka_settings, events, {"message.timestamp.type": "CreateTime"})
    await produce(kafka_settings, KEYS)
    await configure(kafka_settings, events, {"message.timestamp.type": "LogAppendTime"})
    async with worker(kafka_settings, tmp_path) as partitions:
        await are_stopped(partitions, kafka_settings.partitions)
        assert "dated by a producer's clock (CreateTime), from offset 0 on" in partitions.stopped[0]
    agreed = kafka_settings.model_copy(update={"accept_create_time": True})
    async with worker(agreed, tmp_path):
        await all_is_as_expected(agreed, KEYS)


async def test_a_log_whose_clock_runs_ahead_stops_the_partition(
    kafka_settings: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    monkeypatch.setattr("engine.runtime.kafka.partition.host_clock", lambda: host_clock() - 11 * 60_000)
    async with worker(kafka_settings, tmp_path) as partitions:
        await are_stopped(partitions, kafka_settings.partitions)
        assert "lies 11 minutes ahead of this host's clock" in partitions.stopped[0]


async def test_a_loop_that_fails_is_started_again_from_what_was_committed(
    kafka_settings: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.runtime.kafka.partitions.FIRST_PAUSE_SECONDS", 0.05)
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    failures = iter(range(6))

    async def run(host: PartitionHost) -> None:
        while True:
            records = await host.poll(100, 1.0)
            if records:
                batch = fold(host, records)
                if next(failures, None) is not None:
                    raise RuntimeError("a bug in the loop")
                await host.commit(batch)

    async with worker(kafka_settings, tmp_path, run):
        await all_is_as_expected(kafka_settings, KEYS)


async def test_two_workers_share_the_partitions_and_hand_them_over(kafka_settings: Kafka, tmp_path: Path) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path / "one", member="one") as one:
        await all_are_open(one)
        async with worker(kafka_settings, tmp_path / "two", member="two") as two:

            async def both_own_half() -> bool:
                return len(one.owned) == len(two.owned) == 2 and not set(one.owned) & set(two.owned)

            await produce(kafka_settings, KEYS)
            await until(both_own_half, "each worker owns half of the partitions")
            await produce(kafka_settings, KEYS)
            await all_is_as_expected(kafka_settings, KEYS * 3)


async def test_a_mismatch_of_the_topics_is_refused_in_one_line(kafka_settings: Kafka, tmp_path: Path) -> None:
    await topics.create(kafka_settings)
    other = kafka_settings.model_copy(update={"partitions": 8})
    with pytest.raises(topics.TopicError, match=r"has 4 partitions and must have 8.*KAFKA__PARTITIONS=4"):
        async with worker(other, tmp_path):
            pass


async def test_a_topic_that_is_given_more_partitions_ends_the_process(kafka_settings: Kafka, tmp_path: Path) -> None:
    """Keys would belong elsewhere from one record to the next, and their states would stay behind."""
    await topics.create(kafka_settings)
    async with worker(kafka_settings, tmp_path) as partitions:
        await all_are_open(partitions)
        await enlarge(kafka_settings, "events", 6)
        await partitions._consumer._client.force_metadata_update()  # it would learn of it within five minutes
        with pytest.raises(topics.TopicError, match="was given more partitions while we ran"):
            await asyncio.wait_for(partitions.failed, 30)
