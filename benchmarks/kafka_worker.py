"""A Kafka worker working through a backlog, beside the bare loop on the same events in the same run.

Both read what is in the topic, keep a state per user with a changelog, and ask for messages, exactly once. The worker is
`equeengage worker` as anybody runs it, journal included. Its CPU is that of the whole process, less what the same process
needs to start on empty topics. The commands are compared with an independent fold of the topic: a run whose commands aren't
exactly those gets no figure.
"""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.figures import Figure, cpu_seconds, resident_bytes
from benchmarks.workload import TENANTS, events, journey
from engine.actor import NOBODY, handle
from engine.catalog import Catalog
from engine.runtime.kafka import topics
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.kafka.partitioner import partition_of
from engine.runtime.publish import plan
from engine.runtime.settings import Kafka
from schemas.definitions import Definition
from schemas.inputs import Activated, Input
from schemas.outputs import Message
from schemas.state import User

ROOT = Path(__file__).parent.parent
STARTER = ROOT / "deploy" / "kafka" / "broker.py"
METRICS_PORT = 18_432
TEMPLATES = {"thanks": {"text": "Thank you."}, "thanks_gold": {"text": "Thank you, and here is more."}}
CHANNELS = (*topics.CHANNELS, "bench")


def measure(count: int, users: int, partitions: int, repeats: int) -> list[Figure]:
    """Return CPU per event of the worker and of the bare loop, their ratio, memory and wall time."""
    ours: dict[str, list[float]] = {"cpu": [], "wall": [], "rss": []}
    bare: dict[str, list[float]] = {"cpu": [], "wall": [], "rss": []}
    with TemporaryDirectory(prefix="equeengage-bench-") as folder, _broker(Path(folder)) as bootstrap:
        starting = _start_cost(Path(folder, "idle"), bootstrap, partitions)
        for number in range(repeats):
            settings = _settings(bootstrap, f"bench{number}", partitions)
            asyncio.run(_prepare(settings, count, users))
            cpu, wall, rss = _worker(Path(folder, f"worker{number}"), settings, count)
            asyncio.run(_verify(settings))
            ours["cpu"].append((cpu - starting) * 1e6 / count)
            ours["wall"].append(wall * 1e6 / count)
            ours["rss"].append(rss / 1e6)
            limit = _bare(Path(folder, f"bare{number}"), settings)
            bare["cpu"].append(limit["cpu_us_per_event"])
            bare["wall"].append(limit["wall_us_per_event"])
            bare["rss"].append(limit["rss_mb"])
    shares = [limit / own for limit, own in zip(bare["cpu"], ours["cpu"], strict=True)]
    return [
        Figure("worker: CPU per event", "us", ours["cpu"], 15),
        Figure("bare loop: CPU per event", "us", bare["cpu"]),
        Figure("bare loop's CPU over the worker's", "x", shares, 0.4, lower=False),
        Figure("worker: wall time per event, broker on the same cores", "us", ours["wall"]),
        Figure("bare loop: wall time per event", "us", bare["wall"]),
        Figure("worker: resident memory", "MB", ours["rss"]),
        Figure("bare loop: resident memory", "MB", bare["rss"]),
    ]


