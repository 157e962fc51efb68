"""A herd: a million runs, all due in the same second, on one Kafka worker that goes on taking events meanwhile.

Every run waits until a date that all events name, then asks for a message. Beside it, users of the same tenants are heard
from all the time and get an answer at once; how long that takes counts from the moment at which their event was to be
sent. Every command is read afterwards: each run's must be there once, and none dated or written before its time; a run
that isn't exactly that gets no figure. Fair means that no tenant's last message comes long before another's.
"""

import asyncio
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from tempfile import TemporaryDirectory

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.contenders import cluster, ours
from benchmarks.contenders.work import TENANTS, Given
from benchmarks.figures import Figure, cpu_seconds, resident_bytes
from engine import DelayUntil, Exit, Journey, Send, always, on, value
from engine.runtime.kafka import topics
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.kafka.partitioner import partition_of
from engine.runtime.publish import plan
from engine.runtime.settings import Kafka
from schemas.inputs import Event
from schemas.outputs import Message

BACKGROUND_PER_SECOND = 2000
TICK_SECONDS = 0.02
# How long it may take to enter a run on a slow machine: the herd must be complete before it is due.
ENTERING_SECONDS = 300e-6
AHEAD_SECONDS = 40.0
DRAINS_WITHIN_SECONDS = 600.0
METRICS_PORT = 18_433

herd = Journey(
    name="herd",
    version=1,
    entry=on("enrolled"),
    start="wait",
    steps={
        "wait": DelayUntil(date=value("event.at"), if_past="continue", then="hello"),
        "hello": Send("bench", template="hello", then="done"),
        "done": Exit(),
    },
)
echo = Journey(
    name="echo", version=1, entry=on("asked"), reentry=always, start="answer",
    steps={"answer": Send("bench", template="hello", then="done"), "done": Exit()},
)  # fmt: skip

Seen = tuple[int, Message]  # when its record was written (ms), and the command


def measure(runs: int, partitions: int) -> list[Figure]:
    """Return how long the herd took, what the background felt of it, and what it cost."""
    with TemporaryDirectory(prefix="equeengage-bench-") as folder, cluster.running(Path(folder)) as bootstrap:
        settings = Kafka.model_validate(
            {"bootstrap": bootstrap, "prefix": "herd", "app": "herd-app", "partitions": partitions}
        )
        return asyncio.run(_measure(settings, Path(folder, "worker"), runs))


async def _measure(settings: Kafka, data: Path, runs: int) -> list[Figure]:
    await topics.create(settings, ours.CHANNELS)
    publication = plan(TENANTS, [herd, echo], {"hello": {"text": "Hello."}}, ours.Nothing())
    await KafkaLog(settings).append_atomically(publication.records(settings.partitions))
    due_at = int((time.time() + AHEAD_SECONDS + runs * ENTERING_SECONDS) * 1000)
    with _worker(data, settings) as process:
        await _enroll(settings, runs, due_at)
        await _until(lambda: ours.folded(METRICS_PORT) >= runs, due_at / 1000 - time.time(), "the herd is not complete")
        resident_before = resident_bytes(process.pid)
        stop = asyncio.Event()
        background = asyncio.create_task(_ask(settings, stop))
        await asyncio.sleep(max(0, due_at / 1000 - time.time()))
        spent = cpu_seconds(process.pid)
        await _until(lambda: _ended(runs), DRAINS_WITHIN_SECONDS, "the herd was not answered in time")
        spent = cpu_seconds(process.pid) - spent
        resident = max(resident_before, resident_bytes(process.pid))
        stop.set()
        asked = await background
        await _until(
            lambda: ours.folded(METRICS_PORT) >= runs + asked, DRAINS_WITHIN_SECONDS, "the background was lost"
        )
    commands = await _commands(settings, runs + asked, 300)
    return _figures(commands, runs, asked, due_at, resident / 1e6, spent)


