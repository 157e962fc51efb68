"""Which topics there are, how they must be made, and whether they are.

All have the same number of partitions, chosen once: a user's events, changelog, commands and journal lie in partitions
of the same number, so that one task owns them all. What a partition's clock is read from (`events`, `messages.*`) has
LogAppendTime, since no producer's clock may drive it. Tables are compacted and never deleted from.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from engine.runtime.kafka import clients
from engine.runtime.settings import Kafka

CHANNELS = ("email", "webhook", "call")

# What a store may have missed while it was away is bounded by this: see recovery.py.
TOMBSTONES_KEPT = timedelta(days=7)
LOG_KEPT = timedelta(days=7)
RECORDS_OF_WHAT_HAPPENED_KEPT = timedelta(days=90)  # the journal, and what was parked

# One user may remember 256 occurrences of each of 256 things: 1.3 MB, more than a topic takes unless it is told to.
LARGEST_STATE_BYTES = 4 << 20

VISIBLE_WITHIN_SECONDS = 30.0


class TopicError(Exception):
    """The operator must act: a topic is missing, or made differently from what is needed. One readable line."""


@dataclass(frozen=True)
class Topic:
    """A topic as it is created. Of its configuration, `required` must stay; `initial` is the operator's to change."""

    name: str
    partitions: int
    required: Mapping[str, str] = field(default_factory=dict)
    initial: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """What the broker has for a topic. `problem` is set where the state is "wrong"."""

    topic: Topic
    state: Literal["right", "missing", "wrong"]
    problem: str = ""


def topic_name(settings: Kafka, logical: str) -> str:
    """`events` -> `equeengage.events`."""
    return f"{settings.prefix}.{logical}"


def changelog_name(settings: Kafka, work: str) -> str:
    """`users` -> `equeengage-users-changelog`."""
    return f"{settings.app}-{work}-changelog"


def needed(settings: Kafka, channels: Iterable[str] = CHANNELS) -> list[Topic]:
    """Every topic that has to exist."""
    stamped = {"message.timestamp.type": "LogAppendTime"}
    compacted = {"cleanup.policy": "compact"}
    table = {"delete.retention.ms": _ms(TOMBSTONES_KEPT), "segment.bytes": str(50 << 20)}
    states = {"max.message.bytes": str(LARGEST_STATE_BYTES)}
    log = {"retention.ms": _ms(LOG_KEPT)}
    story = {"retention.ms": _ms(RECORDS_OF_WHAT_HAPPENED_KEPT)}

    def topic(name: str, required: Mapping[str, str], initial: Mapping[str, str]) -> Topic:
        if settings.replication >= 3:  # one may fail, and nothing stops or is lost
            initial = {**initial, "min.insync.replicas": "2"}
        return Topic(name, settings.partitions, required, initial)

    names = list(channels)
    return [
        topic(topic_name(settings, "events"), stamped, log),
        *(topic(topic_name(settings, f"messages.{channel}"), stamped, log) for channel in names),
        topic(topic_name(settings, "journal"), stamped, story),
        topic(topic_name(settings, "definitions"), compacted, table),
        topic(topic_name(settings, "suppressions"), compacted, table),
        topic(topic_name(settings, "events.invalid"), {}, story),
        topic(topic_name(settings, "dead-letters"), {}, story),
        *(topic(changelog_name(settings, work), compacted, table | states) for work in ["users", *names]),
    ]


async def compare(settings: Kafka, channels: Iterable[str] = CHANNELS) -> list[Finding]:
    """Say for each topic that is needed whether it exists and is right. Changes nothing (`topics create --dry-run`)."""
    async with _operator(settings) as admin:
        return await _compare(admin, needed(settings, channels))


async def channels_without_topic(settings: Kafka, channels: Iterable[str]) -> list[str]:
    """Return those of the channels to which nothing can be sent."""
    names = list(channels)
    async with _operator(settings) as admin:
        existing = await _partition_counts(admin)
    return [name for name in names if topic_name(settings, f"messages.{name}") not in existing]


async def check(settings: Kafka, channels: Iterable[str] = CHANNELS) -> None:
    """Raise TopicError unless every topic exists and is right."""
    findings = await compare(settings, channels)
    _refuse_wrong(findings)
    for finding in findings:
        if finding.state == "missing":
            raise TopicError(f"topic {finding.topic.name} does not exist; make it with: equeengage topics create")


