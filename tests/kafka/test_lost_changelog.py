"""A changelog that was lost stops its partitions also where no store is left to compare it with: nothing is done twice."""

from pathlib import Path

import pytest

from engine.runtime.kafka import topics
from engine.runtime.settings import Kafka
from tests.kafka.cluster import make_anew, messages, produce, states, until
from tests.kafka.counting import expected
from tests.kafka.test_partitions import KEYS, all_is_as_expected, are_stopped, worker

pytestmark = pytest.mark.kafka


async def test_who_has_neither_a_store_nor_its_changelog_does_not_fold_everything_again(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    async with worker(kafka_settings, tmp_path / "one"):
        await all_is_as_expected(kafka_settings, KEYS)
    sent = await messages(kafka_settings)
    await make_anew(kafka_settings, topics.changelog_name(kafka_settings, "users"))
    async with worker(kafka_settings, tmp_path / "another") as partitions:
        await are_stopped(partitions, kafka_settings.partitions)
        assert "was folded before through offset" in partitions.stopped[0]
        assert "EQUEENGAGE_KAFKA__ACCEPT_GAP=true" in partitions.stopped[0]
    assert await messages(kafka_settings) == sent
    agreed = kafka_settings.model_copy(update={"accept_gap": True})
    async with worker(agreed, tmp_path / "another"):
        await until_all_is_folded_again(agreed)
    assert await messages(agreed) == sent + sent


async def until_all_is_folded_again(settings: Kafka) -> None:
    counts, _ = expected(KEYS)

    async def holds() -> bool:
        return await states(settings) == counts

    await until(holds, "everything is folded again")
