"""The broker of the contest: topics are made, events written into them, and commands read as they come."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from benchmarks.contenders.expected import Command
from benchmarks.contenders.work import Given
from engine.runtime.kafka.partitioner import partition_of

STARTER = Path(__file__).parents[2] / "deploy" / "kafka" / "broker.py"
STARTS_WITHIN_SECONDS = 120.0  # 3 usually; the first time Maven fetches 54 MB
KEPT = {"retention.ms": "-1"}  # the log's time lies in the past
BATCH_BYTES, UNACKNOWLEDGED = 200_000, 32


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Yield the address of a broker whose data lie in `folder`, as long as the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "broker.log"
    options = ["--port", "0", "--data", str(folder / "data"), "--heap", "1g", "--end-with-parent"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(STARTER), *options], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C ends the contest, and that the broker, last
        )  # fmt: skip
    try:
        yield _address(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        listening = re.search(r"listens on ([\d.]+):(\d+)", log.read_text(errors="replace"))
        if listening:
            try:
                socket.create_connection((listening[1], int(listening[2])), timeout=1).close()
                return f"{listening[1]}:{listening[2]}"
            except OSError:
                pass
        time.sleep(0.1)
    raise SystemExit(f"the broker did not start: {log.read_text(errors='replace')[-500:]}")


def written_bytes(folder: Path, app: str) -> int:
    """Return how large the logs of one application are, with those of the broker itself: transactions and offsets.

    All topics of an application have its name in theirs, if not in front: `changelog__<name>--...`.
    """
    size = 0
    for partition in (folder / "data" / "log").iterdir():
        if app in partition.name or partition.name.startswith("__"):
            with contextlib.suppress(FileNotFoundError):  # the broker deletes and compacts when it likes
                size += sum(log.stat().st_size for log in partition.glob("*.log"))
    return size


async def create(bootstrap: str, names: Iterable[str], partitions: int, **configuration: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        new = [NewTopic(name, partitions, 1, topic_configs={**KEPT, **configuration}) for name in names]
        response: Any = await admin.create_topics(new)
        for name, code, *rest in response.topic_errors:
            if code:
                raise SystemExit(f"topic {name} could not be created: {rest or for_code(code).__name__}")
    finally:
        await admin.close()


async def remove(bootstrap: str, app: str) -> None:
    """Delete all topics of an application."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        names = [name for name in await admin.list_topics() if app in name]
        if names:
            await admin.delete_topics(names)
    finally:
        await admin.close()


async def stamp_from_now_on(bootstrap: str, topic: str, by: str = "LogAppendTime") -> None:
    """Let the broker, or with CreateTime the writer, date what comes from now on; what is in the topic keeps its time."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        configuration = {**KEPT, "message.timestamp.type": by}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=configuration)])
    finally:
        await admin.close()


async def write(
    bootstrap: str, topic: str, partitions: int, records: Iterable[Given], head: Sequence[bytes] = (), head_at: int = 0
) -> None:
    """Write the records with their own time, after `head`, which goes to every partition without a key."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks=1, max_batch_size=BATCH_BYTES)
    await producer.start()
    try:
        batches = [producer.create_batch() for _ in range(partitions)]
        sent: list[asyncio.Future[Any]] = []

        async def put(number: int, at: int, key: bytes | None, value: bytes) -> None:
            if batches[number].append(key=key, value=value, timestamp=at) is None:
                sent.append(await producer.send_batch(batches[number], topic, partition=number))
                batches[number] = producer.create_batch()
                batches[number].append(key=key, value=value, timestamp=at)
                if len(sent) >= UNACKNOWLEDGED:
                    await sent.pop(0)

        for number in range(partitions):
            for value in head:
                await put(number, head_at, None, value)
        for at, key, value in records:
            await put(partition_of(key, partitions), at, key, value)
        for number, batch in enumerate(batches):
            sent.append(await producer.send_batch(batch, topic, partition=number))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


def _all(topic: str, partitions: int) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(partitions)]


class Commands:
    """Reads the committed commands of a topic as they come: which, how often, and when each was first seen."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self.found: Counter[Command] = Counter()
        self.seen_at: dict[Command, float] = {}  # in seconds, as time.time()
        self._topics = _all(topic, partitions)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest",
            enable_auto_commit=False, fetch_max_wait_ms=50,
        )  # fmt: skip
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> "Commands":
        await self._consumer.start()
        self._consumer.assign(self._topics)
        self._reading = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._consumer.stop()

    async def to_the_end(self, within_seconds: float = 30) -> None:
        """Wait until all that is committed now has been read."""
        ends = await self._consumer.end_offsets(self._topics)
        deadline = time.monotonic() + within_seconds
        for topic in self._topics:
            while await self._consumer.position(topic) < ends[topic] and time.monotonic() < deadline:
                await asyncio.sleep(0.05)

    async def _read(self) -> None:
        while True:
            polled = await self._consumer.getmany(timeout_ms=500)
            now = time.time()
            for records in polled.values():
                for record in records:
                    value = json.loads(record.value)
                    template = value["template"].partition("@")[0]
                    command = Command(f"{value['tenant']}:{value['user']}", template, value["requested_at"])
                    self.found[command] += 1
                    self.seen_at.setdefault(command, now)


async def read_events(bootstrap: str, topic: str, partitions: int) -> list[tuple[int, bytes, bytes]]:
    """Return (timestamp, key, value) of all events of a topic, partition by partition; nothing else that is in it."""
    found = []
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        for source in _all(topic, partitions):
            consumer.assign([source])
            end = (await consumer.end_offsets([source]))[source]
            await consumer.seek_to_beginning(source)
            while await consumer.position(source) < end:
                for records in (await consumer.getmany(source, timeout_ms=1000, max_records=5000)).values():
                    found += [
                        (record.timestamp, record.key, record.value)
                        for record in records
                        if record.key is not None and b'"type":"event"' in record.value[:20]
                    ]
    finally:
        await consumer.stop()
    return found
