"""What was found: committed records of the topics, stores on disk, and what a provider says it took."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from engine.runtime.host import PartitionStopped
from engine.runtime.kafka import topics
from engine.runtime.kafka.partition_store import FORMAT, META, STATES, TIMERS
from engine.runtime.settings import Kafka
from engine.runtime.store import Memory, RocksStore
from engine.runtime.timers import TimerIndex
from schemas.definitions import Definition
from schemas.records import Record
from tests.kafka.cluster import read_topic

Records = dict[int, list[Record]]  # partition -> its records, in order
SET_ASIDE = ("events.invalid", "dead-letters")


@dataclass
class StoreContents:
    """One partition's store in a data folder: through which offset of `events` it goes, states, timers.

    `timers` is None where there is no index yet: it is made before the store is used. `unreadable` says why nothing can be
    told of it.
    """

    name: str
    partition: int
    through: int
    states: dict[bytes, bytes]
    timers: list[tuple[int, bytes]] | None  # (due, actor), as in the index
    unreadable: str = ""


@dataclass(frozen=True)
class Delivery:
    """One line of a provider's ledger: it took the message of this id, at this time (ms)."""

    id: str
    at: int


@dataclass
class Evidence:
    """Everything the verifier looks at."""

    definitions: dict[str, Definition]
    partitions: int
    events: Records
    commands: dict[str, Records]  # channel ->
    journal: Records
    set_aside: dict[str, Records]  # topic ->
    changelog: Records
    stores: list[StoreContents] = field(default_factory=list)
    ledgers: dict[str, list[Delivery]] = field(default_factory=dict)  # channel ->


async def read_evidence(settings: Kafka) -> Evidence:
    """Read all topics as they are now. `events` comes last: it explains what was read before."""
    named = {topic: topics.topic_name(settings, topic) for topic in ("journal", "definitions", *SET_ASIDE)}
    found = {topic: await read_records(settings, name) for topic, name in named.items()}
    commands = {
        channel: await read_records(settings, topics.topic_name(settings, f"messages.{channel}"))
        for channel in topics.CHANNELS
    }
    changelog = await read_records(settings, topics.changelog_name(settings, "users"))
    events = await read_records(settings, topics.topic_name(settings, "events"))
    return Evidence(
        definitions=definitions_in(found["definitions"]),
        partitions=settings.partitions,
        events=events,
        commands=commands,
        journal=found["journal"],
        set_aside={topic: found[topic] for topic in SET_ASIDE},
        changelog=changelog,
    )


async def read_records(settings: Kafka, topic: str) -> Records:
    """Return the committed records of each partition of a topic, by its full name, in order."""
    partitions: Records = {number: [] for number in range(settings.partitions)}
    for each in await read_topic(settings, topic):
        partitions[each.partition].append(Record(each.offset, each.timestamp, each.key, each.value, each.headers))
    return partitions


def definitions_in(records: Records) -> dict[str, Definition]:
    bodies = [record.value for each in records.values() for record in each if record.value is not None]
    return {definition.key: definition for definition in (msgspec.json.decode(raw, type=Definition) for raw in bodies)}


def read_stores(data: Path) -> list[StoreContents]:
    """Return the stores of users in a worker's data folder; those that were set aside are none any more."""
    found = []
    for path in sorted(data.glob("worker-*/users/*")):
        if not path.name.isdigit() or not (path / "CURRENT").exists():
            continue
        name = f"{data.name}/{path.relative_to(data)}"
        try:
            found.append(_read_store(path, name))
        except PartitionStopped as error:
            found.append(StoreContents(name, int(path.name), -1, {}, [], str(error)))
    return found


def _read_store(path: Path, name: str) -> StoreContents:
    store = RocksStore.open(path, (STATES, TIMERS, META), FORMAT, Memory(8 << 20, 8 << 20), read_only=True)
    try:
        is_complete = TimerIndex(store, TIMERS, META).is_complete
        timers = (
            [(int.from_bytes(key[:8]), key[16:]) for key, _ in store.scan(TIMERS, b"", None)] if is_complete else None
        )
        through = int(store.get(META, b"through") or b"-1")
        states = dict(store.scan(STATES, b"", None))
    finally:
        store.close()
    return StoreContents(name, int(path.name), through, states, timers)


def read_ledger(lines: Iterable[str]) -> list[Delivery]:
    """Return what a provider has written down: NDJSON, `id` (of the message) and `at` (ms) a line."""
    rows = [json.loads(line) for line in lines if line.strip()]
    return [Delivery(row["id"], row["at"]) for row in rows]
