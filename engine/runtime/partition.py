"""The loop: how one partition of users goes from batch to batch.

    poll -> fold each record -> commit -> poll ...

It is one piece of code for both hosts. A batch is what one poll returned. Folding it reads the store and writes nothing:
it comes to one `Batch` of outputs, changed states and the offset it reaches, which the host makes durable together or not
at all. If the commit fails, the partition is opened anew and folds the same records again, with the same result; where
batches begin never changes the outcome.

What goes wrong stays where it is:

- an invalid record (its sender's fault) goes to `events.invalid`, in the batch's own commit;
- an exception inside a run suspends the run (see `engine/actor.py`);
- any other exception parks the record in `dead-letters`, the user's state as it was. The same exception for more than five
  users with no success in between isn't about a record: it stops the partition;
- an activation is never parked. If the body of its definition hasn't arrived yet, the partition waits for it.
"""

import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from engine.catalog import Catalog
from engine.runtime import states
from engine.runtime.folding import Failures, Folding
from engine.runtime.host import Batch, Definitions, PartitionHost
from engine.runtime.hot import Hot
from engine.runtime.metrics import Metrics
from engine.runtime.steering import MissingDefinition, is_sweep, restored
from engine.runtime.tally import Tally
from schemas.records import Record

MAX_RECORDS = 1000  # per batch: a few milliseconds of folding, one transaction
POLL_SECONDS = 1.0
# Whoever is asked by hundreds of conditions may take milliseconds a record. The process has to answer meanwhile: a member
# of a group that is silent for some seconds loses its partitions, and the next one would begin the same batch anew.
LONGEST_FOLD_SECONDS = 0.25
LOOKS_AFTER_RECORDS = 16  # at the time

Fold = Callable[[Sequence[Record]], Awaitable[Batch]]

log = structlog.get_logger(__name__)


class UserPartition:
    """One partition of `events` and the users in it.

    `clock` gives the wall time in milliseconds; it is used for metrics only. `through` lets a host run the fold somewhere
    else (on Kafka: inside the Faust agent): it is given `fold` and returns what is called for each batch.
    """

    def __init__(
        self,
        host: PartitionHost,
        definitions: Definitions,
        metrics: Metrics,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        max_records: int = MAX_RECORDS,
    ) -> None:
        self.host = host
        self.definitions = definitions
        self.clock = clock
        self.max_records = max_records
        self.longest_fold_seconds = LONGEST_FOLD_SECONDS
        self.tally = Tally(metrics, host.topic, host.number)
        self.catalog = Catalog()
        self.now = 0
        self.failures = Failures()
        self.hot = Hot(host.count)

    async def run(self, through: Callable[[Callable[[Sequence[Record]], Batch]], Fold] | None = None) -> None:
        """Fold what comes until cancelled. Raises PartitionStopped or what the host raises (Fenced, I/O errors)."""
        fold = through(self.fold) if through is not None else self._fold_here
        await self.restore()
        while True:
            records = await self.host.poll(self.max_records, POLL_SECONDS)
            if records:
                await self._take(records, fold)

    async def restore(self) -> None:
        """Take up the clock and the active definitions from the store."""
        self.now = states.decode_clock(self.host.store.get(states.PARTITION))
        self.catalog = await restored(self.host.store, self.definitions)

    async def _take(self, records: Sequence[Record], fold: Fold) -> None:
        """Fold and commit. A sweep reads the store, so what comes before it is committed first."""
        begin = 0
        for at, record in enumerate(records):
            if at > begin and is_sweep(record):
                await self._fold_and_commit(records[begin:at], fold)
                begin = at
        await self._fold_and_commit(records[begin:] if begin else records, fold)

    async def _fold_and_commit(self, records: Sequence[Record], fold: Fold) -> None:
        """In one batch, or in several if folding takes long."""
        while records:
            began = time.perf_counter()
            try:
                batch = await fold(records)
            except MissingDefinition as missing:
                log.info("waiting for a definition", partition=self.host.number, definition=missing.key)
                await self.definitions.wait(missing.key)
                continue
            is_whole = batch.through >= records[-1].offset
            left = () if is_whole else [record for record in records if record.offset > batch.through]
            self.tally.folded(len(records) - len(left), time.perf_counter() - began)
            began = time.perf_counter()
            await self.host.commit(batch)
            self.tally.committed(self.clock(), self.now, time.perf_counter() - began)
            records = left

    async def _fold_here(self, records: Sequence[Record]) -> Batch:
        return self.fold(records)

    def fold(self, records: Sequence[Record]) -> Batch:
        """Return what a batch of records comes to, or its first part if that takes long: `through` tells.

        Raises MissingDefinition; the batch is then folded again from its start.
        """
        began = time.perf_counter()
        self.tally.begin()
        folding = Folding(
            self.host, self.definitions, self.catalog, self.now, self.tally, self.failures, self.hot, records
        )
        for at, record in enumerate(records, 1):
            folding.take(record)
            if at % LOOKS_AFTER_RECORDS == 0 and time.perf_counter() - began > self.longest_fold_seconds:
                folding.batch.through = record.offset
                break
        batch = folding.finish()
        self.catalog, self.now = folding.catalog, folding.now
        return batch