def _figures(
    commands: list[Seen], runs: int, asked: int, due_at: int, resident_mb: float, spent: float
) -> list[Figure]:
    woken = [(at, message) for at, message in commands if message.journey == "herd"]
    answered = [(at, message) for at, message in commands if message.journey == "echo"]
    if len({message.user for _, message in woken}) != runs or len(woken) != runs:
        raise SystemExit(f"wrong: {runs:,} runs, {len(woken):,} messages")
    if len({message.id for _, message in answered}) != asked or len(answered) != asked:
        raise SystemExit(f"wrong: {asked:,} asked, {len(answered):,} answered")
    if early := [message.id for at, message in woken if at < due_at or message.requested_at < due_at]:
        raise SystemExit(f"wrong: {len(early):,} messages were early, {early[0]} for one")
    last_by_tenant: dict[str, int] = defaultdict(int)
    for at, message in woken:
        last_by_tenant[message.tenant] = max(last_by_tenant[message.tenant], at)
    drained = (max(last_by_tenant.values()) - due_at) / 1000
    spread = (max(last_by_tenant.values()) - min(last_by_tenant.values())) / 1000
    during = sorted(
        at - message.event["sent_at"]
        for at, message in answered
        if due_at <= message.event["sent_at"] <= due_at + drained * 1000
    )
    return [
        Figure(f"{runs:,} timers due in one second: all answered after", "s", [drained], 30),
        Figure("the first tenant was done before the last by", "s", [spread]),
        Figure("worker: CPU per timer, background included", "us", [spent * 1e6 / runs]),
        Figure(
            f"background of {BACKGROUND_PER_SECOND:,} ev/s meanwhile, event to command, p50", "ms", [_at(during, 50)]
        ),
        Figure(
            f"background of {BACKGROUND_PER_SECOND:,} ev/s meanwhile, event to command, p99",
            "ms",
            [_at(during, 99)],
            1000,
        ),
        Figure("worker: resident memory at the most", "MB", [resident_mb], 600),
    ]


def _at(values: list[int], percent: int) -> float:
    return float(values[min(len(values) - 1, len(values) * percent // 100)])


@contextmanager
def _worker(data: Path, settings: Kafka) -> Iterator[Popen[bytes]]:
    place = ours.place(settings.bootstrap, settings.app, data, settings.partitions)
    environment = {
        **ours.settings(place), "EQUEENGAGE_KAFKA__PREFIX": settings.prefix, "EQUEENGAGE_KAFKA__APP": settings.app,
        "EQUEENGAGE_KAFKA__ACCEPT_CREATE_TIME": "false",
    }  # fmt: skip
    process = Popen(ours.command(place, METRICS_PORT), env=environment, stdout=DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def _ended(runs: int) -> bool:
    """Ask the worker whether all runs of the herd have ended."""
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    ended = [line for line in lines if line.startswith("equeengage_runs_exited_total") and 'journey="herd"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in ended) >= runs


async def _until(holds, seconds: float, otherwise: str) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(otherwise)
        await asyncio.sleep(0.5)


async def _enroll(settings: Kafka, runs: int, due_at: int) -> None:
    def given() -> Iterator[Given]:
        for number in range(runs):
            tenant = TENANTS[number % len(TENANTS)]
            event = Event(f"m-{number:x}", "enrolled", 0, {"at": due_at})
            event = msgspec.structs.replace(event, occurred_at=time.time_ns() // 1_000_000)
            yield Given(event.occurred_at, f"{tenant}:u{number:07d}".encode(), msgspec.json.encode(event))

    await cluster.write(settings.bootstrap, topics.topic_name(settings, "events"), settings.partitions, given())


async def _ask(settings: Kafka, stop: asyncio.Event) -> int:
    """Send events at a steady rate, whatever becomes of them, and return how many."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, acks="all", enable_idempotence=True, linger_ms=5)
    await producer.start()
    sent: list[asyncio.Future[object]] = []
    begin = time.time()
    try:
        while not stop.is_set():
            until = int((time.time() - begin) * BACKGROUND_PER_SECOND)
            for number in range(len(sent), until):
                sent_at = int((begin + number / BACKGROUND_PER_SECOND) * 1000)
                key = f"{TENANTS[number % len(TENANTS)]}:asker-{number % 5000}".encode()
                event = Event(f"a-{number:x}", "asked", sent_at, {"sent_at": sent_at})
                sent.append(
                    await producer.send(
                        topics.topic_name(settings, "events"), msgspec.json.encode(event), key,
                        partition=partition_of(key, settings.partitions),
                    )
                )  # fmt: skip
            await asyncio.sleep(TICK_SECONDS)
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    return len(sent)


async def _commands(settings: Kafka, count: int, within_seconds: float) -> list[Seen]:
    """Return all commands once there are so many; the time at which each was written is the broker's."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap, isolation_level="read_committed", auto_offset_reset="earliest",
        enable_auto_commit=False,
    )  # fmt: skip
    decode = msgspec.json.Decoder(Message).decode
    found: list[Seen] = []
    await consumer.start()
    try:
        name = topics.topic_name(settings, "messages.bench")
        consumer.assign([TopicPartition(name, number) for number in range(settings.partitions)])
        deadline = time.monotonic() + within_seconds
        while len(found) < count and time.monotonic() < deadline:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [(record.timestamp, decode(record.value)) for record in records]
    finally:
        await consumer.stop()
    return found
