"""Workers on Kafka are killed, frozen and robbed of their disk under load, and nobody can tell from what they wrote.

Real `equeengage worker` processes with real journeys. What must stand in the topics is computed from the committed records
of `events` alone, see `expectation.py`.
"""

import asyncio
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import msgspec
import pytest

from engine.runtime.settings import Kafka
from tests.kafka.cluster import configure, read_topic
from tests.scenarios.kafka_cluster import Load, Outcome, Worker, read_outcome, run, settled_outcome, until
from tests.scenarios.tale import seed, write_journeys

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]


@pytest.fixture
async def workers(kafka_settings: Kafka, tmp_path: Path) -> AsyncIterator[list[Worker]]:
    """Two running workers, each with partitions, and the journeys published."""
    await run(kafka_settings, "topics", "create")
    await run(kafka_settings, "publish", "--journeys", str(write_journeys(tmp_path / "journeys")))
    pair = [Worker(kafka_settings, tmp_path / "one"), Worker(kafka_settings, tmp_path / "two")]
    try:
        for worker in pair:
            worker.start()
        await until(lambda: all(worker.assignments() for worker in pair), "both workers have joined")
        yield pair
    finally:
        for worker in pair:
            worker.end()


async def test_a_worker_of_two_is_killed_three_times_under_load(kafka_settings: Kafka, workers: list[Worker]) -> None:
    chance = Random(seed())
    load = Load(kafka_settings, chance)
    try:
        for victim in (workers[0], workers[1], workers[0]):
            await asyncio.sleep(1 + chance.random())
            assignments = victim.assignments()
            victim.kill()
            await asyncio.sleep(chance.random())
            victim.start()
            await until(lambda w=victim, n=assignments: w.assignments() > n, "it has partitions again")  # type: ignore[misc]
        await asyncio.sleep(1)
    finally:
        await load.end()
    check(load, await settled_outcome(kafka_settings, workers))


async def test_a_frozen_worker_writes_nothing_after_it_has_lost_its_partitions(
    kafka_settings: Kafka, workers: list[Worker]
) -> None:
    load = Load(kafka_settings, Random(seed()))
    frozen, other = workers
    try:
        await asyncio.sleep(2)
        taken_over = other.assignments()
        frozen.send(signal.SIGSTOP)
        await until(lambda: other.assignments() > taken_over, "the other worker has all partitions")
        await asyncio.sleep(1)
        rejoined = frozen.assignments()
        frozen.send(signal.SIGCONT)
        await until(lambda: frozen.assignments() > rejoined, "the frozen worker is back in the group")
        await asyncio.sleep(1)
    finally:
        frozen.send(signal.SIGCONT)
        await load.end()
    check(load, await settled_outcome(kafka_settings, workers))


async def test_a_worker_whose_data_directory_was_emptied_recovers_from_the_changelog(
    kafka_settings: Kafka, workers: list[Worker]
) -> None:
    load = Load(kafka_settings, Random(seed()))
    try:
        await asyncio.sleep(2)
        for worker in workers:
            worker.kill()
            shutil.rmtree(worker.data)
        for worker in workers:
            worker.start()
        await asyncio.sleep(2)
    finally:
        await load.end()
    check(load, await settled_outcome(kafka_settings, workers))
    recovered = {line["partition"] for worker in workers for line in worker.lines("store recovered") if line["records"]}
    assert recovered == set(range(kafka_settings.partitions))


async def test_while_rubbish_cannot_be_set_aside_its_partition_stands_still_and_says_so_and_then_goes_on(
    kafka_settings: Kafka, workers: list[Worker]
) -> None:
    """The topic for invalid records takes none of them, as when it was made too small. (It does take the broker's own
    markers of 78 bytes: without them no transaction ends.)"""
    invalid = f"{kafka_settings.prefix}.events.invalid"
    await configure(kafka_settings, invalid, {"max.message.bytes": "100"})
    load = Load(kafka_settings, Random(seed()))
    try:
        await until(lambda: "partition stopped" in "".join(worker.said() for worker in workers), "a partition says it")
    finally:
        await load.end()
    assert f"larger than topic {invalid} takes; raise its max.message.bytes" in "".join(w.said() for w in workers)
    outcome = await read_outcome(kafka_settings)
    assert not outcome.is_complete
    assert not await read_topic(kafka_settings, invalid)
    await configure(kafka_settings, invalid, {"max.message.bytes": "1000000"})
    for worker in workers:
        worker.kill()
        worker.start()
    outcome = await settled_outcome(kafka_settings, workers)
    check(load, outcome)
    rubbish = [record.value for records in outcome.events.values() for record in records if record.value == b"{rubbish"]
    assert [record.value for record in await read_topic(kafka_settings, invalid)] == rubbish
    assert rubbish


def check(load: Load, outcome: Outcome) -> None:
    """Nothing is lost, nothing is doubled, and every state is what it must be."""
    expectation = outcome.expectation
    assert len(load.events) > 100, "too little was sent for this test to mean anything"
    logged = {event["id"]: event["name"] for event in map(msgspec.json.decode, _event_values(outcome))}
    assert logged.keys() >= load.events.keys()
    entered = Counter(entry.cause for entry in outcome.journal if entry.kind == "entered" and entry.journey == "pulse")
    assert entered == Counter(f"event pinged #{id}" for id, name in logged.items() if name == "pinged")
    assert any(entry.kind == "absorbed" for entry in outcome.journal), "nobody has logged in on a device"
    assert outcome.messages == expectation.messages
    assert set(expectation.message_ids().values()) == {1}
    assert {(message.user, message.template.partition("@")[0]): 1 for message in outcome.messages} == outcome.described
    assert outcome.journal == expectation.journal
    assert outcome.users == expectation.users
    print(f"{len(load.events)} events, {len(outcome.messages)} messages, {len(outcome.users)} users")


def _event_values(outcome: Outcome) -> list[bytes]:
    values = [record.value or b"" for records in outcome.events.values() for record in records]
    return [value for value in values if value.startswith(b'{"type":"event"')]
