"""`equeengage worker` processes on a real broker, producers that write to `events`, and what came of it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from agents.folder import read_folder
from engine.runtime import states
from engine.runtime.kafka import topics
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.kafka.partitioner import partition_of
from engine.runtime.publish import plan
from engine.runtime.settings import Kafka
from schemas.inputs import Event
from schemas.journal import read_entries
from schemas.outputs import JournalEntry, Message
from schemas.records import Record
from schemas.state import User
from tests.kafka.own_broker import free_port
from tests.runtime.memory_host import MemoryDefinitions
from tests.scenarios.embedded_server import ROOT
from tests.scenarios.expectation import Expectation, expect, welcome_notes
from tests.scenarios.tale import PATIENCE_MS, TENANT, WRITE_KEY
from tests.verify.evidence import definitions_in, read_records

CLOCK_OFF = Path(__file__).parent / "clock_off"
WITHIN_SECONDS = 60.0
STOPS_WITHIN_SECONDS = 40.0


def environment(settings: Kafka) -> dict[str, str]:
    """What a command needs to reach the broker."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EQUEENGAGE_")}
    values: dict[str, Any] = {
        "BOOTSTRAP": settings.bootstrap,
        "PREFIX": settings.prefix,
        "APP": settings.app,
        "PARTITIONS": settings.partitions,
        "REPLICATION": settings.replication,
        "SESSION_TIMEOUT_SECONDS": settings.session_timeout_seconds,
        "STANDBY": settings.standby,
        "COMPRESSION": settings.compression,
    }
    kafka = {f"EQUEENGAGE_KAFKA__{name}": str(value) for name, value in values.items()}
    return {**inherited, **kafka, "EQUEENGAGE_WRITE_KEYS": f"{TENANT}:{WRITE_KEY}"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from agents.cli import main; main()", *arguments]


async def run(settings: Kafka, *arguments: str) -> str:
    """Run a command to its end and return what it said."""
    done = await asyncio.to_thread(
        subprocess.run, command(*arguments), cwd=ROOT, env=environment(settings), capture_output=True, timeout=60
    )
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, said
    return said


async def publish(settings: Kafka, folder: Path) -> None:
    """Make the topics and publish the journeys of a folder to them, in this process: a command takes two seconds."""
    await topics.create(settings)
    found = read_folder(folder)
    publication = plan([TENANT], found.journeys, found.templates, MemoryDefinitions())
    await KafkaLog(settings).append_atomically(publication.records(settings.partitions))


class Program:
    """A command of ours as a process, over all its starts. What it says goes to `log`."""

    def __init__(self, settings: Kafka, log: Path) -> None:
        self.settings = settings
        self.clock_off_seconds = 0.0  # how far its clock is off, from its next start on
        self.is_wanted = False  # it was started, and nobody has stopped it since
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, *arguments: str, **environment_too: str) -> None:
        """Start it, with its clock."""
        self.is_wanted = True
        variables = {**environment(self.settings), **environment_too}
        if self.clock_off_seconds:
            variables |= {"PYTHONPATH": str(CLOCK_OFF), "CLOCK_OFF_SECONDS": str(self.clock_off_seconds)}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command(*arguments), cwd=ROOT, env=variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def exit_code(self) -> int | None:
        """How it has ended; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        assert self._process.poll() is None, self.said()[-3000:]
        self._process.send_signal(number)

    def kill(self) -> None:
        self.is_wanted = False
        self.send(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    async def stop(self) -> None:
        """Stop it as an operator does; what hangs is killed."""
        self.is_wanted = False
        self.send(signal.SIGTERM)
        try:
            assert self._process is not None
            await asyncio.to_thread(self._process.wait, STOPS_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def lines(self, event: str, since: int = 0) -> list[dict[str, Any]]:
        """What it logged under this name, after it had said so many characters."""
        said = [line for line in self.said()[since:].splitlines() if line.startswith("{")]
        return [line for line in map(json.loads, said) if line["event"] == event]

    def end(self) -> None:
        self.is_wanted = False
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Worker(Program):
    """One worker with a data folder. `options` are those of the command, besides."""

    def __init__(self, settings: Kafka, data: Path, *options: str) -> None:
        super().__init__(settings, data.with_suffix(".log"))
        self.data = data
        self.options = options

    def start(self, crash_at: str = "") -> None:
        """Start it; `crash_at`: to die at a point of `engine/runtime/crash_points.py`, `name:n`."""
        armed = {"EQUEENGAGE_TEST_BUILD": "1", "EQUEENGAGE_CRASHPOINT": crash_at} if crash_at else {}
        self.run("worker", "--data", str(self.data), *self.options, **armed)

    def assignments(self) -> int:
        return self.said().count("partitions assigned")


class Ingress(Program):
    """The ingress in front of the broker, on a port that stays the same."""

    def __init__(self, settings: Kafka, log: Path) -> None:
        super().__init__(settings, log)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self.run("ingress", "--port", str(self._port), EQUEENGAGE_LINK_SECRET="sixteen letters or more")


class Load:
    """A producer of its own that writes to `events` as anybody may: mostly sound events, now and then rubbish, and now and
    then into the wrong partition. Every record is acknowledged by the broker before `end` returns."""

    def __init__(self, settings: Kafka, chance: Random) -> None:
        self._settings, self._chance = settings, chance
        self._is_ending = False
        self.events: Counter[str] = Counter()  # ids that were acknowledged
        self._task = asyncio.create_task(self._produce())

    async def end(self) -> None:
        self._is_ending = True
        await self._task

    def cancel(self) -> None:
        self._task.cancel()

    async def _produce(self) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._settings.bootstrap, enable_idempotence=True)
        await producer.start()
        try:
            for number in count():
                if self._is_ending:
                    return
                sent = [await self._send(producer, key, value) for key, value in self._acts(number)]
                await asyncio.gather(*sent)
                await asyncio.sleep(0.005)
        finally:
            await producer.stop()

    async def _send(self, producer: Any, key: str, value: bytes | Event) -> Any:
        partition = self._chance.randrange(self._settings.partitions) if self._chance.random() < 0.02 else None
        if isinstance(value, Event):
            self.events[value.id] += 1
            value = msgspec.json.encode(value)
        return await producer.send(
            f"{self._settings.prefix}.events", key=f"{TENANT}:{key}".encode(), value=value, partition=partition
        )

    def _acts(self, number: int) -> list[tuple[str, bytes | Event]]:
        now = time.time_ns() // 1_000_000
        user = f"u{number}"
        acts: list[tuple[str, bytes | Event]] = [
            (user, Event(f"{user}-s", "signed_up", now, {}, {"email": f"{user}@shop.test"}))
        ]
        if self._chance.random() < 0.3:  # on a device on which somebody has looked around
            device = f"{user}.device"
            acts.insert(0, (device, Event(f"{device}-0", "pinged", now)))
            acts.append((user, Event(f"{user}-i", "identify", now, aliases=(device,))))
            acts.append((device, Event(f"{device}-1", "pinged", now)))
        for turn in range(self._chance.randrange(4)):
            name = self._chance.choice(["pinged", "pinged", "answered"])
            acts.append((f"u{max(0, number - self._chance.randrange(30))}", Event(f"{user}-{turn}", name, now)))
        if self._chance.random() < 0.02:
            acts.append((user, b"{rubbish"))
        return acts


@dataclass
class Outcome:
    """What stands in the topics (committed records only), and what must stand there."""

    events: dict[int, list[Record]]
    messages: list[Message]
    journal: list[JournalEntry]
    users: dict[bytes, User]
    expectation: Expectation
    described: Counter[tuple[str, str]]

    @property
    def is_complete(self) -> bool:
        expectation = self.expectation
        counts = (len(self.messages), len(self.journal)) == (len(expectation.messages), len(expectation.journal))
        return counts and self.users == expectation.users and not any(user.runs for user in expectation.users.values())


async def read_outcome(settings: Kafka) -> Outcome:
    """Read what there is now."""
    names = [f"{settings.prefix}.{topic}" for topic in ("messages.email", "journal", "definitions")]
    changelog = f"{settings.app}-users-changelog"
    messages, journal, bodies, changes = [await read_records(settings, topic) for topic in [*names, changelog]]
    events = await read_records(settings, f"{settings.prefix}.events")  # last: it explains what was read before

    def partition_for(key: bytes) -> int:
        return partition_of(key, settings.partitions)

    described: Counter[tuple[str, str]] = Counter()
    for number, records in events.items():
        own = [record for record in records if record.key is None or partition_for(record.key) == number]
        described += welcome_notes((record for record in own if record.value != b"{rubbish"), PATIENCE_MS)
    latest = {record.key or b"": record.value for record in _all(changes)}
    return Outcome(
        events,
        [msgspec.json.decode(record.value or b"", type=Message) for record in _all(messages)],
        [entry for record in _all(journal) for entry in read_entries(record.value)],
        {key[1:]: states.decode_user(raw) for key, raw in latest.items() if raw and key.startswith(states.USER)},
        expect(definitions_in(bodies), events, partition_for),
        described,
    )


async def settled_outcome(settings: Kafka, workers: list[Worker]) -> Outcome:
    """Wait until what stands there is complete, or the time is over; return it as it is then."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while True:
        outcome = await read_outcome(settings)
        if outcome.is_complete or time.monotonic() > deadline:
            if not outcome.is_complete:
                print(*(worker.said()[-3000:] for worker in workers), sep="\n---\n")
            return outcome
        await asyncio.sleep(0.5)


async def until(condition: Callable[[], bool], what: str, within_seconds: float = WITHIN_SECONDS) -> None:
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_seconds:g} s: {what}"
        await asyncio.sleep(0.1)


def _all(partitions: dict[int, list[Record]]) -> list[Record]:
    return [record for _, records in sorted(partitions.items()) for record in records]
