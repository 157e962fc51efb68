"""A disk that takes nothing stops its partitions with an explanation; once it does again they go on by themselves."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from engine.runtime.kafka import partitions as partitions_module
from engine.runtime.kafka import topics
from engine.runtime.settings import Kafka
from tests.kafka.cluster import produce, until
from tests.kafka.test_partitions import KEYS, all_is_as_expected, are_stopped, worker

pytestmark = pytest.mark.kafka
MANY = [b"acme:user-%d" % number for number in range(20_000)]
LIMIT_BYTES = 50_000  # a partition of MANY is 100,000 in the write-ahead log


@pytest.fixture(autouse=True)
def tried_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions_module, "LONGEST_PAUSE_SECONDS", 0.5)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process grows any more: as good as a full disk, and nobody else is harmed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that nobody may write to: by a mount, since permissions don't hold back root."""
    if os.geteuid() != 0:
        modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}
        for path in modes:
            path.chmod(modes[path] & ~0o222)
        yield
        for path, mode in modes.items():
            path.chmod(mode)
        return
    if subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing may be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
        subprocess.run(["mount", "-o", "remount,bind,rw", folder], check=True)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


async def test_partitions_stop_on_a_full_disk_and_go_on_when_there_is_room(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    await topics.create(kafka_settings)
    async with worker(kafka_settings, tmp_path) as partitions:
        with full_disk(), capture_logs() as said:
            await produce(kafka_settings, MANY)

            async def have_all_stopped() -> bool:
                stopped = [line for line in said if line["event"] == "partition stopped"]
                assert all("cannot grow: lift the file size limit" in line["reason"] for line in stopped)
                return len({line["partition"] for line in stopped}) == kafka_settings.partitions

            await until(have_all_stopped, "all partitions have stopped")
        await all_is_as_expected(kafka_settings, MANY)
        assert not partitions.stopped


async def test_partitions_stop_on_a_read_only_disk_and_go_on_when_it_is_writable(
    kafka_settings: Kafka, tmp_path: Path
) -> None:
    await topics.create(kafka_settings)
    await produce(kafka_settings, KEYS)
    stores = tmp_path / "stores"
    async with worker(kafka_settings, stores):
        await all_is_as_expected(kafka_settings, KEYS)
    await produce(kafka_settings, KEYS)
    with read_only(stores):
        running = worker(kafka_settings, stores)
        partitions = await running.__aenter__()
        await are_stopped(partitions, kafka_settings.partitions)
        assert all(
            "mount it writable" in reason or "change its owner" in reason for reason in partitions.stopped.values()
        )
        stopped = partitions.stopped[0]
        assert "tried again" in stopped

    async def go_on() -> bool:
        return not partitions.stopped

    try:
        await until(go_on, "the partitions go on by themselves")
        await all_is_as_expected(kafka_settings, KEYS + KEYS)
    finally:
        await running.__aexit__(None, None, None)
