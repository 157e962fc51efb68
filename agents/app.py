"""The Faust app of the users' partitions: where `faust -A agents.app` finds the agents, and runs a worker.

faust -A agents.app agents --local      # lists them
faust -A agents.app worker              # one worker; `equeengage worker` runs one per core and looks after them
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from engine.runtime.host import PartitionHost
from engine.runtime.kafka.app import PartitionsApp, build_app
from engine.runtime.kafka.partitions import Work
from engine.runtime.kafka.process import Tables, owning_partitions
from engine.runtime.metrics import Metrics
from engine.runtime.partition import UserPartition
from engine.runtime.settings import Settings


def make_app(settings: Settings, metrics: Metrics, number: int = 0) -> PartitionsApp:
    """Make the app of one worker process. `number` tells it from the others that share the data directory."""
    directory = settings.data / f"worker-{number}"
    app = build_app(settings.kafka, directory / "faust")

    @app.agent(app.batches, name="journeys")  # type: ignore[untyped-decorator]
    async def journeys(batches: Any) -> None:
        """Take users through their journeys: folds each batch of a partition's records."""
        async for batch in batches:
            batch.fold()

    @asynccontextmanager
    async def open_work(tables: Tables) -> AsyncIterator[Work]:
        async def run(host: PartitionHost) -> None:
            await UserPartition(host, tables.definitions, metrics).run(app.through)

        yield Work("events", "users", run)

    app.own(lambda: owning_partitions(settings.kafka, open_work, metrics, directory))
    return app


app = make_app(Settings(), Metrics())
