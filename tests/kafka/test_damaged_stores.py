"""A store whose files were damaged is noticed, set aside, and made again from its changelog. It never serves a wrong state."""

from pathlib import Path

import pytest

from engine.runtime.host import PartitionStopped
from engine.runtime.kafka import topics
from engine.runtime.kafka.appender import Appender
from engine.runtime.kafka.partition_store import FORMAT, META, STATES, TIMERS
from engine.runtime.kafka.wake_ups import BrokerClock, Sleepers, WakeUps, host_clock
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka
from engine.runtime.store import Memory, RocksStore, StoreDamaged
from engine.runtime.timers import Alarm, TimerIndex
from tests.kafka.cluster import produce
from tests.kafka.test_partitions import all_are_open, all_is_as_expected, worker

KEYS = [b"acme:user-%d" % number for number in range(2000)]


def overwrite(path: Path, begin: int, octets: int = 16) -> None:
    """Write rubbish over some bytes of a file."""
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(b"\xa5" * octets)


def largest_table(store: Path) -> Path:
    return max(store.glob("*.sst"), key=lambda file: file.stat().st_size)


@pytest.mark.kafka
async def test_stores_damaged_in_whatever_way_are_set_aside_and_made_again(
    kafka_settings: Kafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path):
        await all_is_as_expected(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path) as partitions:  # brings the write-ahead logs to files
        await all_are_open(partitions)
    stores = [tmp_path / str(number) for number in range(4)]
    overwrite(largest_table(stores[0]), 5)  # in a block of states: found when one of them is read
    largest_table(stores[1]).unlink()
    overwrite(next(stores[2].glob("MANIFEST-*")), 20)
    (stores[3] / "CURRENT").write_bytes(b"rubbish")
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path) as partitions:
        await all_is_as_expected(kafka_settings, KEYS + KEYS)
        assert not partitions.stopped
    for store in stores:
        assert store.with_name(f"{store.name}.damaged").is_dir(), f"{store.name} was not set aside"
    said = capsys.readouterr().out
    assert "a store is damaged" in said  # found while it worked
    assert "a store is made anew" in said  # found when it was opened
    async with worker(kafka_settings, tmp_path) as partitions:  # and what was made again is sound
        await all_are_open(partitions)


async def test_timers_that_cannot_be_read_are_told_to_their_partition_and_nobody_else_waits_for_them(
    tmp_path: Path,
) -> None:
    settings, failures = Kafka(), list[PartitionStopped]()
    store = RocksStore.open(tmp_path, (STATES, TIMERS, META), FORMAT, Memory())
    index = TimerIndex(store, TIMERS, META)
    for _ in index.rebuild([]):
        pass
    store.write(index.writes({b"acme:user-%d" % number: (None, 1) for number in range(1000)}))
    store.close()
    RocksStore.open(tmp_path, (STATES, TIMERS, META), FORMAT, Memory()).close()  # brings the write-ahead log to files
    overwrite(largest_table(tmp_path), 5)
    store = RocksStore.open(tmp_path, (STATES, TIMERS, META), FORMAT, Memory())
    try:
        sleepers = Sleepers(("events", 0), TimerIndex(store, TIMERS, META), Alarm(), failures.append)
        await WakeUps(Appender(settings), BrokerClock(host_clock), Metrics(), "events").ring([sleepers])
    finally:
        store.close()
    assert [type(failure) for failure in failures] == [StoreDamaged]
