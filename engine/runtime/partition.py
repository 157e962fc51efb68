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

import msgspec
import structlog

from engine.actor import NOBODY, Handled, earliest_due, handle
from engine.catalog import Catalog
from engine.definitions import thaw
from engine.errors import InvalidInput, JourneyError
from engine.journey import Journey
from engine.runtime import states, tracing
from engine.runtime.dead_letters import DEAD_LETTERS, INVALID, park
from engine.runtime.host import Batch, Definitions, PartitionHost, PartitionStopped
from engine.runtime.intake import input_of, owner_of
from engine.runtime.metrics import Metrics
from engine.runtime.tally import Tally
from schemas.inputs import Activated
from schemas.records import Headers, NewRecord, Record
from schemas.state import User

MAX_RECORDS = 1000  # per batch: a few milliseconds of folding, one transaction
POLL_SECONDS = 1.0
SAME_FAILURE_LIMIT = 5  # users whose records may fail the same way in a row
JSON_TYPE = ("content-type", b"application/json")

Fold = Callable[[Sequence[Record]], Awaitable[Batch]]

_encode = msgspec.json.Encoder().encode
log = structlog.get_logger(__name__)


class MissingDefinition(Exception):  # noqa: N818 - says what is the case
    """The body of a definition that a record activates has not arrived yet."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the definition {key} has not arrived yet")
        self.key = key


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
        self.tally = Tally(metrics, host.topic, host.number)
        self.catalog = Catalog()
        self.now = 0
        self.failures = _Failures()

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
        store = self.host.store
        self.now = states.decode_clock(store.get(states.PARTITION))
        catalog = Catalog()
        for key, raw in store.scan(states.ACTIVE, states.ACTIVE + b"\xff"):
            tenant, _, name = key[1:].decode().split("/")
            for activation in states.decode_activations(raw):
                catalog = catalog.activate(tenant, await self._wait_for(tenant, name, activation))
        self.catalog = catalog

    async def _take(self, records: Sequence[Record], fold: Fold) -> None:
        while True:
            began = time.perf_counter()
            try:
                batch = await fold(records)
                break
            except MissingDefinition as missing:
                log.info("waiting for a definition", partition=self.host.number, definition=missing.key)
                await self.definitions.wait(missing.key)
        self.tally.folded(len(records), time.perf_counter() - began)
        began = time.perf_counter()
        await self.host.commit(batch)
        self.tally.committed(self.clock(), self.now, time.perf_counter() - began)

    async def _fold_here(self, records: Sequence[Record]) -> Batch:
        return self.fold(records)

    def fold(self, records: Sequence[Record]) -> Batch:
        """Return what a batch of records comes to. Raises MissingDefinition; the batch is then folded again from its start."""
        self.tally.begin()
        folding = _Folding(self, records)
        for record in records:
            folding.take(record)
        return folding.finish()

    async def _wait_for(self, tenant: str, name: str, activation: states.Activation) -> Journey:
        key = f"{tenant}/journey/{name}@{activation.version}"
        await self.definitions.wait(key)
        return self.journey(key, activation.hash)

    def journey(self, key: str, wanted_hash: str) -> Journey:
        """Return the journey of a definition's key. Raises MissingDefinition or PartitionStopped."""
        definition = self.definitions.find(key)
        if definition is None:
            raise MissingDefinition(key)
        if definition.hash != wanted_hash:
            raise PartitionStopped(
                f"{key} was activated with SHA-256 {wanted_hash[:12]}, but the definition stored under this key has"
                f" {definition.hash[:12]}; publish the right body again, or a new version"
            )
        try:
            return thaw(definition)
        except JourneyError as error:
            raise PartitionStopped(f"{key} can't be read by this version ({error}); upgrade this worker") from error


class _Actor:
    """A user within a batch: as the store had them, and as they are by now."""

    __slots__ = ("due_before", "known", "older", "older_before", "user", "user_before")

    def __init__(self, user: User | None, older: bytes) -> None:
        self.known = user is not None
        self.user = self.user_before = user if user is not None else NOBODY
        self.older = self.older_before = older
        self.due_before = earliest_due(self.user)


