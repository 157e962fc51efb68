"""The servers that clients are tried on: the application alone, the embedded server, the ingress in front of Kafka.

A client is given a `Served` and cannot tell which it is; what has arrived is read from that server's log.
"""

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agents.ingress import make_app
from agents.listening import answering, take_port, url_of
from engine.runtime.embedded.readonly import ReadOnlyLog
from engine.runtime.kafka import topics
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka, Settings
from schemas.inputs import Event, Input
from schemas.records import Record
from tests.ingress.remembering_log import RememberingLog

TENANT, WRITE_KEY = "shop", "a-write-key"
STARTS_WITHIN_SECONDS = 60.0
ROOT = Path(__file__).parents[2]

_inputs = msgspec.json.Decoder(Input)


@dataclass(frozen=True)
class Served:
    """A server that runs. `read` yields the records of a key's partition in `events`."""

    url: str
    read: Callable[[bytes], Iterable[Record]]
    write_key: str = WRITE_KEY

    def events(self, user: str) -> list[Event]:
        """The events of a user that are in the log, in order."""
        key = f"{TENANT}:{user}".encode()
        inputs = [_inputs.decode(record.value or b"") for record in self.read(key) if record.key == key]
        return [input for input in inputs if isinstance(input, Event)]


@contextmanager
def application(log: RememberingLog) -> Iterator[Served]:
    """The application over a log in memory, in a thread: the client waits in ours."""
    settings = Settings.model_validate({"write_keys": {TENANT: [WRITE_KEY]}})
    loop = asyncio.new_event_loop()
    listening, stop = threading.Event(), asyncio.Event()
    port = take_port("127.0.0.1", 0)

    async def serve() -> None:
        async with answering(make_app(log, settings, metrics=Metrics()), port):
            listening.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert listening.wait(10)
        yield Served(url_of(port), lambda key: log.read("events", key))
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
        port.close()


@contextmanager
def embedded(folder: Path) -> Iterator[Served]:
    """`equeengage serve`, without journeys."""
    (folder / "journeys").mkdir()
    data = folder / "data"

    def read(key: bytes) -> list[Record]:
        with ReadOnlyLog.open(data) as log:
            return list(log.read("events", key))

    with _process(folder, {}, "serve", "--data", str(data), "--journeys", str(folder / "journeys")) as url:
        yield Served(url, read)


@contextmanager
def in_front_of_kafka(folder: Path, kafka: Kafka) -> Iterator[Served]:
    """`equeengage ingress`, with topics of its own."""
    asyncio.run(topics.create(kafka))
    names = kafka.model_dump(include={"bootstrap", "prefix", "app", "partitions"})
    environment = {f"EQUEENGAGE_KAFKA__{name.upper()}": str(value) for name, value in names.items()}
    log = KafkaLog(kafka)
    with _process(folder, environment | {"EQUEENGAGE_LINK_SECRET": "x" * 40}, "ingress") as url:
        yield Served(url, lambda key: log.read("events", key))


@contextmanager
def _process(folder: Path, environment: dict[str, str], *command: str) -> Iterator[str]:
    """Run a command of ours as long as the context lasts; yields the address it says it answers at."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EQUEENGAGE_")}
    said = folder / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", "from agents.cli import main; main()", *command, "--port", "0"],
            cwd=ROOT,
            env=clean | environment | {"EQUEENGAGE_WRITE_KEYS": f"{TENANT}:{WRITE_KEY}"},
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield _until_ready(process, said)
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, said.read_text()


def _until_ready(process: subprocess.Popen[bytes], said: Path) -> str:
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < deadline:
        text = said.read_text()
        if "ready;" in text and (address := re.search(r"^HTTP +(http\S+)", text, re.MULTILINE)):
            return address[1]
        assert process.poll() is None, f"it ended: {text}"
        time.sleep(0.02)
    raise AssertionError(f"it was not ready in time: {said.read_text()}")
