"""A state of more than a megabyte, which one user's memory may come to, is kept and found again; its partition goes on."""

from pathlib import Path
from random import Random

import pytest

from engine.runtime.host import PartitionHost
from engine.runtime.kafka import topics
from engine.runtime.kafka.partitioner import partition_of
from engine.runtime.settings import Kafka
from tests.kafka.cluster import produce, until
from tests.kafka.counting import fold
from tests.kafka.test_partitions import all_are_open, worker

pytestmark = pytest.mark.kafka
GIANT = b"acme:giant"
STATE = Random(1).randbytes(1_300_000)  # nothing to compress


async def test_a_state_of_more_than_a_megabyte_is_kept_and_recovered(kafka_settings: Kafka, tmp_path: Path) -> None:
    await topics.create(kafka_settings)

    async def run(host: PartitionHost) -> None:
        while True:
            records = await host.poll(500, 1.0)
            if records:
                batch = fold(host, records)
                batch.states[GIANT] = STATE
                await host.commit(batch)

    await produce(kafka_settings, [GIANT] * 10)
    for folder in (tmp_path / "first", tmp_path / "second"):
        async with worker(kafka_settings, folder, run) as partitions:
            await all_are_open(partitions)
            store = partitions._owned[partition_of(GIANT, kafka_settings.partitions)].store

            async def is_there() -> bool:
                return bool(partitions.stopped) or store.get(GIANT) == STATE  # noqa: B023 - asked at once

            await until(is_there, "the large state is in the store")
            assert not partitions.stopped
