"""How a command looks at what was published and at who is where: in a data folder or on Kafka. It appends nothing."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agents.cli.failure import Failed
from engine.runtime.host import Definitions
from engine.runtime.settings import Settings
from engine.runtime.states import Place


@dataclass(frozen=True)
class Sight:
    """The definitions, and `count_runs`: how many runs of a tenant are where, showing how far it has come."""

    definitions: Definitions
    count_runs: Callable[[str], Counter[Place]]


@contextmanager
def looking(settings: Settings, on_kafka: bool) -> Iterator[Sight]:
    """Look, also while servers or workers run. Raises Failed where there is nothing to see, saying what to do."""
    if on_kafka:
        yield _kafka(settings)
        return
    from agents.cli.progress import counting
    from engine.runtime.embedded.census import count_runs
    from engine.runtime.embedded.readonly import ReadOnlyLog

    if not settings.data.is_dir():
        raise Failed(f"there is no data folder {settings.data}; name it with --data DIR")
    with ReadOnlyLog.open(settings.data) as log:

        def count(tenant: str) -> Counter[Place]:
            with counting("users looked at") as told:
                return count_runs(log, tenant, told)

        yield Sight(log.definitions, count)


def _kafka(settings: Settings) -> Sight:
    import asyncio

    from agents.cli.progress import counting
    from agents.cli.reach import reach
    from engine.runtime.kafka.census import count_runs
    from engine.runtime.kafka.log import KafkaLog

    async def read_definitions() -> Definitions:
        async with reach(settings, on_kafka=True) as reached:
            return reached.definitions

    definitions = asyncio.run(read_definitions())  # as they were then

    def count(tenant: str) -> Counter[Place]:
        with counting("states read") as told:
            return count_runs(KafkaLog(settings.kafka), settings.kafka.partitions, tenant, told)

    return Sight(definitions, count)
