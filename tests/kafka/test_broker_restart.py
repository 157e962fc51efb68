"""A broker that goes away and comes back costs time, and nothing else."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.runtime.host import Unavailable
from engine.runtime.kafka import appender, topics
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.settings import Kafka
from schemas.records import NewRecord
from tests.kafka.broker import STARTER, answers
from tests.kafka.cluster import produce, until
from tests.kafka.test_partitions import KEYS, all_are_open, all_is_as_expected, worker

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]


class Broker:
    """A broker of the test's own, which may be killed."""

    def __init__(self, directory: Path) -> None:
        self._port = free_port()
        self._directory = directory
        self.bootstrap = f"127.0.0.1:{self._port}"

    def start(self) -> None:
        options = ["--port", str(self._port), "--data", str(self._directory / "data"), "--heap", "256m"]
        with (self._directory / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(STARTER), *options, "--end-with-parent"], stdout=log, stderr=log
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def broker(kafka_bootstrap: str, tmp_path: Path) -> Iterator[Broker]:
    """`kafka_bootstrap` is asked for so that this is skipped where no broker can be started."""
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.kill()


async def test_a_worker_outlives_its_broker(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def free_port() -> int:
    """A port nobody listens on, nor on the one after it, which is the controller's."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port
