"""How our own worker takes part: `equeengage worker` as anybody runs it, journal included."""

import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaProducer

from benchmarks.contenders import cluster
from benchmarks.contenders.entrants import Place, environment
from benchmarks.contenders.work import BEGIN_AT, TENANTS, journey
from engine import on
from engine.runtime.kafka import topics
from engine.runtime.publish import Publication, plan
from engine.runtime.settings import Kafka
from schemas.definitions import Definition

TEMPLATES = {"thanks": {"text": "Thank you."}, "thanks_gold": {"text": "Thank you, and here is more."}}
CHANNELS = (*topics.CHANNELS, "bench")


class Nothing:
    """No definitions are published yet."""

    def find(self, key: str) -> Definition | None:
        return None

    async def wait(self, key: str) -> Definition:
        raise NotImplementedError

    def all(self) -> list[Definition]:
        return []


def place(bootstrap: str, app: str, data: Path, partitions: int) -> Place:
    return Place(bootstrap, f"{app}.events", f"{app}.messages.bench", app, data, partitions)


@cache
def publication(others: int = 0) -> Publication:
    """Return what publishing the journey for all tenants comes to, with so many others that ask for events that don't come."""
    beside = [replace(journey, name=f"other_{number}", entry=on(f"other_{number}")) for number in range(others)]
    return plan(TENANTS, [journey, *beside], TEMPLATES, Nothing(), now=BEGIN_AT)


def activations(publication: Publication) -> list[bytes]:
    """What stands at the head of each partition of `events`: the journeys become active for all tenants."""
    return [msgspec.json.encode(each) for each in publication.activations]


async def prepare(place: Place, publication: Publication) -> None:
    """Publish the definitions and make every topic but `events`, which is there already and now dated by the broker."""
    await cluster.stamp_from_now_on(place.bootstrap, place.topic)
    await topics.create(_settings(place), CHANNELS)
    await publish(place, publication)


async def publish(place: Place, publication: Publication) -> None:
    """Write the definitions; what activates them is written by whoever writes the events."""
    producer = AIOKafkaProducer(bootstrap_servers=place.bootstrap, acks="all")
    await producer.start()
    for record in publication.records(place.partitions):
        if record.topic != "events":
            await producer.send(topics.topic_name(_settings(place), record.topic), record.value, record.key)
    await producer.flush()
    await producer.stop()


def command(place: Place, metrics_port: int, processes: int = 1) -> list[str]:
    worker = str(Path(sys.executable).with_name("equeengage"))
    options = {"data": place.data, "metrics-port": metrics_port, "processes": processes}
    return [worker, "worker", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]


def settings(place: Place, log_level: str = "warning") -> Mapping[str, str]:
    """The events of a backlog carry the times of days long past, so the operator agrees to that."""
    return {
        **environment(),
        "EQUEENGAGE_KAFKA__BOOTSTRAP": place.bootstrap,
        "EQUEENGAGE_KAFKA__PREFIX": place.app,
        "EQUEENGAGE_KAFKA__APP": place.app,
        "EQUEENGAGE_KAFKA__PARTITIONS": str(place.partitions),
        "EQUEENGAGE_KAFKA__ACCEPT_CREATE_TIME": "true",
        "EQUEENGAGE_LOG_LEVEL": log_level,
    }


def folded(metrics_port: int, processes: int = 1) -> int:
    """Ask the worker how many events it has folded; 0 while it doesn't answer yet."""
    return sum(_metric(metrics_port + number, "inputs_folded_total", 'kind="event"') for number in range(processes))


def owned(metrics_port: int, processes: int) -> list[int]:
    """Ask each process of a worker how many partitions it has; 0 while it doesn't answer yet."""
    return [_metric(metrics_port + number, "partitions_owned", 'topic="events"') for number in range(processes)]


def _metric(port: int, name: str, label: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0
    counts = [line for line in lines if line.startswith(f"equeengage_{name}") and label in line]
    return int(sum(float(line.rpartition(" ")[2]) for line in counts))


def _settings(place: Place) -> Kafka:
    return Kafka.model_validate(
        {"bootstrap": place.bootstrap, "prefix": place.app, "app": place.app, "partitions": place.partitions}
    )
