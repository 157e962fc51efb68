"""What the Kafka tests do to a broker from outside: produce as any producer would, and read what was committed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from engine.runtime.kafka import topics
from engine.runtime.settings import Kafka

WITHIN_SECONDS = 60.0


async def produce(settings: Kafka, keys: Iterable[bytes], topic: str = "events", **options: Any) -> None:
    """Write an event for each key with a plain producer, which chooses the partitions itself."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, acks="all", linger_ms=5, **options)
    await producer.start()
    try:
        name = f"{settings.prefix}.{topic}"
        sent = [await producer.send(name, key=key, value=b'{"any": "event"}') for key in keys]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def read_topic(settings: Kafka, topic: str, isolation: str = "read_committed") -> list[Any]:
    """All committed records of a topic, by its full name, as they are now."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap, isolation_level=isolation, enable_auto_commit=False
    )
    await consumer.start()
    try:
        sources = [TopicPartition(topic, number) for number in range(settings.partitions)]
        consumer.assign(sources)
        begins = await consumer.beginning_offsets(sources)
        ends = await consumer.end_offsets(sources)
        for source in sources:
            consumer.seek(source, begins[source])
        records: list[Any] = []
        for source in sources:
            while await consumer.position(source) < ends[source]:
                records += (await consumer.getmany(source, timeout_ms=100)).get(source, [])
        return records
    finally:
        await consumer.stop()


async def ends_of(settings: Kafka, topic: str) -> list[int]:
    """Where each partition of one of our topics ends."""
    return await _ends_of(settings, f"{settings.prefix}.{topic}")


async def _ends_of(settings: Kafka, name: str) -> list[int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        sources = [TopicPartition(name, number) for number in range(settings.partitions)]
        ends = await consumer.end_offsets(sources)
        return [ends[source] for source in sources]
    finally:
        await consumer.stop()


async def configure(settings: Kafka, topic: str, configuration: dict[str, str]) -> None:
    """Change a topic's configuration. The request replaces all of it, so what the topic was made with is repeated."""
    made = next(each for each in topics.needed(settings) if each.name == topic)
    async with operator(settings) as admin:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {**made.initial, **made.required, **configuration})
        for response in await admin.alter_configs([resource]):
            assert not any(code for code, *_ in response.resources), response

        async def is_known() -> bool:
            (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            known = {entry[0]: entry[1] for *_, entries in response.resources for entry in entries}
            return known.items() >= configuration.items()

        await until(is_known, f"the broker has {configuration}")


async def delete_all_records(settings: Kafka, topic: str) -> None:
    """What retention does, in a moment."""
    ends = await ends_of(settings, topic)
    name = f"{settings.prefix}.{topic}"
    async with operator(settings) as admin:
        await admin.delete_records({TopicPartition(name, n): RecordsToDelete(end) for n, end in enumerate(ends)})


async def truncate_changelog(settings: Kafka) -> None:
    """What happens to a changelog that is not only compacted for a while: nothing of what was in it is left."""
    name = topics.changelog_name(settings, "users")
    await configure(settings, name, {"cleanup.policy": "compact,delete"})
    ends = await _ends_of(settings, name)
    async with operator(settings) as admin:
        await admin.delete_records({TopicPartition(name, n): RecordsToDelete(end) for n, end in enumerate(ends)})
    await configure(settings, name, {"cleanup.policy": "compact"})


async def make_anew(settings: Kafka, topic: str) -> None:
    """Delete a topic and create it again, empty."""
    async with operator(settings) as admin:
        await admin.delete_topics([topic])

        async def is_gone() -> bool:
            return topic not in await admin.list_topics()

        await until(is_gone, f"{topic} is deleted")
    assert await topics.create(settings) == [topic]


async def enlarge(settings: Kafka, topic: str, count: int) -> None:
    """Give a topic more partitions, and return when it has them."""
    name = f"{settings.prefix}.{topic}"
    async with operator(settings) as admin:
        await admin.create_partitions({name: NewPartitions(count)})

        async def has_them() -> bool:
            (described,) = await admin.describe_topics([name])
            return len(described["partitions"]) == count

        await until(has_them, f"{topic} has {count} partitions")


@asynccontextmanager
async def operator(settings: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def messages(settings: Kafka) -> Counter[tuple[bytes, bytes]]:
    """The messages asked for, and how often each was."""
    records = await read_topic(settings, f"{settings.prefix}.messages.email")
    return Counter((record.key, record.value) for record in records)


async def states(settings: Kafka, work: str = "users") -> dict[bytes, int]:
    """The last state of each user in the changelog."""
    latest: dict[bytes, bytes] = {}
    for record in await read_topic(settings, f"{settings.app}-{work}-changelog"):
        if not record.key.startswith(b"\0"):
            latest[record.key] = record.value
    return {key: int(value) for key, value in latest.items()}


async def until(holds: Callable[[], Awaitable[bool]], what: str, within_seconds: float = WITHIN_SECONDS) -> None:
    """Ask until it holds; fail after the time."""
    deadline = asyncio.get_running_loop().time() + within_seconds
    while not await holds():
        assert asyncio.get_running_loop().time() < deadline, f"not within {within_seconds:g} s: {what}"
        await asyncio.sleep(0.1)
