"""That the embedded host keeps the contract of all hosts, on RocksDB, and in memory with crashes that lose the unsynced."""

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from engine.runtime.embedded import layout
from engine.runtime.embedded.host import EmbeddedHost
from engine.runtime.embedded.readonly import ReadOnlyLog
from engine.runtime.host import Definitions, Log, PartitionStopped, Suppressions, Unavailable
from engine.runtime.store import KeyValueStore, Memory, MemoryStore, RocksStore
from schemas.records import NewRecord
from tests.runtime.host_contract import Harness, HostContract, Loop


class EmbeddedHarness:
    """An embedded host that can be crashed, on RocksDB or in memory.

    RocksDB is left as a process leaves it that is killed: what was written is there, synced or not. The store in memory
    is left as by a loss of power: what no sync has covered is gone, or (by chance) gone from some write on.
    """

    patience_seconds = 20.0

    def __init__(self, path: Path, store: MemoryStore | None, chance: random.Random) -> None:
        self._path, self._memory, self._chance = path, store, chance
        self.host: EmbeddedHost

    async def open(self, loops: Mapping[str, Loop]) -> None:
        store: KeyValueStore = self._memory or RocksStore.open(
            self._path, layout.FAMILIES, layout.FORMAT, Memory(1 << 20, 4 << 20)
        )
        self.host = EmbeddedHost(store, partitions=3)
        self.log: Log = self.host.log
        self.definitions: Definitions = self.host.definitions
        self.suppressions: Suppressions = self.host.suppressions
        self.host.start(loops)

    async def close(self) -> None:
        await self.host.close()
        if self._memory is not None:
            self._memory = self._memory.reopen()

    async def crash(self) -> None:
        if self._memory is not None:
            self._memory = self._memory.crash(self._chance.choice([0, 0, self._chance.randrange(20)]))
        self.host.log.fail(PartitionStopped("the test has crashed the host"))
        await self.host.close()


@pytest.fixture(params=["rocksdb", "memory"])
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    store = MemoryStore(layout.FAMILIES) if request.param == "memory" else None
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    harness = EmbeddedHarness(tmp_path / "store", store, random.Random(seed))
    yield harness
    await harness.host.close()


class TestEmbeddedHost(HostContract):
    """All of the contract."""


async def test_a_host_may_be_closed_twice_and_then_takes_nothing(tmp_path: Path) -> None:
    host = EmbeddedHost.open(tmp_path, 1)
    record = NewRecord("events", b"shop:ada", b"{}")
    async with asyncio.timeout(20):
        await host.log.append([record])
        await host.close()
        await host.close()
        with pytest.raises(Unavailable, match="closed"):
            await host.log.append([record])
    with ReadOnlyLog.open(tmp_path) as log:
        assert len(list(log.read("events", b"shop:ada"))) == 1


def test_on_a_disk_that_fills_up_nothing_confirmed_is_lost_and_the_process_learns_why(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", APPEND_UNTIL_FULL, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    confirmed, _, said = done.stdout.strip().splitlines()[-1].partition(" ")  # above it: what the host has logged
    assert "lift the file size limit" in said
    assert 0 < int(confirmed) < 1000
    with ReadOnlyLog.open(tmp_path) as log:
        found = [int(record.key or b"") for record in log.read("events", b"0")]
    assert found[: int(confirmed)] == list(range(int(confirmed)))


ROOT = Path(__file__).parent.parent.parent
APPEND_UNTIL_FULL = """
import asyncio, resource, sys
from pathlib import Path
from engine.runtime.embedded.host import EmbeddedHost
from engine.runtime.host import Unavailable
from schemas.records import NewRecord

async def main():
    host = EmbeddedHost.open(Path(sys.argv[1]), 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    confirmed = 0
    try:
        for number in range(1000):
            await host.log.append([NewRecord("events", b"%d" % number, bytes(1000))])
            confirmed += 1
    except Unavailable:
        pass
    print(confirmed, await asyncio.wait_for(host.failed(), 20))
    await host.close()

asyncio.run(main())
"""
