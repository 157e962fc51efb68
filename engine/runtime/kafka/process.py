"""What a process that owns partitions consists of on Kafka, started and stopped in order.

start:  definitions (and suppressions) are read whole -> join the group -> run loops on what is assigned
stop:   loops end where they wait -> what is being committed is committed -> leave
"""

import contextlib
import fcntl
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.runtime.kafka import topics
from engine.runtime.kafka.appender import Appender
from engine.runtime.kafka.partitions import Partitions, Work
from engine.runtime.kafka.tables import KafkaDefinitions, KafkaSuppressions
from engine.runtime.kafka.wake_ups import BrokerClock
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka


class DirectoryInUse(Exception):  # noqa: N818 - says what is the case
    """Another process keeps its stores in this directory."""


@dataclass(frozen=True)
class Tables:
    """What loops look things up in. Suppressions are read by channels only."""

    definitions: KafkaDefinitions
    suppressions: KafkaSuppressions


OpenWork = Callable[[Tables], contextlib.AbstractAsyncContextManager[Work]]


@asynccontextmanager
async def owning_partitions(
    settings: Kafka, open_work: OpenWork, metrics: Metrics, directory: Path, reads_suppressions: bool = False
) -> AsyncIterator[Partitions]:
    """Own partitions as long as the context lasts. `directory` holds the stores, and who we are in the group.

    `open_work` opens what the loops need, for as long as they run.
    Raises TopicError, KafkaError or DirectoryInUse if that cannot begin.
    """
    async with contextlib.AsyncExitStack() as stack:
        member = stack.enter_context(identity(directory))
        await topics.check(settings)
        clock = BrokerClock()
        appender = Appender(settings, clock.learn_append)
        stack.push_async_callback(appender.close)
        await appender.start()
        tables = Tables(KafkaDefinitions(settings), KafkaSuppressions(settings))
        stack.push_async_callback(tables.definitions.stop)
        await tables.definitions.start()
        if reads_suppressions:
            stack.push_async_callback(tables.suppressions.stop)
            await tables.suppressions.start()
        work = await stack.enter_async_context(open_work(tables))
        partitions = Partitions(
            settings, work, appender, clock, metrics, directory / work.name, f"{work.name}-{member}"
        )
        await partitions.start()
        stack.push_async_callback(partitions.stop)
        yield partitions


@contextlib.contextmanager
def identity(directory: Path) -> Iterator[str]:
    """Yield the id that belongs to a directory, made once: whoever has the stores gets their partitions back.

    Raises DirectoryInUse if another process has it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "member-id"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DirectoryInUse(f"{directory} is used by another worker; give this one another --data") from error
        file.seek(0)
        member = file.read().strip()
        if not member:
            member = uuid.uuid4().hex
            file.write(member)
            file.flush()
        yield member
