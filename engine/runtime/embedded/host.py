"""The embedded host: what it is made of, how it starts, runs the loops, and stops."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Self

import structlog

from engine.runtime.embedded import layout, retention
from engine.runtime.embedded.log import EmbeddedLog, wall_clock
from engine.runtime.embedded.partition import EmbeddedPartition
from engine.runtime.embedded.tables import EmbeddedDefinitions, EmbeddedSuppressions
from engine.runtime.host import Fenced, PartitionHost, PartitionStopped
from engine.runtime.metrics import Metrics
from engine.runtime.store import KeyValueStore, Memory, RocksStore

Loop = Callable[[PartitionHost], Awaitable[None]]

RING_EVERY_SECONDS = 0.05  # how late a wake-up may be because nobody looked
SYNC_EVERY_SECONDS = 1.0  # what nobody waits for (the journal) is on the disk after this time at the latest
FORGET_EVERY_SECONDS = 600.0
MOST_CLOCK_LAG_MS = 10 * 60_000  # how far the log may be ahead of this machine's clock
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0  # before a loop that failed is started again


class EmbeddedHost:
    """One data directory and all that runs on it. Belongs to one event loop."""

    def __init__(
        self,
        store: KeyValueStore,
        partitions: int = 4,
        *,
        clock: Callable[[], int] = wall_clock,
        retention: timedelta = timedelta(days=7),
        metrics: Metrics | None = None,
        accept_clock: bool = False,
    ) -> None:
        self.metrics = metrics or Metrics()
        self._store = store
        self._retention_ms = retention // timedelta(milliseconds=1)
        count = _fixed_count(store, partitions)
        self.log = EmbeddedLog(store, count, clock, self.metrics)
        if not accept_clock:
            self._refuse_clock_far_behind()
        self.definitions = EmbeddedDefinitions(store)
        self.suppressions = EmbeddedSuppressions(self.log, store)
        self.log.listen(self.definitions.take)
        self.log.on_failure(self._stop_everything)
        self.stopped: dict[tuple[str, int], str] = {}  # partitions that stand still until somebody acts, and why
        self._owners: dict[tuple[str, int], EmbeddedPartition] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._failed = asyncio.Event()
        self._is_closed = False
        self._logger = structlog.get_logger("embedded")

    @classmethod
    def open(
        cls,
        path: Path,
        partitions: int = 4,
        *,
        clock: Callable[[], int] = wall_clock,
        retention: timedelta = timedelta(days=7),
        metrics: Metrics | None = None,
        memory: Memory | None = None,
        accept_clock: bool = False,
    ) -> Self:
        """Open the data directory, making it if it is not there. A directory made earlier keeps its number of
        partitions. Raises PartitionStopped where it cannot be used, saying why and what to do.

        `accept_clock`: an operator agrees to go on although this machine's clock is far behind the log's.
        """
        store = RocksStore.open(layout.store_path(path), layout.FAMILIES, layout.FORMAT, memory or Memory())
        try:
            return cls(store, partitions, clock=clock, retention=retention, metrics=metrics, accept_clock=accept_clock)
        except BaseException:
            store.close()
            raise

    def partition(self, topic: str, number: int) -> EmbeddedPartition:
        """Return a partition for a loop to run on; whoever had it is fenced."""
        before = self._owners.get((topic, number))
        if before is not None:
            before.fence()
        partition = self._owners[topic, number] = EmbeddedPartition(self.log, self._store, topic, number, self.metrics)
        return partition

    def partitions(self, topic: str) -> int:
        return self.log.partitions(topic)

    def owned(self, topic: str) -> list[EmbeddedPartition]:
        """The partitions of a topic that a loop runs on now."""
        return [partition for (owned, _), partition in self._owners.items() if owned == topic]

    def start(self, loops: Mapping[str, Loop]) -> None:
        """Run a loop on each partition of each topic (topic -> loop), and what the host itself has to do.

        A loop that raises `PartitionStopped` is not started again; its partition is in `stopped`. One that raises
        anything else is, after a pause, from what was committed.
        """
        for topic, loop in loops.items():
            self.metrics.partitions_owned.labels(topic).set(self.partitions(topic))
            for number in range(self.partitions(topic)):
                self._run(self._keep_running(topic, number, loop))
        for work in (self._ring, self._sync_now_and_then, self._forget_now_and_then):
            self._run(self._keep_up(work))

    async def failed(self) -> PartitionStopped:
        """Return when the disk has failed and everything has stopped: the process should end with this."""
        await self._failed.wait()
        assert self.log.failure is not None
        return self.log.failure

    async def close(self) -> None:
        """Stop the loops where they wait, bring everything to the disk, and let go of the directory. Once is enough: closing
        again does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for partition in self._owners.values():
            partition.fence()
        try:
            await self.log.close()
        finally:
            self._close_store()

    def _close_store(self) -> None:
        try:
            self._store.close()
        except PartitionStopped:
            if self.log.failure is None:  # else it has been said already
                raise

    def _run(self, work: Awaitable[None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def _keep_running(self, topic: str, number: int, loop: Loop) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            partition = self.partition(topic, number)
            position = partition.position
            try:
                await loop(partition)
                return
            except Fenced as error:
                self._logger.warning("partition given up", topic=topic, partition=number, reason=str(error))
                return
            except PartitionStopped as error:
                self._owners.pop((topic, number)).fence()  # wake nobody up in there
                self.stopped[topic, number] = str(error)
                self.metrics.partition_stopped.labels(topic, str(number)).set(1)
                self._logger.error("partition stopped", topic=topic, partition=number, reason=str(error))
                return
            except Exception:
                if partition.position > position:
                    pause = FIRST_PAUSE_SECONDS
                self.metrics.partition_failures.labels(topic).inc()
                self._logger.exception("loop failed", topic=topic, partition=number, again_in_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _keep_up(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do work that everything rests on. Were it to end quietly, nobody would be woken, or nothing synced."""
        try:
            await work()
        except PartitionStopped as error:
            self.log.fail(error)
        except Exception as error:
            self.log.fail(PartitionStopped(f"{work.__name__} failed, which is a bug: {error!r}"))

    async def _ring(self) -> None:
        while True:
            for partition in self.owned("events"):
                partition.ring()
            await asyncio.sleep(RING_EVERY_SECONDS)

    async def _sync_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(SYNC_EVERY_SECONDS)
            if self.log.has_unsynced:
                await self.log.durable()

    async def _forget_now_and_then(self) -> None:
        while True:
            self.forget()
            await asyncio.sleep(FORGET_EVERY_SECONDS)

    def forget(self) -> None:
        """Let the log forget what is older than the retention."""
        retention.forget(self.log, self._store, self.log.clock() - self._retention_ms)

    def _refuse_clock_far_behind(self) -> None:
        now = self.log.clock()
        for topic, number in retention.partitions(self._store):
            ahead_ms = self.log.partition(topic, number).last_at - now
            if ahead_ms > MOST_CLOCK_LAG_MS:
                raise PartitionStopped(
                    f"the last record of {topic}-{number} was appended {timedelta(milliseconds=ahead_ms)} after what this"
                    " machine's clock shows: set the clock right; if it is right (and was wrong before), start once"
                    " with --accept-clock, and timers stand still until it has caught up"
                )

    def _stop_everything(self, error: PartitionStopped) -> None:
        self._logger.error("everything stopped", reason=str(error))
        self._failed.set()


def _fixed_count(store: KeyValueStore, wanted: int) -> int:
    """Return the number of partitions this directory was made with, making it `wanted` if it is new."""
    count = layout.read_number(store, layout.PARTITIONS_KEY, 0)
    if not count:
        store.write([(layout.META, layout.PARTITIONS_KEY, wanted.to_bytes(2))])
        store.sync()
    return count or wanted