class _Folding:
    """One batch being folded."""

    def __init__(self, partition: UserPartition, records: Sequence[Record]) -> None:
        self.partition = partition
        self.host = partition.host
        self.store = partition.host.store
        self.tally = partition.tally
        self.catalog = partition.catalog
        self.now = partition.now
        self.actors: dict[bytes, _Actor] = {}
        self.batch = Batch(through=records[-1].offset)
        self.activations: dict[bytes, list[states.Activation]] = {}

    def take(self, record: Record) -> None:
        """Fold one record: exactly one of moved on, invalid, forwarded or parked."""
        self.now = max(self.now, record.timestamp)
        try:
            if record.key is None:
                self._activate(record)
            else:
                self._give(record, record.key)
        except InvalidInput as error:
            self.tally.invalid()
            self._park(INVALID, record, str(error))
        except (MissingDefinition, PartitionStopped):
            raise
        except Exception as error:
            if record.key is None:
                raise PartitionStopped(f"an activation failed with {type(error).__name__}: {error}") from error
            self.partition.failures.count(record.key, error)
            self.tally.parked(error)
            log.error(
                "a record was parked in dead-letters",
                topic=self.host.topic, partition=self.host.number, offset=record.offset, exc_info=error,
            )  # fmt: skip
            self._park(DEAD_LETTERS, record, f"{type(error).__name__}: {error}")

    def _give(self, record: Record, key: bytes) -> None:
        input = input_of(record)
        if isinstance(input, Activated):
            raise InvalidInput("an activation is addressed to a partition: it has no key")
        tenant, user_id = owner_of(key, record.headers)
        actor = self.actors.get(key) or self._load(key)
        if not actor.known and actor.user is NOBODY and (right := self.host.partition_for(key)) != self.host.number:
            self.tally.forwarded()
            self.batch.outputs.append(NewRecord("events", key, record.value, record.headers, right))
            return
        handled = handle(self.catalog, tenant, user_id, actor.user, input, self.now, actor.older)
        outputs = self._outputs(handled, key, tenant, record.headers)  # May raise: before anything has changed.
        actor.user, actor.older = handled.user, handled.older
        self.batch.outputs += outputs
        self.tally.handled(input, handled, record.timestamp)
        self.partition.failures.clear()

    def _load(self, key: bytes) -> _Actor:
        raw = self.store.get(states.USER + key)
        user = None if raw is None else states.decode_user(raw)
        older = self.store.get(states.SEEN + key) if user is not None and user.has_older else None
        actor = self.actors[key] = _Actor(user, older or b"")
        return actor

    def _outputs(self, handled: Handled, key: bytes, tenant: str, given: Headers) -> list[NewRecord]:
        """Keyed topics have the same partitions, so what is about a user goes where the user is."""
        if not handled.messages and not handled.journal:
            return []
        traceparent = tracing.carried(given)
        headers: Headers = (JSON_TYPE, ("tenant", tenant.encode()))
        if traceparent is not None:
            headers = (*headers, traceparent)
        number = self.host.number
        return [
            *(
                NewRecord(f"messages.{message.channel}", key, _encode(message), headers, number)
                for message in handled.messages
            ),
            *(NewRecord("journal", key, _encode(entry), headers, number) for entry in handled.journal),
        ]

    def _activate(self, record: Record) -> None:
        """Make a definition current. Never parked: a partition that can't follow stops, for it would differ from the others."""
        activated = input_of(record)
        if not isinstance(activated, Activated):
            raise InvalidInput("the record has no key, so it is nobody's")
        if activated.kind != "journey":
            raise PartitionStopped(
                f"a {activated.kind} was activated, which this version doesn't know; upgrade this worker"
            )
        slot = f"{activated.tenant}/journey/{activated.name}"
        journey = self.partition.journey(f"{slot}@{activated.version}", activated.hash)
        self.catalog = self.catalog.activate(activated.tenant, journey)
        key = states.ACTIVE + slot.encode()
        known = self.activations.get(key)
        if known is None:
            raw = self.store.get(key)
            known = [] if raw is None else states.decode_activations(raw)
        now = states.Activation(activated.version, activated.hash)
        self.activations[key] = [*(each for each in known if each.version != now.version), now]

    def _park(self, topic: str, record: Record, reason: str) -> None:
        self.batch.outputs.append(park(topic, record, reason, self.host.topic, self.host.number))

    def finish(self) -> Batch:
        batch = self.batch
        for key, actor in self.actors.items():
            if actor.user is not actor.user_before:
                due_at = earliest_due(actor.user)
                batch.states[states.USER + key] = states.encode_user(actor.user, due_at)
                if due_at != actor.due_before:
                    batch.timers[key] = (actor.due_before, due_at)
            if actor.older is not actor.older_before and actor.older != actor.older_before:
                batch.states[states.SEEN + key] = actor.older or None
        for key, activations in self.activations.items():
            batch.states[key] = states.encode_activations(activations)
        batch.states[states.PARTITION] = states.encode_clock(self.now)
        self.partition.catalog = self.catalog
        self.partition.now = self.now
        return batch


class _Failures:
    """How often the same exception came in a row, for how many users."""

    def __init__(self) -> None:
        self.kind: type[Exception] | None = None
        self.keys: set[bytes | None] = set()

    def count(self, key: bytes | None, error: Exception) -> None:
        if type(error) is not self.kind:
            self.kind, self.keys = type(error), set()
        self.keys.add(key)
        if len(self.keys) > SAME_FAILURE_LIMIT:
            raise PartitionStopped(
                f"{len(self.keys)} users in a row failed with {type(error).__name__}: {error}; this isn't about one"
                " record. Nothing of this batch was written. See the log for the traceback, mend it, restart"
            ) from error

    def clear(self) -> None:
        self.kind = None
