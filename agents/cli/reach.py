"""How a command reaches the log: through the server that owns the data folder, by opening the folder, or on Kafka."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from agents.admin import servers_log
from agents.cli.failure import Failed
from agents.cli.setup import silence_libraries
from engine.runtime.host import Definitions, Log, PartitionStopped
from engine.runtime.settings import Settings


@dataclass(frozen=True)
class Reach:
    """A log to append to, the definitions in it, and in words where that is."""

    log: Log
    definitions: Definitions
    where: str


@asynccontextmanager
async def reach(settings: Settings, on_kafka: bool, make: bool = False) -> AsyncIterator[Reach]:
    """Reach the log. `make` makes the data folder if there is none. Raises Failed, saying what to do."""
    if on_kafka:
        async with _kafka(settings) as reached:
            yield reached
        return
    async with servers_log(settings.data) as server:
        if server is not None:
            yield Reach(server, server, f"the server that runs on {settings.data}")
            return
    if not make and not (settings.data / "store").exists():
        raise Failed(
            f"there is no data folder {settings.data}; name it with --data DIR, or start with: equeengage serve"
        )
    async with _folder(settings) as reached:
        yield reached


@asynccontextmanager
async def _folder(settings: Settings) -> AsyncIterator[Reach]:
    from engine.runtime.embedded.host import EmbeddedHost

    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)  # people's addresses are in it
    try:
        host = EmbeddedHost.open(settings.data, settings.partitions, retention=timedelta(days=settings.retention_days))
    except PartitionStopped as error:
        raise Failed(str(error)) from error
    try:
        yield Reach(host.log, host.definitions, f"the data folder {settings.data}")
    finally:
        await host.close()


@asynccontextmanager
async def _kafka(settings: Settings) -> AsyncIterator[Reach]:
    from engine.runtime.kafka import topics
    from engine.runtime.kafka.log import KafkaLog
    from engine.runtime.kafka.tables import KafkaDefinitions

    silence_libraries()
    await topics.check(settings.kafka)
    log, definitions = KafkaLog(settings.kafka), KafkaDefinitions(settings.kafka)
    await definitions.start()
    try:
        await log.start()
        try:
            yield Reach(log, definitions, f"Kafka at {settings.kafka.bootstrap}")
        finally:
            await log.stop()
    finally:
        await definitions.stop()
