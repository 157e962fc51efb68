"""One batch being folded: each record given to the actor it is for, and what that comes to.

Users, quotas and campaigns are actors with a state under their key; what is addressed to the partition itself steers it
(`engine/runtime/steering.py`). Nothing is written here.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec
import structlog

from engine.actor import NOBODY, Handled, earliest_due, handle
from engine.catalog import Catalog, schedule_of
from engine.errors import InvalidInput
from engine.quotas import ask
from engine.runtime import states, steering, tracing
from engine.runtime.dead_letters import DEAD_LETTERS, INVALID, park
from engine.runtime.host import Batch, Definitions, PartitionHost, PartitionStopped
from engine.runtime.hot import Actor, Hot
from engine.runtime.intake import check_tenant, input_of, owner_of
from engine.runtime.tally import Tally
from schemas.inputs import Activated, Asked, Controlled, Entered, Event, Input, Swept, WakeUp
from schemas.journal import LINES_TYPE, write_entries
from schemas.records import JSON_TYPE, Headers, NewRecord, Record
from schemas.state import Campaign

SAME_FAILURE_LIMIT = 5  # users whose records may fail the same way in a row
FOR_PARTITIONS = (Activated, Controlled, Swept)

_encode = msgspec.json.Encoder().encode
log = structlog.get_logger(__name__)


class Folding:
    """One batch. `catalog` and `now` are what they have become by the last record taken."""

    def __init__(
        self,
        host: PartitionHost,
        definitions: Definitions,
        catalog: Catalog,
        now: int,
        tally: Tally,
        failures: "Failures",
        hot: Hot,
        records: Sequence[Record],
    ) -> None:
        self.host = host
        self.store = host.store
        self.tally, self.inputs = tally, tally.inputs
        self.failures = failures
        self.hot = hot
        self.catalog = catalog
        self.now = now
        self.batch = Batch(through=records[-1].offset)
        self.steering = steering.Steering(host, definitions, self.batch)
        self.begun = self.steering.begun
        self.actors: dict[bytes, Actor] = {}

    def take(self, record: Record) -> None:
        """Fold one record: exactly one of moved on, invalid, forwarded or parked."""
        if record.timestamp > self.now:
            self.now = record.timestamp
        key = record.key
        try:
            if self.begun and not steering.is_activation(record):
                self.catalog = self.steering.settled(self.catalog)
            if key is None:
                self._steer(record)
            else:
                self._give(record, key)
        except InvalidInput as error:
            self.tally.invalid()
            self._park(INVALID, record, str(error))
        except (steering.MissingDefinition, PartitionStopped):
            raise
        except Exception as error:
            if key is None:
                raise PartitionStopped(f"an activation failed with {type(error).__name__}: {error}") from error
            self.failures.count(key, error)
            self.tally.parked(error)
            log.error(
                "a record was parked in dead-letters",
                topic=self.host.topic, partition=self.host.number, offset=record.offset, exc_info=error,
            )  # fmt: skip
            self._park(DEAD_LETTERS, record, f"{type(error).__name__}: {error}")

    def finish(self) -> Batch:
        """Return what the batch comes to."""
        batch, hot = self.batch, self.hot
        self.catalog = self.steering.settled(self.catalog)
        for key, actor in self.actors.items():
            due_at = earliest_due(actor.user, self.catalog, actor.tenant)
            if actor.user is not actor.user_stored or due_at != actor.due_at:
                batch.states[states.USER + key] = states.encode_actor(actor.user, due_at)
                if due_at != actor.due_at:
                    batch.timers[key] = (actor.due_at, due_at)
                actor.user_stored, actor.due_at = actor.user, due_at
            if actor.older is not actor.older_stored:
                if actor.older != actor.older_stored:
                    batch.states[states.SEEN + key] = actor.older or None
                actor.older_stored = actor.older
            if actor.user is not NOBODY:
                hot.keep(key, actor)
        hot.trim()
        batch.states[states.PARTITION] = states.encode_clock(self.now)
        return batch

    # Actors

    def _give(self, record: Record, key: bytes) -> None:
        input = input_of(record)
        actor = self.actors.get(key)
        if actor is None:
            actor = self.hot.take(key)
            if actor is None:
                tenant, kind, id = owner_of(key)
                if kind:
                    check_tenant(record.headers, tenant)
                    self._give_other(kind, tenant, key, input, record)
                    self.failures.clear()
                    return
                actor = self._read(tenant, id, key)
            self.actors[key] = actor
        if record.headers:
            check_tenant(record.headers, actor.tenant)
        if type(input) is not Event:
            if isinstance(input, FOR_PARTITIONS):
                raise InvalidInput("this is addressed to a partition: it has no key")
            if isinstance(input, Asked):
                raise InvalidInput("a user isn't asked for a place")
        if actor.user is NOBODY and self._is_elsewhere(record, key):
            return
        handled = handle(self.catalog, actor.tenant, actor.id, actor.user, input, self.now, actor.older)
        if handled.journal or handled.messages or handled.inputs or handled.shadowed:
            # May raise: before anything has changed.
            self.batch.outputs += self._outputs(handled, key, actor.tenant, record.headers)
            self.tally.came_of_it(handled, record.timestamp)
        actor.user, actor.older = handled.user, handled.older
        self.inputs[type(input)] += 1
        if self.failures.kind is not None:
            self.failures.clear()

    def _read(self, tenant: str, id: str, key: bytes) -> Actor:
        raw = self.store.get(states.USER + key)
        user = None if raw is None else states.decode_user(raw)
        older = self.store.get(states.SEEN + key) if user is not None and user.has_older else None
        return Actor(tenant, id, user, older or b"", states.due_in(raw))

    def _is_elsewhere(self, record: Record, key: bytes) -> bool:
        """Forward a record that a foreign partitioner has put here. Who has a state here is known to belong here."""
        right = self.host.partition_for(key)
        if right == self.host.number:
            return False
        self.tally.forwarded()
        self.batch.outputs.append(NewRecord("events", key, record.value, record.headers, right))
        return True

    def _give_other(self, kind: str, tenant: str, key: bytes, input: Input, record: Record) -> None:
        raw = self._state_of(key)
        if raw is None and self._is_elsewhere(record, key):
            return
        if kind == "quota" and isinstance(input, Asked):
            quota, granted = ask(states.decode_quota(raw), input, self.now)
            self.batch.states[states.USER + key] = states.encode_actor(quota, None)
            to = f"{tenant}:{input.user}".encode()
            headers, _ = _headers(tenant, record.headers)
            self.batch.outputs.append(self._input_for(to, granted, headers))
        elif kind == "campaign" and isinstance(input, WakeUp):
            if raw is not None:
                self._fire(key, states.decode_campaign(raw), states.due_in(raw))
        else:
            raise InvalidInput(f"a {kind} is not given a {type(input).__name__.lower()}")

    def _state_of(self, key: bytes) -> bytes | None:
        changed = self.batch.states
        return changed[states.USER + key] if states.USER + key in changed else self.store.get(states.USER + key)

    def _fire(self, key: bytes, campaign: Campaign, due_before: int | None) -> None:
        """Have every partition go through its users, for the last time of the schedule that has come."""
        schedule = schedule_of(self.catalog.of(campaign.tenant, campaign.journey))
        if schedule is None:  # Doesn't happen: with its schedule a journey loses its campaign.
            return
        fired_at, local, due_at = schedule.catch_up(campaign.next_at, self.now)
        if fired_at is not None and self.catalog.admits(campaign.tenant, campaign.journey):
            id = f"{campaign.journey}@{fired_at}"
            swept = Swept(id, campaign.tenant, entered=Entered(id, campaign.journey, "schedule", {}, local))
            for partition in range(self.host.count):
                self.batch.outputs.append(NewRecord("events", None, _encode(swept), (JSON_TYPE,), partition))
        after = msgspec.structs.replace(campaign, next_at=due_at)
        self.steering.set_campaign(key, after, due_before)

    # Outputs

    def _outputs(self, handled: Handled, key: bytes, tenant: str, given: Headers) -> list[NewRecord]:
        """Keyed topics have the same partitions, so what is about a user goes where the user is."""
        headers, told = _headers(tenant, given)
        number = self.host.number
        outputs = [
            NewRecord(f"messages.{message.channel}", key, _encode(message), headers, number)
            for message in handled.messages
        ]
        entries = [*handled.journal, *handled.shadowed] if handled.shadowed else handled.journal
        for lines in write_entries(entries):
            outputs.append(NewRecord("journal", key, lines, told, number))
        for to, input in handled.inputs:
            outputs.append(self._input_for(to.encode(), input, headers))
        return outputs

    def _input_for(self, key: bytes, input: Input, headers: Headers) -> NewRecord:
        return NewRecord("events", key, _encode(input), headers, self.host.partition_for(key))

    # What is addressed to the partition

    def _steer(self, record: Record) -> None:
        input = input_of(record)
        match input:
            case Activated():
                self._fire_before(input)
                self.catalog = self.steering.activate(self.catalog, input, self.now)
            case Controlled():
                self.catalog = self.steering.control(self.catalog, input, self.now)
            case Swept():
                self.batch.outputs += self._sweep(input)
            case _:
                raise InvalidInput("the record has no key, so it is nobody's")

    def _fire_before(self, activated: Activated) -> None:
        """A schedule's time that came before a new version is not skipped because its wake-up comes after it."""
        key = f"{activated.tenant}/campaign:{activated.name}".encode()
        raw = self._state_of(key) if activated.kind == "journey" else None
        due_at = states.due_in(raw)
        if raw is not None and due_at is not None and due_at <= self.now:
            self.catalog = self.steering.settled(self.catalog)
            self._fire(key, states.decode_campaign(raw), due_at)

    def _sweep(self, swept: Swept) -> Iterable[NewRecord]:
        """Give a chunk of the tenant's users their wake-up or entry, and come back for the next chunk."""
        given: Input = swept.entered if swept.entered is not None else WakeUp(self.now)
        value, (headers, _) = _encode(given), _headers(swept.tenant, ())
        users, last = steering.chunk(self.store, swept)
        outputs = [NewRecord("events", key, value, headers, self.host.number) for key in users]
        if last:
            following = msgspec.structs.replace(swept, after=last)
            outputs.append(NewRecord("events", None, _encode(following), (JSON_TYPE,), self.host.number))
        return outputs

    def _park(self, topic: str, record: Record, reason: str) -> None:
        self.batch.outputs.append(park(topic, record, reason, self.host.topic, self.host.number))


class Failures:
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


def _headers(tenant: str, given: Headers) -> tuple[Headers, Headers]:
    """Return the headers of what a record gives rise to: those of JSON, and those of the journal's lines."""
    plain, lines = _plain_headers(tenant)
    traceparent = tracing.carried(given)
    return (plain, lines) if traceparent is None else ((*plain, traceparent), (*lines, traceparent))


@lru_cache(maxsize=1024)
def _plain_headers(tenant: str) -> tuple[Headers, Headers]:
    named = ("tenant", tenant.encode())
    return (JSON_TYPE, named), (LINES_TYPE, named)
