"""What a loop is given on the embedded host: one partition of one topic, with its store, timers and position."""

import asyncio
from collections.abc import Sequence

import msgspec

from engine.runtime.embedded import layout
from engine.runtime.embedded.log import EmbeddedLog
from engine.runtime.host import Batch, Fenced, Store
from engine.runtime.intake import tenant_of
from engine.runtime.metrics import Metrics
from engine.runtime.store import Keyspace, KeyValueStore, Write
from engine.runtime.timers import Alarm, Due, TimerIndex
from schemas.inputs import WakeUp
from schemas.records import JSON_TYPE, NewRecord, Record

_json = msgspec.json.Encoder()


class EmbeddedPartition:
    """See `engine.runtime.host.PartitionHost`. Opening a partition once more fences whoever had it."""

    def __init__(self, log: EmbeddedLog, store: KeyValueStore, topic: str, number: int, metrics: Metrics) -> None:
        self.topic, self.number, self.count = topic, number, log.count
        prefix = layout.partition_prefix(topic, number)
        self.store: Store = Keyspace(store, layout.STATES, prefix)
        self.timers = TimerIndex(store, layout.TIMERS, layout.META, prefix)
        self.alarm = Alarm()
        self._log = log
        self._partition = log.partition(topic, number)
        self._prefix = prefix
        self._position_key = layout.position_key(topic, number)
        self._waiter: asyncio.Future[None] | None = None
        self._woken = False
        self._is_owner = True
        self._more_are_due = False
        if not self.timers.is_complete:
            for _ in self.timers.rebuild(self.store.scan(b"u", b"v") if topic == "events" else ()):
                pass
        self._partition.attach(self._end_wait)
        self._due = metrics.timers_due.labels(topic, str(number))
        self._wake_ups = metrics.wake_ups_appended.labels(topic)
        metrics.wake_ups_unanswered.labels(topic, str(number)).set_function(self.alarm.unanswered)
        metrics.lag_records.labels(topic, str(number)).set_function(self._partition.unfolded_records)

    @property
    def position(self) -> int:
        """The offset through which this partition is folded, -1 if nothing is."""
        return self._partition.position

    async def poll(self, limit: int, timeout_seconds: float) -> Sequence[Record]:
        self._check_usable()
        partition = self._partition
        if not partition.has_more() and not self._woken and timeout_seconds > 0:
            await self._wait(timeout_seconds)
            self._check_usable()
        self._woken = False
        if partition.needs_store():
            self._log.write()
        return partition.take(limit)

    def wake(self) -> None:
        """End a waiting poll; if none is waiting, the next one doesn't."""
        self._woken = True
        self._end_wait()

    async def commit(self, batch: Batch) -> None:
        self._check_usable()
        prefix = self._prefix
        writes: list[Write] = [(layout.STATES, prefix + key, value) for key, value in batch.states.items()]
        if batch.timers:
            writes += self.timers.writes(batch.timers)
        if batch.through >= 0:
            writes.append((layout.META, self._position_key, batch.through.to_bytes(8)))
        if batch.outputs:
            self._log.stage(batch.outputs)
        self._log.write(writes)
        if batch.through >= 0:
            self._partition.fold_through(batch.through)
        self.alarm.settle(batch.timers)
        if self._more_are_due and 2 * self.alarm.unanswered() < self.alarm.limit:
            self.ring()
        await asyncio.sleep(0)  # a loop that always finds records must let the others have their turn

    async def durable(self) -> None:
        await self._log.durable()

    def partition_for(self, key: bytes) -> int:
        return layout.partition_of(key, self.count)

    def ring(self) -> None:
        """Append a wake-up for actors whose timers are due (as many as `Alarm` allows)."""
        now = max(self._log.clock(), self._partition.last_at)
        if not self.alarm.room(now):
            return
        due = self.timers.due(now, 2 * self.alarm.limit)
        self._due.set(len(due))
        if not due:
            self._more_are_due = False
            return
        chosen = self.alarm.choose(due, now)
        self._more_are_due = len(due) > len(chosen)
        if chosen:
            self._log.stage([self._wake_up(due) for due in chosen])
            self._log.write()
            self._wake_ups.inc(len(chosen))

    def fence(self) -> None:
        """Another one has this partition from now on, or nobody."""
        if self._is_owner:
            self._is_owner = False
            self._partition.detach()
        self._end_wait()

    def _wake_up(self, due: Due) -> NewRecord:
        due_at, actor = due
        headers = (JSON_TYPE, ("tenant", tenant_of(actor)))
        return NewRecord(self.topic, actor, _json.encode(WakeUp(due_at)), headers, self.number)

    def _check_usable(self) -> None:
        if not self._is_owner:
            raise Fenced(f"{self.topic}-{self.number} was opened once more in this process")
        if self._log.failure is not None:
            raise self._log.failure

    async def _wait(self, timeout_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timeout = loop.call_later(timeout_seconds, self._end_wait)
        try:
            await self._waiter
        finally:
            timeout.cancel()
            self._waiter = None

    def _end_wait(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
