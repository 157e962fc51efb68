"""The broker the other Kafka tests rely on is there and is Kafka."""

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from engine.runtime.settings import Kafka

pytestmark = pytest.mark.kafka


async def test_a_topic_can_be_created_and_is_seen_by_others(kafka_settings: Kafka) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_settings.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(f"{kafka_settings.prefix}.events", 4, 1)])
        for _ in range(100):  # The broker answers before its own list has it.
            if f"{kafka_settings.prefix}.events" in await admin.list_topics():
                break
            await asyncio.sleep(0.1)
        else:
            pytest.fail("the topic was created and is not listed")
    finally:
        await admin.close()
