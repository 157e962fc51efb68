"""Topics are made right, once, and what is not right is refused in one line."""

import pytest
from aiokafka.admin import NewTopic

from engine.runtime.kafka import topics
from engine.runtime.settings import Kafka
from tests.kafka.cluster import configure, operator, until


def test_every_keyed_topic_has_the_same_number_of_partitions() -> None:
    assert {topic.partitions for topic in topics.needed(Kafka(partitions=7))} == {7}


def test_the_names_are_those_of_the_design() -> None:
    assert [topic.name for topic in topics.needed(Kafka(prefix="p", app="a"), ["email"])] == [
        "p.events",
        "p.messages.email",
        "p.journal",
        "p.definitions",
        "p.suppressions",
        "p.events.invalid",
        "p.dead-letters",
        "a-users-changelog",
        "a-email-changelog",
    ]


def test_with_three_replicas_one_may_fail_without_a_loss() -> None:
    assert all(topic.initial["min.insync.replicas"] == "2" for topic in topics.needed(Kafka(replication=3)))
    assert all("min.insync.replicas" not in topic.initial for topic in topics.needed(Kafka(replication=1)))


@pytest.mark.kafka
async def test_what_is_missing_is_said_then_made_and_the_second_time_there_is_nothing_to_do(
    kafka_settings: Kafka,
) -> None:
    wanted = [topic.name for topic in topics.needed(kafka_settings)]
    assert {finding.state for finding in await topics.compare(kafka_settings)} == {"missing"}
    with pytest.raises(topics.TopicError, match="does not exist; make it with: equeengage topics create"):
        await topics.check(kafka_settings)
    assert await topics.create(kafka_settings) == wanted
    assert {finding.state for finding in await topics.compare(kafka_settings)} == {"right"}
    assert await topics.create(kafka_settings) == []
    await topics.check(kafka_settings)


@pytest.mark.kafka
async def test_nothing_is_made_beside_a_topic_that_is_wrong(kafka_settings: Kafka) -> None:
    events = f"{kafka_settings.prefix}.events"
    async with operator(kafka_settings) as admin:
        await admin.create_topics([NewTopic(events, 4, 1)])

        async def is_there() -> bool:
            return events in await admin.list_topics()

        await until(is_there, "the topic is there")
    with pytest.raises(topics.TopicError, match=rf"topic {events} has message.timestamp.type=CreateTime and must have"):
        await topics.create(kafka_settings)
    others = [topic.name for topic in topics.needed(kafka_settings) if topic.name != events]
    assert [each.topic.name for each in await topics.compare(kafka_settings) if each.state == "missing"] == others
    await configure(kafka_settings, events, {})
    assert await topics.create(kafka_settings) == others


async def test_a_broker_that_is_not_there_is_said_in_one_line() -> None:
    with pytest.raises(topics.TopicError, match=r"no Kafka broker answers at 127\.0\.0\.1:9:"):
        await topics.check(Kafka(bootstrap="127.0.0.1:9"))
