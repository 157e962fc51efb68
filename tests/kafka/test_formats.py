"""States that were written before are read for ever; those of a later version are refused before anything is done with them."""

from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from engine.runtime import states
from engine.runtime.host import PartitionStopped
from engine.runtime.kafka import topics
from engine.runtime.kafka.partition_store import SOURCE, PartitionStore
from engine.runtime.settings import Kafka
from engine.runtime.store import Memory
from schemas.records import Record
from tests.kafka.test_partitions import are_stopped, worker

# A user in the journey `cart`, as the first version that had format 1 wrote it. Whoever changes what is read here in a way
# that this no longer passes, gives the format a new number and keeps the reader of the old one.
FORMAT_1 = bytes.fromhex(
    "0100000000001b7f109a81a5656d61696caf616e6e406578616d706c652e636f6d919fb7636172742e312e7532796f617a78676d37657567793464"
    "a46361727401a6616e7377657201cd07d0cd07d0ce001b7f10c081a56974656d730280a0c080a081a463617274cd07d090c4180535bb3ebb3699f7"
    "000000014f8b2085fcce759900000002c2809090c2"
)
ANN = states.USER + b"acme:ann"


def test_a_user_that_the_first_version_wrote_is_read_with_all_there_was() -> None:
    user = states.decode_user(FORMAT_1)
    assert states.due_in(FORMAT_1) == 1_802_000
    assert user.profile == {"email": "ann@example.com"}
    (run,) = user.runs
    assert (run.journey, run.version, run.step, run.arrived_at, run.due_at) == ("cart", 1, "answer", 2000, 1_802_000)
    assert run.event == {"items": 2}
    assert user.entered == {"cart": 2000}


def test_a_changelog_that_the_first_version_wrote_is_recovered_with_its_timers(tmp_path: Path) -> None:
    store, _ = PartitionStore.open(tmp_path / "store", Memory(), "ours", 0, True)
    try:
        store.absorb([Record(0, 0, ANN, FORMAT_1), Record(1, 0, SOURCE, b"7")], 1000)
        for _ in store.complete_timers():
            pass
        assert states.decode_user(store.states.get(ANN) or b"").runs
        assert store.timers.due(1_802_000, 10) == [(1_802_000, b"acme:ann")]
    finally:
        store.close()


def test_of_records_with_a_later_format_nothing_is_taken_over(tmp_path: Path) -> None:
    store, _ = PartitionStore.open(tmp_path / "store", Memory(), "ours", 0, True)
    try:
        with pytest.raises(PartitionStopped, match="holds states of format 9, and this version reads format 1"):
            store.absorb(
                [Record(0, 0, states.USER + b"acme:bob", FORMAT_1), Record(1, 0, ANN, b"\x09" + FORMAT_1[1:])], 1000
            )
        assert store.states.get(states.USER + b"acme:bob") is None
        assert store.changelog == -1
    finally:
        store.close()


@pytest.mark.kafka
async def test_a_changelog_of_a_later_version_stops_its_partition_with_what_to_do(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    await topics.create(kafka_settings)
    producer = AIOKafkaProducer(bootstrap_servers=kafka_settings.bootstrap)
    await producer.start()
    for _ in range(3):
        later = b"\x09" + FORMAT_1[1:]
        await producer.send_and_wait(topics.changelog_name(kafka_settings, "users"), later, ANN, partition=2)
    await producer.stop()
    async with worker(kafka_settings, tmp_path) as partitions:
        await are_stopped(partitions, 1)
        assert "run the version that wrote them" in partitions.stopped[2]
