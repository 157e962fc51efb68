"""A broker that goes away and comes back costs time, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.runtime.host import Unavailable
from engine.runtime.kafka import appender, topics
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.settings import Kafka
from schemas.records import NewRecord
from tests.kafka.broker import answers
from tests.kafka.cluster import produce, until
from tests.kafka.own_broker import OwnBroker
from tests.kafka.test_partitions import KEYS, all_are_open, all_is_as_expected, worker

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]


@pytest.fixture
def broker(kafka_bootstrap: str, tmp_path: Path) -> Iterator[OwnBroker]:
    """`kafka_bootstrap` is asked for so that this is skipped where no broker can be started."""
    broker = OwnBroker(tmp_path)
    broker.start()
    yield broker
    broker.kill()


async def test_a_worker_outlives_its_broker(broker: OwnBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appender, "UNAVAILABLE_AFTER_SECONDS", 2.0)
    settings = Kafka(bootstrap=broker.bootstrap, prefix="t", app="t-app", partitions=4, session_timeout_seconds=6)
    assert await answers(broker.bootstrap, 60)
    await topics.create(settings)
    log = KafkaLog(settings)
    await log.start()
    keys: list[bytes] = []
    try:
        async with worker(settings, tmp_path / "stores") as partitions:
            await produce(settings, KEYS)
            keys += KEYS
            await all_are_open(partitions)
            broker.kill()
            with pytest.raises(Unavailable):
                await log.append([NewRecord("events", b"acme:nobody", b"{}")])
            broker.start()
            assert await answers(broker.bootstrap, 60)
            await is_available(log)
            await log.append([NewRecord("events", b"acme:user-0", b"{}")])
            keys.append(b"acme:user-0")
            await produce(settings, KEYS)
            keys += KEYS
            await all_is_as_expected(settings, keys, but=b"acme:nobody")
    finally:
        await log.stop()


async def is_available(log: KafkaLog) -> None:
    """Wait until the log takes records again, without anybody having started it anew."""

    async def holds() -> bool:
        try:
            await log.append([NewRecord("journal", b"acme:user-0", b"{}")])
        except Unavailable:
            return False
        return True

    await until(holds, "the log is available again")
