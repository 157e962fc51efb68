"""`equeengage serve` as a process that can be killed, and what it left in its data folder."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import aiohttp

from engine.runtime import states
from engine.runtime.embedded import layout
from engine.runtime.embedded.host import EmbeddedHost
from engine.runtime.embedded.readonly import ReadOnlyLog
from schemas.definitions import Definition
from schemas.journal import read_entries
from schemas.outputs import JournalEntry
from schemas.records import Record
from schemas.state import User
from tests.scenarios.embedded_world import CHANNELS_WORDS
from tests.scenarios.tale import TENANT, WRITE_KEY

ROOT = Path(__file__).parents[2]
READY_WITHIN_SECONDS = 30.0


class ServerProcess:
    """One life of the server. `log_file` gets what it says."""

    def __init__(self, data: Path, journeys: Path, port: int, smtp_port: int, log_file: Path) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("EQUEENGAGE_")},
            "EQUEENGAGE_WRITE_KEYS": f"{TENANT}:{WRITE_KEY}",
            "EQUEENGAGE_SMTP_URL": f"smtp://127.0.0.1:{smtp_port}",
            "EQUEENGAGE_EMAIL_PER_SECOND": "10000",
            "EQUEENGAGE_LOG_LEVEL": "warning",
        }
        options = ["--data", str(data), "--port", str(port), "--journeys", str(journeys)]
        command = [sys.executable, "-c", "from agents.cli import main; main()", "serve", *options]
        self.url = f"http://127.0.0.1:{port}"
        self.log_file = log_file
        with log_file.open("ab") as out:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )

    async def until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline:
                assert self._process.poll() is None, f"the server ended: {self.said()}"
                try:
                    async with session.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.02)
        raise AssertionError(f"the server was not ready in time: {self.said()}")

    def kill(self) -> None:
        """As the kernel does when memory runs out: no signal handler, no flush."""
        self._process.kill()
        self._process.wait()

    async def stop(self) -> int:
        """Stop it as an operator does; return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self._process.wait, 30)

    def said(self) -> str:
        return self.log_file.read_text(errors="replace")[-3000:]

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Remains:
    """What stands in a data folder."""

    count: int
    definitions: dict[str, Definition]
    topics: dict[str, dict[int, list[Record]]]

    @property
    def events(self) -> dict[int, list[Record]]:
        return self.topics["events"]

    def journal(self) -> list[JournalEntry]:
        """What the users' partitions wrote, one partition after the other."""
        records = [record for _, records in sorted(self.topics["journal"].items()) for record in records]
        entries = [entry for record in records for entry in read_entries(record.value)]
        return [entry for entry in entries if entry.kind not in CHANNELS_WORDS]

    def partition_for(self, key: bytes) -> int:
        return layout.partition_of(key, self.count)


def read_remains(data: Path, *topics: str) -> Remains:
    """Read the log of a data folder, also while a server runs on it."""
    with ReadOnlyLog.open(data) as log:
        partitions = log.partitions("events")
        found = {
            topic: {number: list(log.read(topic, _key_in(number, partitions))) for number in range(partitions)}
            for topic in topics
        }
        return Remains(partitions, {each.key: each for each in log.definitions.all()}, found)


def _key_in(partition: int, partitions: int) -> bytes:
    return next(key for key in (b"%d" % n for n in count()) if layout.partition_of(key, partitions) == partition)


@contextmanager
def opened(data: Path) -> Iterator[EmbeddedHost]:
    """The data folder of a server that has stopped, with nothing running on it."""
    host = EmbeddedHost.open(data)
    try:
        yield host
    finally:
        asyncio.run(host.close())


def read_users(data: Path) -> dict[bytes, User]:
    """Return the state of every user, by key. No server may be running."""
    users: dict[bytes, User] = {}
    with opened(data) as host:
        for number in range(host.partitions("events")):
            store = host.partition("events", number).store
            users |= {key[1:]: states.decode_user(raw) for key, raw in store.scan(states.USER, states.USER + b"\xff")}
    return users
