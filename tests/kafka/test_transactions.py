"""Who begins to write under an id ends what others left open, and says so while that takes long."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from engine.runtime.kafka import topics, transactions
from engine.runtime.kafka.transactions import TransactionalWriter
from engine.runtime.settings import Kafka
from tests.kafka.broker import answers
from tests.kafka.cluster import configure, until
from tests.kafka.own_broker import OwnBroker

pytestmark = pytest.mark.kafka


async def test_a_broker_that_cannot_end_a_transaction_is_waited_for_and_that_is_said(
    kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its topic no longer takes the 78 bytes that mark the end. (The broker doesn't try again before it is restarted.)

    `kafka_bootstrap` is asked for so that this is skipped where no broker can be started."""
    monkeypatch.setattr(transactions, "TELLS_OF_WAITING_EVERY_SECONDS", 0.3)
    broker = OwnBroker(tmp_path)
    settings = Kafka(bootstrap=broker.bootstrap, prefix="t", app="t-app", partitions=1)
    frozen, next_owner = (TransactionalWriter(settings, "t-app-users-0") for _ in range(2))
    broker.start()
    try:
        assert await answers(broker.bootstrap, 60)
        await topics.create(settings)
        await frozen.fence()
        assert frozen._producer is not None
        await frozen._producer.begin_transaction()
        await frozen._producer.send_and_wait("t.journal", b"never committed", partition=0)
        await frozen.close()
        await configure(settings, "t.journal", {"max.message.bytes": "50"})
        with capture_logs() as said:
            fencing = asyncio.create_task(next_owner.fence())

            async def is_told() -> bool:
                return len(said) >= 2

            await until(is_told, "it says that it waits")
            assert not fencing.done()
        assert said[-1]["event"] == "the broker does not end a transaction that was left open; waiting"
        assert said[-1]["transactional_id"] == "t-app-users-0"
        fencing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fencing
    finally:
        await next_owner.close()
        broker.kill()
