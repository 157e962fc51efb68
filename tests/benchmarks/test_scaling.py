"""What a figure of growth stands on: the points, the gates, the CPU of all processes, one round on a real broker."""

import asyncio
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from rich.progress import Progress

from benchmarks import figures, scaling
from benchmarks.contenders import cluster, ours, processes
from benchmarks.contenders.work import TENANTS, events, journey
from benchmarks.scaling import BASE, POINTS, Point
from engine.runtime.settings import Kafka
from tests.kafka.cluster import read_topic

BURNS_SECONDS, AT_LEAST_SECONDS = 0.5, 0.3  # the system counts in ticks, and rounds down
# Starts a child that uses the processor for a while; says its own pid and waits once the child has done so.
PARENT = f"""
import os, subprocess, sys
burn = "import sys, time\\nwhile time.process_time() < {BURNS_SECONDS}: pass\\nprint(flush=True)\\nsys.stdin.read()"
child = subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print("burnt", flush=True)
for line in sys.stdin:
    child.communicate()
    print("waited", flush=True)
"""


def test_each_point_differs_from_the_base_in_one_thing_and_is_named_by_it() -> None:
    assert BASE.name == "1 process, 100,000 users, 1 journey, 24 partitions"
    assert [point.name for point in POINTS if point != BASE] == [
        "2 processes", "10,000 users", "1,000,000 users", "100 journeys", "1,000 journeys", "4 partitions",
    ]  # fmt: skip


def test_the_other_journeys_are_active_for_every_tenant_and_ask_for_events_that_do_not_come() -> None:
    published = ours.publication(2)
    active = [(each.tenant, each.name) for each in published.activations]
    assert active == [(tenant, name) for tenant in TENANTS for name in (journey.name, "other_0", "other_1")]
    names = {msgspec.json.decode(each.value)["name"] for each in events(2_000, 500)}
    assert "cart" in names
    bodies = [each.body for each in published.definitions if each.kind == "journey" and each.name != journey.name]
    entries = {msgspec.json.decode(bytes(body))["entry"]["name"] for body in bodies}
    assert entries == {"other_0", "other_1"}
    assert not entries & names


def test_a_partition_stands_at_the_gate_whose_definition_it_waits_for() -> None:
    first, second = (
        gate.definitions[-1].key for gate in (scaling.BEFORE_THE_EVENTS_ARE_WRITTEN, scaling.BEFORE_THE_EVENTS)
    )
    log = "".join(
        f'{{"event": "waiting for a definition", "partition": {partition}, "definition": "{key}"}}\n'
        for partition, key in [(0, first), (3, first), (3, second), (0, first)]
    )
    log = "a line for people\n" + log + '{"event": "partition open", "partition": 1}\n'
    assert scaling.waiting(log, first) == {0, 3}
    assert scaling.waiting(log, second) == {3}
    assert scaling.waiting(log + '{"event": "waiting for a definition", "parti', second) == {3}


def test_the_cpu_of_children_counts_while_they_live_and_when_they_have_ended() -> None:
    with _parent() as parent:
        assert parent.stdin is not None and parent.stdout is not None
        assert parent.stdout.readline() == b"burnt\n"
        alone = figures.cpu_seconds(parent.pid)
        assert processes.cpu_seconds(parent.pid) >= alone + AT_LEAST_SECONDS
        parent.stdin.write(b"\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == b"waited\n"
        assert processes.cpu_seconds(parent.pid) >= alone + AT_LEAST_SECONDS


@contextmanager
def _parent() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        try:
            yield parent
        finally:
            parent.kill()


@pytest.mark.kafka
async def test_what_stands_at_the_head_of_a_partition_may_fill_more_than_a_batch(
    kafka_settings: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "BATCH_BYTES", 1_000)
    head = [b"%0300d" % number for number in range(10)]
    given, topic = list(events(40, 10)), f"{kafka_settings.prefix}.events"
    await cluster.create(kafka_settings.bootstrap, [topic], kafka_settings.partitions)
    await cluster.write(kafka_settings.bootstrap, topic, kafka_settings.partitions, given, head, 5)
    records = await read_topic(kafka_settings, topic)
    for number in range(kafka_settings.partitions):
        first = [record for record in records if record.partition == number][: len(head)]
        assert [(record.timestamp, record.value) for record in first] == [(5, value) for value in head]
    assert sorted(record.value for record in records if record.key is not None) == sorted(each.value for each in given)


@pytest.mark.kafka
def test_a_point_gets_a_figure_if_its_commands_are_the_expected_ones_and_else_the_reason(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    right = Point(processes=2, users=150, journeys=3, partitions=4)
    wrong = Point(users=140, partitions=2)
    measured = scaling.Scaling(tmp_path, kafka_settings.bootstrap, 600, 1, Progress(disable=True))
    measured.expected[wrong.users] = Counter()
    asyncio.run(measured.measure([right, wrong]))
    assert measured.expected[right.users].total() > 10
    assert set(measured.failed) == {wrong}, measured.failed
    assert re.fullmatch(r"0 commands: 0 lost, 0 doubled, \d+ phantom", measured.failed[wrong])
    (figure,) = measured.figures()
    assert figure.name == "CPU per event, 2 processes, 150 users, 3 journeys, 4 partitions"
    assert figure.median > 0
    assert not any(path.is_dir() for path in tmp_path.iterdir()), "no store is left behind"
