"""How long partitions stand still when a worker dies, is restarted or freezes, and what it takes to rebuild their states.

Real `equeengage worker` processes under a steady load. A partition stands still between two of its transactions; each leaves
its stamp in the changelog, so what happened is read from there afterwards. Every event asks for one message: a run that
lost or doubled one gets no figure.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.contenders.cluster import running
from benchmarks.contenders.ours import Nothing
from benchmarks.figures import Figure, cpu_seconds
from engine import Exit, Journey, Send, always, on
from engine.actor import NOBODY, handle
from engine.catalog import Catalog
from engine.runtime import states
from engine.runtime.kafka import topics
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.kafka.partition_store import SOURCE
from engine.runtime.kafka.partitioner import partition_of
from engine.runtime.kafka.transactions import batches
from engine.runtime.publish import plan
from engine.runtime.settings import Kafka
from schemas.inputs import Event
from schemas.outputs import Message

PARTITIONS = 12
EVENTS_PER_SECOND = 600  # 50 for each partition: it is seen to stand still after 20 ms
USERS = 20_000
STATE_BYTES = 300
MISPLACED_SHARE = 0.2  # of the events, where outputs to other partitions are wanted: a worker sends them on
SETTLES_SECONDS = 3.0
GIVES_UP_AFTER_SECONDS = 180.0
FREEZES_AT_MOST = 40  # until one hits an open transaction

JOURNEY = Journey(
    name="ping", version=1, entry=on("ping"), reentry=always, start="send",
    steps={"send": Send("email", template="pong", then="done"), "done": Exit()},
)  # fmt: skip
TENANT = "bench"


def measure(state_bytes: int) -> list[Figure]:
    """Return the pauses of each kind, with states of so many bytes in all where states count."""
    with TemporaryDirectory(prefix="equeengage-bench-") as name, running(Path(name)) as bootstrap:
        return asyncio.run(_measure(Path(name), bootstrap, state_bytes))


async def _measure(folder: Path, bootstrap: str, state_bytes: int) -> list[Figure]:
    users = state_bytes // STATE_BYTES
    size = f"{state_bytes / 1e9:g} GB"
    figures = await rebuilt(_settings(bootstrap, "rebuilt"), folder / "rebuilt", users, size)
    for standby in (False, True):
        how = "with standby" if standby else "without"
        name = f"failover{standby:d}"
        figures += await failover(_settings(bootstrap, name), folder / name, users, standby, f"{size}, {how}")
    figures += await rolling_restart(_settings(bootstrap, "rolling"), folder / "rolling")
    figures += await frozen(_settings(bootstrap, "frozen"), folder / "frozen")
    return figures


async def rebuilt(settings: Kafka, folder: Path, users: int, size: str) -> list[Figure]:
    """An empty data folder: all states are read from the changelogs."""
    await _prepare(settings, users)
    async with _load(settings, per_second=50):
        worker = _Worker(settings, folder / "one")
        began = time.time()
        worker.start()
        try:
            await _until(lambda: bool(worker.lines("partitions assigned")), "it has joined")
            cpu_before = cpu_seconds(worker.pid)
            await _until(lambda: len(worker.lines("partition open")) == PARTITIONS, "all is rebuilt")
            seconds = max(_seconds(line) for line in worker.lines("partition open")) - began
            ready = min(_seconds(line) for line in worker.lines("partitions assigned")) - began
            cpu = cpu_seconds(worker.pid) - cpu_before
            async with asyncio.timeout(GIVES_UP_AFTER_SECONDS):
                while not (commands := await _records(settings, "messages.email")):
                    await asyncio.sleep(0.5)
        finally:
            worker.end()
        first = min(record.timestamp for record in commands) / 1000 - began
    records = sum(line["records"] for line in worker.lines("store recovered"))
    return [
        Figure(
            f"rebuilding {size}: wall time per record, 4 partitions at once",
            "us",
            [(seconds - ready) * 1e6 / records],
            5,
        ),
        Figure(f"rebuilding {size}: CPU per record", "us", [cpu * 1e6 / records]),
        Figure(f"rebuilding {size}: all partitions, from the start of the process", "s", [seconds]),
        Figure(f"rebuilding {size}: first command, from the start of the process", "s", [first]),
    ]


async def failover(settings: Kafka, folder: Path, users: int, standby: bool, how: str) -> list[Figure]:
    """One of two workers is killed, and stays away."""
    await _prepare(settings, users)
    one, two = (_Worker(settings, folder / name, standby) for name in ("one", "two"))
    async with _load(settings) as load:
        try:
            await _start_both(one, two)
            if standby:
                await _until(lambda: _stands_by(two), "it stands by")
            await asyncio.sleep(SETTLES_SECONDS)
            theirs = one.owned()
            killed_at = time.time()
            one.kill()
            await _until(lambda: two.owned() == set(range(PARTITIONS)), "the other owns all")
            await _until(lambda: len(two.opened_since(killed_at) & theirs) == len(theirs), "they are open")
            await asyncio.sleep(SETTLES_SECONDS)
            await load.end()
            pauses = await _pauses(settings, killed_at)
            recovered = [line for line in two.lines("store recovered") if _seconds(line) > killed_at]
        finally:
            one.end()
            two.end()
    await _verify(settings, load)
    return [
        Figure(f"kill -9 of one of two ({how}): its partitions", "s", [pauses[number] for number in theirs], 15),
        Figure(f"kill -9 of one of two ({how}): the other's partitions", "s", _but(pauses, theirs)),
        Figure(f"kill -9 of one of two ({how}): records read", "", [sum(line["records"] for line in recovered)]),
    ]


async def rolling_restart(settings: Kafka, folder: Path) -> list[Figure]:
    """Two workers are stopped and started again, one after the other. They are members with static ids."""
    await _prepare(settings, USERS)
    workers = [_Worker(settings, folder / name) for name in ("one", "two")]
    longest: list[float] = []
    async with _load(settings) as load:
        try:
            await _start_both(*workers)
            await asyncio.sleep(SETTLES_SECONDS)
            restarts = []
            for worker in workers:
                theirs, began = worker.owned(), time.time()
                restarts.append((began, theirs))
                await worker.stop()
                worker.start()
                await _until(lambda w=worker, t=theirs, b=began: w.opened_since(b) >= t, "they are open")  # type: ignore[misc]
                await asyncio.sleep(SETTLES_SECONDS)
            await load.end()
            for began, theirs in restarts:
                pauses = await _pauses(settings, began)
                longest += [pauses[number] for number in theirs]
            rebalances = sum(len(worker.lines("partitions assigned")) for worker in workers)
        finally:
            for worker in workers:
                worker.end()
    await _verify(settings, load)
    return [
        Figure("rolling restart of two: each partition", "s", longest),
        Figure("rolling restart of two: assignments, those of the four starts included", "", [rebalances]),
    ]


async def frozen(settings: Kafka, folder: Path) -> list[Figure]:
    """One of two workers is frozen within a transaction that has written to partitions of the other."""
    await _prepare(settings, USERS)
    one, two = (_Worker(settings, folder / name) for name in ("one", "two"))
    async with _load(settings, misplaced=MISPLACED_SHARE) as load:
        try:
            await _start_both(one, two)
            await asyncio.sleep(SETTLES_SECONDS)
            theirs = one.owned()
            for _ in range(FREEZES_AT_MOST):
                frozen_at = time.time()
                one.send(signal.SIGSTOP)
                if await _is_held_back(settings, two.owned()):
                    break
                one.send(signal.SIGCONT)
                await asyncio.sleep(0.3)
            else:
                raise SystemExit("no freeze has hit a transaction that wrote to partitions of the other worker")
            await _until(lambda: two.owned() == set(range(PARTITIONS)), "the other owns all")
            await _until(lambda: len(two.opened_since(frozen_at) & theirs) == len(theirs), "they are open")
            await asyncio.sleep(SETTLES_SECONDS)
            one.send(signal.SIGCONT)
            await asyncio.sleep(SETTLES_SECONDS)
            await load.end()
            pauses = await _pauses(settings, frozen_at)
        finally:
            one.send(signal.SIGCONT)
            one.end()
            two.end()
    await _verify(settings, load)
    return [
        Figure("frozen in a transaction: its partitions", "s", [pauses[number] for number in theirs], 15),
        Figure("frozen in a transaction: partitions of the other worker", "s", _but(pauses, theirs), 15),
    ]


def _settings(bootstrap: str, name: str) -> Kafka:
    return Kafka.model_validate(
        {"bootstrap": bootstrap, "prefix": name, "app": f"{name}-app", "partitions": PARTITIONS}
    )


async def _prepare(settings: Kafka, users: int) -> None:
    """Make the topics, publish the journey, and put the states of the users into the changelog, as a worker would."""
    await topics.create(settings)
    log = KafkaLog(settings)
    publication = plan([TENANT], [JOURNEY], {"pong": {"text": "Pong"}}, Nothing())
    await log.append_atomically(publication.records(settings.partitions))
    filler = {f"attribute_{number}": "of a person" for number in range(10)}
    identified = Event("identified", "identify", 1, {}, {"email": "somebody@example.com", **filler})
    user = handle(Catalog(), TENANT, "any", NOBODY, identified, 1).user
    state = states.encode_actor(user, None)
    assert abs(len(state) - STATE_BYTES) < STATE_BYTES / 10, f"a state has {len(state)} bytes"
    changelog = topics.changelog_name(settings, "users")
    contents: dict[int, list[Any]] = {number: [] for number in range(settings.partitions)}
    for number in range(users):
        key = b"%s:user-%d" % (TENANT.encode(), number)
        contents[partition_of(key, settings.partitions)].append((states.USER + key, state, ()))
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap, acks="all", enable_idempotence=True, max_batch_size=900_000
    )
    await producer.start()
    try:
        for number, records in contents.items():
            for batch in batches(producer, records):
                await (await producer.send_batch(batch, changelog, partition=number))
    finally:
        await producer.stop()


class _Worker:
    """A worker process, over all its starts."""

    def __init__(self, settings: Kafka, data: Path, standby: bool = False) -> None:
        data.parent.mkdir(parents=True, exist_ok=True)
        self._settings, self._data = settings, data
        self._log = data.with_suffix(".log")
        self._port = _free_port()
        self._options = ["--standby"] if standby else []

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EQUEENGAGE_")}
        given = {name: getattr(self._settings, name) for name in ("bootstrap", "prefix", "app", "partitions")}
        variables = {f"EQUEENGAGE_KAFKA__{name.upper()}": str(value) for name, value in given.items()}
        command = [
            sys.executable, "-c", "from agents.cli import main; main()", "worker", "--data", str(self._data),
            "--metrics-port", str(self._port), *self._options,
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**inherited, **variables}, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    async def stop(self) -> None:
        self.send(signal.SIGTERM)
        await asyncio.to_thread(self._process.wait, 60)

    def end(self) -> None:
        if self._process.poll() is None:
            self.kill()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What it logged under this name."""
        said = [line for line in self._log.read_text(errors="replace").splitlines() if line.startswith("{")]
        return [line for line in map(json.loads, said) if line["event"] == event]

    def owned(self) -> set[int]:
        assigned = self.lines("partitions assigned")
        return set(assigned[-1]["partitions"]) if assigned else set()

    def opened_since(self, at: float) -> set[int]:
        return {line["partition"] for line in self.lines("partition open") if _seconds(line) > at}

    def metric(self, name: str) -> list[float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
            page: str = answer.read().decode()
        return [float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(f"{name}{{")]


def _stands_by(worker: _Worker) -> bool:
    lags = worker.metric("equeengage_standby_lag_records")
    return len(lags) == PARTITIONS // 2 and max(lags) < EVENTS_PER_SECOND  # a second or so


async def _start_both(one: _Worker, two: _Worker) -> None:
    half = PARTITIONS // 2
    for worker in (one, two):
        worker.start()
    await _until(lambda: len(one.owned()) == len(two.owned()) == half, "each owns half")
    await _until(lambda: one.opened_since(0) >= one.owned() and two.opened_since(0) >= two.owned(), "all are open")


@dataclass
class _Load:
    """Events that keep coming, evenly for all partitions. `sent` are the acknowledged ones' ids."""

    sent: list[str]
    task: "asyncio.Task[None]"
    ending: asyncio.Event

    async def end(self) -> None:
        self.ending.set()
        await self.task


@asynccontextmanager
async def _load(settings: Kafka, per_second: int = EVENTS_PER_SECOND, misplaced: float = 0.0) -> AsyncIterator[_Load]:
    ending, sent = asyncio.Event(), list[str]()
    load = _Load(sent, asyncio.create_task(_send(settings, per_second, misplaced, sent, ending)), ending)
    try:
        yield load
    finally:
        await load.end()


async def _send(settings: Kafka, per_second: int, misplaced: float, sent: list[str], ending: asyncio.Event) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    name = topics.topic_name(settings, "events")
    due = time.monotonic()
    try:
        for number in count():
            if ending.is_set():
                return
            key = f"{TENANT}:user-{number % USERS}".encode()
            place = partition_of(key, settings.partitions)
            if number % 100 < 100 * misplaced:
                place = (place + 1 + number % (settings.partitions - 1)) % settings.partitions
            event = Event(f"ping-{number}", "ping", time.time_ns() // 1_000_000)
            acknowledged = await producer.send(name, msgspec.json.encode(event), key, partition=place)
            due += 1 / per_second
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
                if number % 10 == 0:
                    await acknowledged
            sent.append(event.id)
    finally:
        await producer.stop()  # all are acknowledged when it returns


async def _pauses(settings: Kafka, at: float) -> dict[int, float]:
    """Return for each partition how long it stood still after an instant, at most. (The clock is that of the workers'
    producers: the same machine's.)"""
    found: dict[int, float] = {}
    stamps: dict[int, list[float]] = {number: [] for number in range(settings.partitions)}
    for record in await _records(settings, None):
        if record.key == SOURCE:
            stamps[record.partition].append(record.timestamp / 1000)
    for number, at_seconds in stamps.items():
        found[number] = max((end - max(begin, at) for begin, end in pairwise(at_seconds) if end > at), default=0.0)
    return found


def _but(pauses: dict[int, float], theirs: set[int]) -> list[float]:
    return [seconds for number, seconds in pauses.items() if number not in theirs]


async def _is_held_back(settings: Kafka, numbers: set[int]) -> bool:
    """Whether readers of some of these partitions of `events` wait for a transaction that doesn't end."""
    sources = [TopicPartition(topics.topic_name(settings, "events"), number) for number in sorted(numbers)]
    readers = [AIOKafkaConsumer(bootstrap_servers=settings.bootstrap, isolation_level=each, enable_auto_commit=False)
               for each in ("read_uncommitted", "read_committed")]  # fmt: skip
    try:
        for reader in readers:
            await reader.start()
        high = await readers[0].end_offsets(sources)
        await asyncio.sleep(0.2)  # what was not from the frozen one has been committed by now
        stable = await readers[1].end_offsets(sources)
        return any(stable[source] < high[source] for source in sources)
    finally:
        for reader in readers:
            await reader.stop()


async def _records(settings: Kafka, topic: str | None) -> list[Any]:
    """All committed records of one of our topics; None: of the changelog."""
    name = topics.changelog_name(settings, "users") if topic is None else topics.topic_name(settings, topic)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap, isolation_level="read_committed", enable_auto_commit=False,
        auto_offset_reset="earliest",  # "latest" may win against a `seek_to_beginning` that comes at the same time
    )  # fmt: skip
    await consumer.start()
    try:
        sources = [TopicPartition(name, number) for number in range(settings.partitions)]
        consumer.assign(sources)
        ends = await consumer.end_offsets(sources)
        found: list[Any] = []
        for source in sources:
            while await consumer.position(source) < ends[source]:
                found += (await consumer.getmany(source, timeout_ms=200)).get(source, [])
        return found
    finally:
        await consumer.stop()


async def _verify(settings: Kafka, load: _Load) -> None:
    """Every event that was acknowledged asked for one message, also those the workers had not come to at the end."""
    found = Counter[str]()
    for record in await _records(settings, "messages.email"):
        found[msgspec.json.decode(record.value, type=Message).id] += 1
    doubled = [id for id, times in found.items() if times > 1]
    folded = sum(1 for _ in load.sent)
    if doubled or len(found) < folded:
        raise SystemExit(f"wrong: {folded:,} events, {len(found):,} messages, {len(doubled):,} of them doubled")


def _seconds(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


async def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + GIVES_UP_AFTER_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {GIVES_UP_AFTER_SECONDS:g} s: {what}")
        await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
