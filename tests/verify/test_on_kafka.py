"""The verifier as a command, on a real broker: all is well, until somebody tampers with a topic or a data folder."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from engine.runtime import states
from engine.runtime.kafka.partition_store import FORMAT, META, STATES, TIMERS
from engine.runtime.settings import Kafka
from engine.runtime.store import Memory, RocksStore
from tests.kafka.cluster import read_topic
from tests.scenarios.embedded_server import ROOT
from tests.scenarios.kafka_cluster import Load, Worker, environment, publish, until
from tests.scenarios.tale import seed, write_journeys

pytestmark = pytest.mark.kafka


async def test_it_finds_all_well_and_then_what_was_tampered_with(kafka_settings: Kafka, tmp_path: Path) -> None:
    settings = kafka_settings.model_copy(update={"partitions": 2})
    await publish(settings, write_journeys(tmp_path / "journeys"))
    worker = Worker(settings, tmp_path / "one")
    load = Load(settings, Random(seed()))
    try:
        worker.start()
        await until(lambda: bool(worker.lines("partition open")), "it works")
        await asyncio.sleep(1)
        await load.end()
        code, said, rows = await command(settings, tmp_path, "--wait", "45", "--data", str(worker.data))
        assert code == 0, said
        worker.send(signal.SIGTERM)
        await until(lambda: worker.exit_code() is not None, "it stops")
    finally:
        await load.end()
        worker.end()
    assert rows["commands email"]["expected"] == rows["commands email"]["found"] > 10
    assert rows["store one/worker-0/users/1"]["expected"] > 10

    topic = f"{settings.prefix}.messages.email"
    ledger = tmp_path / "ledger.ndjson"
    commands = await read_topic(settings, topic)
    ids = [json.loads(record.value)["id"] for record in commands]
    ledger.write_text("".join(json.dumps({"id": id, "at": commands[-1].timestamp + 1}) + "\n" for id in ids[1:]))
    lose_a_state(worker.data / "worker-0" / "users" / "0")
    await write_again(settings, commands[0])
    code, said, rows = await command(settings, tmp_path, "--data", str(worker.data), "--ledger", f"email={ledger}")
    assert code == 1
    assert "NOT CLEAN" in said
    assert rows["commands email"]["duplicated"] == 1
    assert rows["store one/worker-0/users/0"]["lost"] == 1
    assert rows["ledger email"]["lost"] == 1
    assert not any(rows["states, changelog"][fault] for fault in ("lost", "duplicated", "phantom", "early", "wrong"))


Rows = dict[str, dict[str, Any]]


async def command(settings: Kafka, folder: Path, *options: str) -> tuple[int, str, Rows]:
    """Run it; return its exit code, what it said, and its rows by name."""
    written = folder / "verdict.json"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "tests.verify", "--json", str(written), *options],
        cwd=ROOT, env={**os.environ, **environment(settings)}, capture_output=True, timeout=90, text=True,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout, {row["name"]: row for row in json.loads(written.read_text())["rows"]}


def lose_a_state(path: Path) -> None:
    """Delete the first user of a store."""
    store = RocksStore.open(path, (STATES, TIMERS, META), FORMAT, Memory())
    key, _ = next(store.scan(STATES, states.USER))
    store.write([(STATES, key, None)])
    store.close()


async def write_again(settings: Kafka, record: Any) -> None:
    """Append the same record once more, as a producer without transactions would after a lost answer."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(record.topic, record.value, record.key, record.partition)
    finally:
        await producer.stop()