async def create(settings: Kafka, channels: Iterable[str] = CHANNELS) -> list[str]:
    """Create what is missing and return the names, once brokers know them.

    Raises TopicError, having created nothing, if a topic exists that is not right.
    """
    topics = needed(settings, channels)
    async with _operator(settings) as admin:
        findings = await _compare(admin, topics)
        _refuse_wrong(findings)
        missing = [finding.topic for finding in findings if finding.state == "missing"]
        if missing:
            await _create(admin, missing, settings.replication)
            _refuse_wrong(await _when_visible(admin, topics))  # somebody else may have made one in between
        return [topic.name for topic in missing]


async def tombstones_kept(settings: Kafka, name: str) -> timedelta:
    """The `delete.retention.ms` that a topic really has."""
    async with _operator(settings) as admin:
        configuration = (await _configurations(admin, [name]))[name]
    return timedelta(milliseconds=int(configuration["delete.retention.ms"]))


async def cluster_id(settings: Kafka) -> str:
    """What tells this cluster from all others."""
    async with _operator(settings) as admin:
        return str((await admin.describe_cluster())["cluster_id"])


@asynccontextmanager
async def _operator(settings: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = clients.operator(settings)
    try:
        try:
            await admin.start()
        except KafkaError as error:
            raise TopicError(f"no Kafka broker answers at {settings.bootstrap}: {error}") from error
        yield admin
    finally:
        await admin.close()


async def _compare(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> list[Finding]:
    existing = await _partition_counts(admin)
    present = [topic.name for topic in topics if topic.name in existing]
    configurations = await _configurations(admin, present) if present else {}
    findings = []
    for topic in topics:
        if topic.name not in existing:
            findings.append(Finding(topic, "missing"))
            continue
        problem = _problem(topic, existing[topic.name], configurations[topic.name])
        findings.append(Finding(topic, "wrong" if problem else "right", problem))
    return findings


def _problem(topic: Topic, partitions: int, configuration: Mapping[str, str]) -> str:
    if partitions != topic.partitions:
        return (
            f"topic {topic.name} has {partitions} partitions and must have {topic.partitions}, as all our topics; "
            f"set EQUEENGAGE_KAFKA__PARTITIONS={partitions} if that is what the others have, or make it anew"
        )
    for name, value in topic.required.items():
        if configuration.get(name) != value:
            return (
                f"topic {topic.name} has {name}={configuration.get(name)} and must have {name}={value}; "
                f"change it with: kafka-configs --alter --topic {topic.name} --add-config {name}={value}"
            )
    return ""


async def _partition_counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}


async def _configurations(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    for response in await admin.describe_configs(resources):
        for code, message, _kind, name, entries in response.resources:
            if code:
                raise TopicError(
                    f"the configuration of topic {name} cannot be read: {message or for_code(code).__name__}"
                )
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found


async def _create(admin: AIOKafkaAdminClient, topics: Sequence[Topic], replication: int) -> None:
    new = [
        NewTopic(topic.name, topic.partitions, replication, topic_configs={**topic.initial, **topic.required})
        for topic in topics
    ]
    response: Any = await admin.create_topics(new)
    for name, code, *rest in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:  # somebody else was faster: as good
            raise TopicError(f"topic {name} could not be created: {rest[0] if rest else error.__name__}")


def _refuse_wrong(findings: Iterable[Finding]) -> None:
    for finding in findings:
        if finding.state == "wrong":
            raise TopicError(finding.problem)


async def _when_visible(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> list[Finding]:
    """What the broker has, once it knows of all topics."""
    deadline = asyncio.get_running_loop().time() + VISIBLE_WITHIN_SECONDS
    while True:
        findings = await _compare(admin, topics)
        if all(finding.state != "missing" for finding in findings):
            return findings
        if asyncio.get_running_loop().time() > deadline:
            raise TopicError(f"the topics were created and are still not visible after {VISIBLE_WITHIN_SECONDS:g} s")
        await asyncio.sleep(0.05)


def _ms(duration: timedelta) -> str:
    return str(duration // timedelta(milliseconds=1))
