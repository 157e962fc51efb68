"""Where the tests marked `kafka` get their broker from.

In this order: the one `KAFKA_BOOTSTRAP` names; one started from Maven's jars (deploy/kafka/broker.py), on a free port,
with its data in a temporary folder, for this run of pytest; else the tests are skipped, and the summary says so loudly.
With `CI=true` or `EQUEENGAGE_REQUIRE_KAFKA=1` they fail instead: a green run must not hide that nothing was tested.
"""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from engine.runtime.settings import Kafka

STARTER = Path(__file__).parents[2] / "deploy" / "kafka" / "broker.py"
STARTS_WITHIN_SECONDS = 120.0  # 3 s usually; the first time Maven fetches 54 MB
MISSING = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def kafka_bootstrap(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker that answers."""
    given = os.environ.get("KAFKA_BOOTSTRAP")
    if given:
        assert asyncio.run(answers(given, 30)), f"no broker answers at KAFKA_BOOTSTRAP={given}"
        yield given
        return
    if MISSING in request.config.stash:
        _give_up(request.config)
    process, bootstrap = _start(request.config, tmp_path_factory.mktemp("kafka"))
    try:
        yield bootstrap
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def kafka_settings(kafka_bootstrap: str) -> Iterator[Kafka]:
    """Settings with a prefix and an app name nobody else uses; the topics made under them are deleted afterwards."""
    name = f"t{uuid.uuid4().hex[:10]}"
    topics = {"prefix": name, "app": f"{name}-app", "partitions": 4, "replication": 1}
    yield Kafka.model_validate({"bootstrap": kafka_bootstrap, "session_timeout_seconds": 6, **topics})
    asyncio.run(_delete_topics(kafka_bootstrap, name))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that prints the summary, where several run the tests, that there was no broker."""
    told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told is not None and MISSING in session.config.stash:
        told["no broker"] = session.config.stash[MISSING]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Hear it there."""
    reason = getattr(node, "workeroutput", {}).get("no broker")
    if reason is not None:
        node.config.stash[MISSING] = reason


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say it where it cannot be overlooked if the Kafka tests were not run."""
    reason = config.stash.get(MISSING, None)
    if reason is not None:
        terminalreporter.section("THE KAFKA TESTS DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.line(f"There was no broker: {reason}")
        terminalreporter.line("Install Java 17 and Maven, or set KAFKA_BOOTSTRAP=host:port.")


def _start(config: pytest.Config, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a broker and return it with its address once it answers."""
    log = folder / "broker.log"
    options = ["--port", "0", "--data", str(folder / "data"), "--heap", "384m", "--end-with-parent"]
    command = [sys.executable, str(STARTER), *options]
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while True:
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        while process.poll() is None and time.monotonic() < deadline:
            listening = re.search(r"listens on (\S+),", log.read_text(errors="replace"))
            if listening and asyncio.run(answers(listening[1], 2)):
                return process, listening[1]
            time.sleep(0.05)
        if process.poll() is None:
            process.kill()
        process.wait()
        said = log.read_text(errors="replace").strip()
        taken = "Address already in use" in said  # somebody was faster to take the free port: try another
        if not taken or time.monotonic() > deadline:
            config.stash[MISSING] = (
                said.removeprefix("no Kafka broker: ")[-2000:]
                or f"it did not answer within {STARTS_WITHIN_SECONDS:g} s"
            )
            _give_up(config)


def _give_up(config: pytest.Config) -> None:
    reason = f"no Kafka broker: {config.stash[MISSING]}"
    if os.environ.get("CI") == "true" or os.environ.get("EQUEENGAGE_REQUIRE_KAFKA") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


async def answers(bootstrap: str, within_seconds: float) -> bool:
    """Whether a broker answers within the time."""
    deadline = time.monotonic() + within_seconds
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    while time.monotonic() < deadline:
        try:  # a socket first: aiokafka logs an error for each try
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError:
            await asyncio.sleep(0.1)
            continue
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5000)
        try:
            await admin.start()
            await admin.list_topics()
        except (KafkaError, OSError):
            await asyncio.sleep(0.1)
        else:
            return True
        finally:
            await admin.close()
    return False


async def _delete_topics(bootstrap: str, prefix: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        ours = [topic for topic in await admin.list_topics() if topic.startswith(prefix)]
        if ours:
            await admin.delete_topics(ours)
    finally:
        await admin.close()
