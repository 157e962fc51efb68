"""A client is tried on each server; the Node client is installed once, if Node is there."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.clients import servers
from tests.clients.servers import Served
from tests.ingress.remembering_log import RememberingLog

NODE = Path(__file__).parent / "node"
INSTALLED = Path(__file__).parents[2] / "build" / "node-client"
MISSING = pytest.StashKey[str]()


@pytest.fixture(params=["application", "embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """A running server, one of the three."""
    match request.param:
        case "application":
            server = servers.application(RememberingLog())
        case "embedded":
            server = servers.embedded(tmp_path)
        case _:
            server = servers.in_front_of_kafka(tmp_path, request.getfixturevalue("kafka_settings"))
    with server as running:
        yield running


@pytest.fixture
def served_alone() -> Iterator[Served]:
    """The application alone, for what has nothing to do with the host."""
    with servers.application(RememberingLog()) as running:
        yield running


@pytest.fixture(scope="session")
def node_client(request: pytest.FixtureRequest) -> Path:
    """The folder with `send.mjs` and Segment's client for Node, as the lock file has it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        _give_up(request.config, "there is no node and npm here")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < 20:
        _give_up(request.config, f"node is {version}; Segment's client needs 20")
    lock = hashlib.sha256((NODE / "package-lock.json").read_bytes()).hexdigest()
    stamp = INSTALLED / "installed"
    if not (stamp.exists() and stamp.read_text() == lock):
        shutil.rmtree(INSTALLED, ignore_errors=True)
        shutil.copytree(NODE, INSTALLED, ignore=shutil.ignore_patterns("node_modules"))
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts"], cwd=INSTALLED, capture_output=True, text=True, timeout=300
        )
        if done.returncode != 0:
            _give_up(request.config, f"npm ci failed: {done.stderr.strip()[-500:]}")
        stamp.write_text(lock)
    shutil.copy(NODE / "send.mjs", INSTALLED)
    return INSTALLED


def _give_up(config: pytest.Config, reason: str) -> NoReturn:
    config.stash[MISSING] = reason
    pytest.skip(f"Segment's client for Node was not tried: {reason}")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say it where it cannot be overlooked if the Node client was not tried."""
    reason = config.stash.get(MISSING, None)
    if reason is not None:
        terminalreporter.section("THE TESTS WITH SEGMENT'S CLIENT FOR NODE DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.line(reason)
