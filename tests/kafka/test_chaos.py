"""Workers that are killed, frozen and started again, mid-load, lose nothing and double nothing."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.runtime.kafka import topics
from engine.runtime.settings import Kafka
from tests.kafka.cluster import messages, produce, read_topic, states, until
from tests.kafka.counting import expected

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]
EVENTS_AT_ONCE = 200
USERS = 300


class Worker:
    """A worker process of its own, with a directory that it keeps over its starts."""

    def __init__(self, settings: Kafka, directory: Path) -> None:
        self._command = [
            sys.executable, "-m", "tests.kafka.counting_worker", settings.model_dump_json(), str(directory)
        ]  # fmt: skip
        self._log = directory.with_suffix(".log")

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert self._process.wait(10) == -signal.SIGKILL, self.said()

    def stop(self) -> None:
        self.send(signal.SIGTERM)
        assert self._process.wait(40) == 0, self.said()

    def said(self) -> str:
        return self._log.read_text()

    def owned(self, since: int = 0) -> list[int] | None:
        """The partitions it was assigned last, if it was since it had said so many characters."""
        lines = [line for line in self.said()[since:].splitlines() if "partitions assigned" in line]
        partitions: list[int] | None = json.loads(lines[-1])["partitions"] if lines else None
        return partitions

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def workers(kafka_settings: Kafka, tmp_path: Path) -> Iterator[tuple[Worker, Worker]]:
    asyncio.run(topics.create(kafka_settings))
    pair = Worker(kafka_settings, tmp_path / "one"), Worker(kafka_settings, tmp_path / "two")
    for worker in pair:
        worker.start()
    yield pair
    for worker in pair:
        worker.end()


class Load:
    """Events that keep coming until they are told to stop; `keys` says whose they were."""

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings
        self._ending = False
        self.keys: list[bytes] = []
        self._task = asyncio.create_task(self._produce())

    async def end(self) -> None:
        self._ending = True
        await self._task

    async def _produce(self) -> None:
        users = itertools.cycle(range(USERS))
        while not self._ending:
            keys = [b"acme:user-%d" % next(users) for _ in range(EVENTS_AT_ONCE)]
            await produce(self._settings, keys)
            self.keys += keys


async def both_own_half(workers: tuple[Worker, Worker]) -> None:
    async def holds() -> bool:
        return all(len(worker.owned() or ()) == 2 for worker in workers)

    await until(holds, "each worker owns half of the partitions")


async def progress(settings: Kafka, more: int = 1000) -> None:
    """Wait until so many more events have been folded."""
    before = sum((await states(settings)).values())

    async def holds() -> bool:
        return sum((await states(settings)).values()) >= before + more

    await until(holds, f"{more} more events are folded")


async def check(settings: Kafka, keys: list[bytes]) -> None:
    """Every event counted once, every message asked for once, and nobody wrote after somebody else had taken over."""
    counts, sent = expected(keys)

    async def holds() -> bool:
        return await states(settings) == counts

    await until(holds, "every user has counted every event")
    assert await messages(settings) == sent
    records = await read_topic(settings, f"{settings.prefix}.messages.email")
    for number in range(settings.partitions):
        tenures = [dict(record.headers)["tenure"] for record in records if record.partition == number]
        blocks = [tenure for tenure, _ in itertools.groupby(tenures)]
        assert len(blocks) == len(set(blocks)), f"in partition {number} a worker wrote after it had lost it"


async def test_workers_killed_three_times_mid_load_lose_and_double_nothing(
    kafka_settings: Kafka, workers: tuple[Worker, Worker]
) -> None:
    await both_own_half(workers)
    load = Load(kafka_settings)
    await progress(kafka_settings)
    for victim in (workers[0], workers[1], workers[0]):
        victim.kill()
        victim.start()
        await progress(kafka_settings)
    await load.end()
    await check(kafka_settings, load.keys)
    for worker in workers:
        worker.stop()


async def test_a_frozen_worker_writes_nothing_after_it_has_lost_its_partitions(
    kafka_settings: Kafka, workers: tuple[Worker, Worker]
) -> None:
    await both_own_half(workers)
    load = Load(kafka_settings)
    await progress(kafka_settings)
    frozen, other = workers
    said = len(other.said())
    frozen.send(signal.SIGSTOP)

    async def has_taken_over() -> bool:
        return other.owned(said) == [0, 1, 2, 3]

    await until(has_taken_over, "the other worker owns all partitions")
    await progress(kafka_settings)
    said = len(frozen.said())
    frozen.send(signal.SIGCONT)

    async def is_back() -> bool:
        return len(frozen.owned(said) or ()) == 2

    await until(is_back, "the frozen worker has its partitions again")
    await progress(kafka_settings)
    await load.end()
    await check(kafka_settings, load.keys)
    for worker in workers:
        worker.stop()