@contextmanager
def _broker(folder: Path) -> Iterator[str]:
    log = folder / "broker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(STARTER), "--port", "0", "--data", str(folder / "broker"), "--heap", "1g",
             "--end-with-parent"],
            stdout=out, stderr=out, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        yield _address(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return where the broker listens, once it takes connections."""
    for _ in range(600):
        listening = re.search(r"listens on ([\d.]+):(\d+)", log.read_text(errors="replace"))
        if listening:
            try:
                socket.create_connection((listening[1], int(listening[2])), timeout=1).close()
                return f"{listening[1]}:{listening[2]}"
            except OSError:
                pass
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"the broker did not start: {log.read_text(errors='replace')[-500:]}")


def _settings(bootstrap: str, name: str, partitions: int) -> Kafka:
    return Kafka.model_validate(
        {"bootstrap": bootstrap, "prefix": name, "app": f"{name}-app", "partitions": partitions}
    )


class _Nothing:
    """No definitions are published yet."""

    def find(self, key: str) -> Definition | None:
        return None

    async def wait(self, key: str) -> Definition:
        raise NotImplementedError

    def all(self) -> list[Definition]:
        return []


async def _prepare(settings: Kafka, count: int, users: int) -> None:
    """Make the topics, publish the journey for all tenants, and write the events."""
    await topics.create(settings, CHANNELS)
    log = KafkaLog(settings)
    publication = plan(TENANTS, [journey], TEMPLATES, _Nothing())
    await log.append_atomically(publication.records(settings.partitions))
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap, acks="all", linger_ms=20, max_batch_size=200_000, enable_idempotence=True
    )
    await producer.start()
    for number, record in enumerate(events(count, users)):
        assert record.key is not None
        last = await producer.send(
            topics.topic_name(settings, "events"), record.value, record.key,
            partition=partition_of(record.key, settings.partitions),
        )  # fmt: skip
        if number % 20_000 == 0:
            await last
    await producer.flush()
    await producer.stop()


@contextmanager
def _running(data: Path, settings: Kafka) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("equeengage")), "worker", "--data", str(data), "--metrics-port",
         str(METRICS_PORT)],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("EQUEENGAGE_")},
            "EQUEENGAGE_KAFKA__BOOTSTRAP": settings.bootstrap, "EQUEENGAGE_KAFKA__PREFIX": settings.prefix,
            "EQUEENGAGE_KAFKA__APP": settings.app, "EQUEENGAGE_KAFKA__PARTITIONS": str(settings.partitions),
            "EQUEENGAGE_LOG_LEVEL": "warning",
        },
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _start_cost(data: Path, bootstrap: str, partitions: int) -> float:
    """Return the CPU seconds that a worker needs until it owns all partitions of empty topics."""
    settings = _settings(bootstrap, "idle", partitions)
    asyncio.run(topics.create(settings, CHANNELS))
    with _running(data, settings) as process:
        _until(process, lambda read: read("equeengage_partitions_owned") == partitions)
        return cpu_seconds(process.pid)


def _worker(data: Path, settings: Kafka, count: int) -> tuple[float, float, float]:
    """Return CPU seconds, wall seconds from the first folded event to the last, and the resident bytes at the end."""
    with _running(data, settings) as process:
        _until(process, lambda read: read("equeengage_inputs_folded_total") > 0)
        began = time.perf_counter()
        _until(process, lambda read: read("equeengage_inputs_folded_total", 'kind="event"') >= count)
        return cpu_seconds(process.pid), time.perf_counter() - began, resident_bytes(process.pid)


def _until(process: subprocess.Popen[bytes], reached, patience_seconds: float = 300) -> None:  # type: ignore[no-untyped-def]
    """Ask /metrics twice a second until what is wanted is reached."""
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit("the worker stopped")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=5) as answer:
                page = answer.read().decode()
        except OSError:
            page = ""

        def read(name: str, label: str = "", page: str = page) -> float:
            lines = [line for line in page.splitlines() if line.startswith((f"{name} ", f"{name}{{")) and label in line]
            return sum(float(line.rpartition(" ")[2]) for line in lines)

        if page and reached(read):
            return
        time.sleep(0.5)
    raise SystemExit(f"the worker was not done within {patience_seconds:g} s")


def _bare(data: Path, settings: Kafka) -> dict[str, float]:
    data.mkdir()
    asyncio.run(topics.create(_settings(settings.bootstrap, f"{settings.prefix}-bare", settings.partitions), CHANNELS))
    bare = _settings(settings.bootstrap, f"{settings.prefix}-bare", settings.partitions)
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.bare_loop", "--bootstrap", settings.bootstrap, "--topic",
         topics.topic_name(settings, "events"), "--changelog", topics.changelog_name(bare, "users"), "--commands",
         topics.topic_name(bare, "messages.bench"), "--app", bare.app, "--data", str(data), "--partitions",
         str(settings.partitions)],
        capture_output=True, text=True, cwd=ROOT, timeout=600,
    )  # fmt: skip
    if ran.returncode:
        raise SystemExit(f"the bare loop failed: {ran.stderr[-500:]}")
    result: dict[str, float] = json.loads(ran.stdout)
    return result


async def _verify(settings: Kafka) -> None:
    """Compare the commands with those that the events, folded again without any of the runtime, ask for."""
    catalogs: dict[int, Catalog] = {}
    users: dict[bytes, User] = {}
    expected: Counter[str] = Counter()
    decode = msgspec.json.Decoder(Input).decode
    async for partition, key, value, timestamp in _read(settings, "events"):
        given = decode(value)
        if isinstance(given, Activated):
            catalog = catalogs.get(partition, Catalog())
            catalogs[partition] = catalog.activate(given.tenant, journey)
            continue
        tenant, _, user_id = key.decode().partition(":")
        handled = handle(catalogs[partition], tenant, user_id, users.get(key, NOBODY), given, timestamp)
        users[key] = handled.user
        expected.update(message.id for message in handled.messages)
    found: Counter[str] = Counter()
    async for _, _, value, _ in _read(settings, "messages.bench"):
        found[msgspec.json.decode(value, type=Message).id] += 1
    if found != expected:
        lost, doubled = expected - found, found - expected
        raise SystemExit(f"wrong: {len(expected)} commands expected, {lost.total()} lost, {doubled.total()} too many")


async def _read(settings: Kafka, topic: str):  # type: ignore[no-untyped-def]
    """Yield (partition, key, value, timestamp) of the committed records of a topic, partition by partition."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        for number in range(settings.partitions):
            source = TopicPartition(topics.topic_name(settings, topic), number)
            consumer.assign([source])
            end = (await consumer.end_offsets([source]))[source]
            await consumer.seek_to_beginning(source)
            while await consumer.position(source) < end:
                for records in (await consumer.getmany(source, timeout_ms=1000, max_records=5000)).values():
                    for record in records:
                        yield number, record.key, record.value, record.timestamp
    finally:
        await consumer.stop()
