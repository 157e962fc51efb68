"""The Kafka host keeps the promises of every host."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from engine.runtime.host import Definitions, Log, Suppressions
from engine.runtime.kafka import topics
from engine.runtime.kafka.appender import Appender
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.kafka.partitions import Partitions, Work
from engine.runtime.kafka.tables import KafkaDefinitions, KafkaSuppressions
from engine.runtime.kafka.wake_ups import BrokerClock
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka
from tests.runtime.host_contract import Harness, HostContract, Loop

pytestmark = [
    pytest.mark.kafka,
    # What a cancelled attempt to connect leaves behind is closed when it is collected, and aiokafka complains of that.
    pytest.mark.filterwarnings("ignore:Unclosed AIOKafkaConnection:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
]


class KafkaHarness:
    """All processes of a small installation in one. A crash leaves what a killed process leaves: no loop ends, nothing is
    finished, and the broker still believes that the member is there."""

    patience_seconds = 30.0

    def __init__(self, settings: Kafka, directory: Path) -> None:
        self._settings, self._directory = settings, directory
        self._partitions: list[Partitions] = []

    async def open(self, loops: Mapping[str, Loop]) -> None:
        settings = self._settings
        clock = BrokerClock()
        self._appender = Appender(settings, clock.learn_append)
        self._log, self._definitions = KafkaLog(settings), KafkaDefinitions(settings)
        self._suppressions = KafkaSuppressions(settings)
        await asyncio.gather(
            self._appender.start(), self._log.start(), self._definitions.start(), self._suppressions.start()
        )
        for topic, loop in loops.items():
            work = Work(topic, "users" if topic == "events" else topic.rpartition(".")[2], loop)
            directory = self._directory / work.name
            partitions = Partitions(settings, work, self._appender, clock, Metrics(), directory, member=work.name)
            await partitions.start()
            self._partitions.append(partitions)
        self.log: Log = self._log
        self.definitions: Definitions = self._definitions
        self.suppressions: Suppressions = self._suppressions

    async def close(self) -> None:
        await asyncio.gather(*(partitions.stop() for partitions in self._partitions))
        await self._let_go()

    async def crash(self) -> None:
        for partitions in self._partitions:
            partitions._is_stopping = True
            tasks = [*partitions._chores, *partitions._loops.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for partition in partitions._owned.values():
                await partition.close()
            await partitions._consumer.stop()
            await partitions._offsets.stop()
        await self._let_go()
        # A killed process has said goodbye to nobody: connections are left as they were.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    async def _let_go(self) -> None:
        self._partitions = []
        await asyncio.gather(
            self._appender.close(), self._log.stop(), self._definitions.stop(), self._suppressions.stop()
        )


@pytest.fixture
async def harness(kafka_settings: Kafka, tmp_path: Path) -> AsyncIterator[Harness]:
    await topics.create(kafka_settings)
    harness = KafkaHarness(kafka_settings, tmp_path)
    yield harness
    await harness.close()


class TestKafkaHost(HostContract):
    """All of the contract."""
