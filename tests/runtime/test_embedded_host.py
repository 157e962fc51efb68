"""That the embedded host keeps the contract of all hosts, on RocksDB, and in memory with crashes that lose the unsynced."""

import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from engine.runtime.embedded import layout
from engine.runtime.embedded.host import EmbeddedHost
from engine.runtime.host import Definitions, Log, PartitionStopped, Suppressions
from engine.runtime.store import KeyValueStore, Memory, MemoryStore, RocksStore
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
