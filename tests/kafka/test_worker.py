"""`equeengage worker` on Kafka: real journeys, several processes, killed and stopped; and the Faust app it is made of."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine import Delay, Exit, Journey, Send, always, on, seconds
from engine.runtime.kafka import topics
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.kafka.tables import KafkaDefinitions
from engine.runtime.publish import plan
from engine.runtime.settings import Kafka
from schemas.inputs import Event
from schemas.outputs import Message
from schemas.records import NewRecord
from tests.kafka.cluster import read_topic, until

GREETING = Journey(
    name="greeting",
    version=1,
    entry=on("hello"),
    reentry=always,
    start="greet",
    steps={
        "greet": Send("email", template="hello", then="pause"),
        "pause": Delay(seconds(1), then="again"),
        "again": Send("email", template="hello", then="done"),
        "done": Exit(),
    },
)
EQUEENGAGE = str(Path(sys.executable).with_name("equeengage"))
USERS = [f"user-{number}" for number in range(200)]


def test_a_faust_user_finds_the_agent() -> None:
    command = [sys.executable, "-m", "faust", "-A", "agents.app", "agents", "--local"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "@journeys" in listed
    assert "Take users through their journeys" in listed


class WorkerCommand:
    """`equeengage worker`, and the processes it runs."""

    def __init__(self, settings: Kafka, directory: Path, *options: str) -> None:
        environment = {f"EQUEENGAGE_KAFKA__{name.upper()}": str(value) for name, value in _plain(settings).items()}
        self._log = directory / "worker.log"
        command = [EQUEENGAGE, "worker", "--data", str(directory / "data"), *options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **environment}
            )

    def children(self) -> list[int]:
        """The worker processes, those of Python's own that look after semaphores left out."""
        pid = self._process.pid
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(each) for each in pids if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(40) == 0, self.said()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        return self._log.read_text()


@pytest.fixture
def worker(kafka_settings: Kafka, tmp_path: Path) -> Iterator[WorkerCommand]:
    asyncio.run(topics.create(kafka_settings))
    command = WorkerCommand(kafka_settings, tmp_path, "--processes", "2")
    yield command
    command.kill()


@pytest.mark.kafka
@pytest.mark.chaos
async def test_two_processes_take_users_through_a_journey_though_one_is_killed(
    kafka_settings: Kafka, worker: WorkerCommand
) -> None:
    log, definitions = KafkaLog(kafka_settings), KafkaDefinitions(kafka_settings)
    await log.start()
    await definitions.start()
    try:
        publication = plan(["shop"], [GREETING], {"hello": {"text": "Hello"}}, definitions)
        await log.append_atomically(publication.records(log.partitions("events")))
        await log.append([_event(user, "first") for user in USERS])
        await messages_are(kafka_settings, dict.fromkeys(USERS, 2))
        victim, survivor = worker.children()
        os.kill(victim, signal.SIGKILL)
        await log.append([_event(user, "second") for user in USERS])
        await log.append([_event(user, "second") for user in USERS])  # a producer repeats itself
        await messages_are(kafka_settings, dict.fromkeys(USERS, 4))
        assert survivor in worker.children()
        assert len(worker.children()) == 2
    finally:
        await definitions.stop()
        await log.stop()
    worker.stop()
    sent = await read_topic(kafka_settings, f"{kafka_settings.prefix}.messages.email")
    ids = [msgspec.json.decode(record.value, type=Message).id for record in sent]
    assert len(ids) == len(set(ids)) == 4 * len(USERS)
    assert await read_topic(kafka_settings, f"{kafka_settings.prefix}.dead-letters") == []


@pytest.mark.kafka
@pytest.mark.chaos
async def test_workers_whose_supervisor_is_killed_stop_by_themselves(worker: WorkerCommand) -> None:
    async def both_run() -> bool:
        return len(worker.children()) == 2

    await until(both_run, "both processes run")
    children = worker.children()
    worker.kill()

    async def none_runs() -> bool:
        return not any(is_running(pid) for pid in children)

    await until(none_runs, "the processes have ended")


@pytest.mark.kafka
async def test_a_data_folder_belongs_to_one_worker(kafka_settings: Kafka, tmp_path: Path) -> None:
    await topics.create(kafka_settings)
    first = WorkerCommand(kafka_settings, tmp_path)
    try:
        member = tmp_path / "data" / "worker-0" / "member-id"

        async def has_begun() -> bool:
            return member.exists() and bool(member.read_text())

        await until(has_begun, "the first has the folder")
        command = [EQUEENGAGE, "worker", "--data", str(tmp_path / "data")]
        environment = {
            f"EQUEENGAGE_KAFKA__{name.upper()}": str(value) for name, value in _plain(kafka_settings).items()
        }
        second = await asyncio.to_thread(
            subprocess.run,
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, **environment},
        )
        assert second.returncode == 1
        assert "is used by another worker; give this one another --data" in second.stderr
        first.stop()
    finally:
        first.kill()


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").exists()


async def messages_are(settings: Kafka, expected: dict[str, int]) -> None:
    """Wait until each user was sent as many messages as expected."""

    async def holds() -> bool:
        sent = await read_topic(settings, f"{settings.prefix}.messages.email")
        return Counter(record.key.decode().partition(":")[2] for record in sent) == expected

    await until(holds, "every user was sent every message")


def _event(user: str, id: str) -> NewRecord:
    event = Event(f"{user}-{id}", "hello", int(time.time() * 1000), {}, {"email": f"{user}@example.com"})
    return NewRecord("events", f"shop:{user}".encode(), msgspec.json.encode(event), (("tenant", b"shop"),))


def _plain(settings: Kafka) -> dict[str, object]:
    names = ("bootstrap", "prefix", "app", "partitions", "session_timeout_seconds")
    return {name: getattr(settings, name) for name in names}
