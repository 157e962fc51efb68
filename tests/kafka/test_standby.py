"""Who stands by for a partition takes it over without reading its changelog again, and leaves to others what is theirs."""

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from engine.runtime.kafka import standby, topics
from engine.runtime.kafka.partition_store import SOURCE, PartitionStore
from engine.runtime.kafka.partitions import Partitions
from engine.runtime.settings import Kafka
from engine.runtime.store import Memory
from schemas.records import Record
from tests.kafka.cluster import produce, truncate_changelog, until
from tests.kafka.counting import expected
from tests.kafka.test_partitions import KEYS, all_are_open, all_is_as_expected, are_stopped, open_store, worker


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "LOOKS_EVERY_SECONDS", 0.2)


async def stands_by(partitions: Partitions, numbers: Iterable[int]) -> None:
    """Wait until nothing is left to read of these partitions."""

    async def holds() -> bool:
        told = partitions._metrics.registry.get_sample_value
        lags = [told("equeengage_standby_lag_records", {"topic": "events", "partition": str(n)}) for n in numbers]
        return all(lag == 0 for lag in lags)

    await until(holds, f"it stands by for {numbers}")


def own(count: int, *workers: Partitions) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return all(len(partitions.owned) == count for partitions in workers)

    return holds


@pytest.mark.kafka
async def test_a_standby_takes_partitions_over_without_replay_and_follows_them_again_once_they_are_gone(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    standing_by = kafka_settings.model_copy(update={"standby": True})
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    async with worker(standing_by, tmp_path / "standby") as second:
        await all_are_open(second)
        with capture_logs() as said:
            async with worker(kafka_settings, tmp_path / "first") as first:
                await until(own(2, first, second), "each owns half of the partitions")
                others = list(first.owned)
                await produce(kafka_settings, KEYS)
                await all_is_as_expected(kafka_settings, KEYS * 2)
                await stands_by(second, others)
            await until(own(4, second), "the standby owns all partitions")
            await all_are_open(second)
            await produce(kafka_settings, KEYS)
            await all_is_as_expected(kafka_settings, KEYS * 3)
        taken = {line["partition"]: line["records"] for line in said if line.get("by_standby")}
        assert taken == dict.fromkeys(others, 0)
        async with worker(kafka_settings, tmp_path / "third") as third:
            await until(own(2, second, third), "each owns half of the partitions")
            await produce(kafka_settings, KEYS)
            await all_is_as_expected(kafka_settings, KEYS * 4)
            await stands_by(second, third.owned)
    assert await states_in(kafka_settings, tmp_path / "standby") == expected(KEYS * 4)[0]


async def states_in(settings: Kafka, directory: Path) -> dict[bytes, int]:
    """What the stores of a worker that has stopped hold."""
    found: dict[bytes, int] = {}
    for number in range(settings.partitions):
        store = await open_store(settings, directory, number)
        found |= {key: int(value) for key, value in store.states.scan()}
        store.close()
    return found


@pytest.mark.kafka
async def test_a_standby_that_cannot_follow_says_so_and_the_owner_is_not_concerned(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    """The changelog lost its records while the standby was away: its owner has the states, the standby hasn't."""
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path / "owner") as owner:
        await all_is_as_expected(kafka_settings, KEYS)
        await truncate_changelog(kafka_settings)
        await produce(kafka_settings, KEYS)
        await all_is_as_expected(kafka_settings, KEYS * 2)
        with capture_logs() as said:
            async with worker(kafka_settings.model_copy(update={"standby": True}), tmp_path / "standby") as second:

                async def has_said_it() -> bool:
                    return {line["event"] for line in said} >= {"not standing by for a partition", "partition stopped"}

                await until(has_said_it, "it says for which partitions it doesn't stand by")
                await are_stopped(second, 2)
                assert all("were deleted from the topic" in reason for reason in second.stopped.values())
                assert not owner.stopped


def test_a_store_is_as_old_as_what_it_may_have_missed_and_not_as_its_last_write(tmp_path: Path) -> None:
    def opened(not_before: int) -> tuple[PartitionStore, str]:
        return PartitionStore.open(tmp_path / "store", Memory(), "ours", not_before, True)

    def read_from(store: PartitionStore, offset: int, now_at: int) -> None:
        store.absorb([Record(offset, 0, b"acme:ann", b"1"), Record(offset + 1, 0, SOURCE, b"7")], now_at)

    store, _ = opened(0)
    read_from(store, 0, now_at=1000)  # a new store: nothing was deleted from the topic before it was read
    assert store.written_at == 1000
    read_from(store, 3, now_at=2000)  # still reading what was there at 1000, perhaps
    assert store.written_at == 1000
    store.confirm(1500)  # where the changelog ended at 1500
    read_from(store, 6, now_at=9000)
    store.close()
    store, anew = opened(1500)
    assert (anew, store.written_at, store.changelog, store.through) == ("", 1500, 7, 7)
    store.close()
    store, anew = opened(1501)
    assert (anew, store.changelog) == ("it was away for so long that it may have missed deletions", -1)
    store.close()
