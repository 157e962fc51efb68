"""A worker process that counts events: `python -m tests.kafka.counting_worker SETTINGS DIRECTORY`, ended by a signal."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agents.worker import _run
from engine.runtime import logs
from engine.runtime.kafka.partitions import Work
from engine.runtime.kafka.process import Tables, owning_partitions
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka
from tests.kafka.counting import count_events


def main(settings: Kafka, directory: Path) -> None:
    @asynccontextmanager
    async def open_work(tables: Tables) -> AsyncIterator[Work]:
        yield Work("events", "users", count_events)

    @asynccontextmanager
    async def working(metrics: Metrics) -> AsyncIterator["asyncio.Future[None]"]:
        async with owning_partitions(settings, open_work, metrics, directory) as partitions:
            yield partitions.failed

    logs.configure("info")
    _run(working, None)


if __name__ == "__main__":
    main(Kafka.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
