"""One batch being folded: each record given to the actor it is for, and what that comes to.

Users, quotas and campaigns are actors with a state under their key; what is addressed to the partition itself steers it
(`engine/runtime/steering.py`). Nothing is written here.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

import msgspec
import structlog

from engine.actor import NOBODY, Handled, earliest_due, handle
from engine.catalog import Catalog, schedule_of
from engine.errors import InvalidInput
from engine.quotas import ask
from engine.runtime import states, steering, tracing
from engine.runtime.dead_letters import DEAD_LETTERS, INVALID, park
from engine.runtime.host import Batch, Definitions, PartitionHost, PartitionStopped
from engine.runtime.intake import input_of, owner_of
from engine.runtime.tally import Tally
from schemas.inputs import Activated, Asked, Controlled, Entered, Input, Swept, WakeUp
from schemas.journal import LINES_TYPE, write_entries
from schemas.records import Headers, NewRecord, Record
from schemas.state import Campaign, User

SAME_FAILURE_LIMIT = 5  # users whose records may fail the same way in a row
HOT_USERS = 24_000  # of all partitions, also if one process has them all: some 50 MB decoded
FOR_PARTITIONS = (Activated, Controlled, Swept)
JSON_TYPE = ("content-type", b"application/json")

_encode = msgspec.json.Encoder().encode
log = structlog.get_logger(__name__)


class Hot:
    """The users that were heard from last, decoded: who is heard from again costs no read and no decoding.

    It holds what the store holds. If a commit fails, the whole partition is opened anew, and this with it.
    """

    def __init__(self, partitions: int, most: int = HOT_USERS) -> None:
        self.most = most // partitions
        self.users: dict[bytes, tuple[User, bytes, int | None]] = {}  # user, older seen ids, due; the coldest first

    def keep(self, key: bytes, user: User, older: bytes, due_at: int | None) -> None:
        self.users.pop(key, None)
        self.users[key] = (user, older, due_at)

    def trim(self) -> None:
        for key in list(islice(self.users, max(0, len(self.users) - self.most))):
            del self.users[key]


class _Actor:
    """A user within a batch: as the store had them, and as they are by now."""

    __slots__ = ("due_before", "known", "older", "older_before", "tenant", "user", "user_before")

    def __init__(self, tenant: str, user: User | None, older: bytes, due_at: int | None) -> None:
        self.known = user is not None
        self.tenant = tenant
        self.user = self.user_before = user if user is not None else NOBODY
        self.older = self.older_before = older
        self.due_before = due_at


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
        self.tally = tally
        self.failures = failures
        self.hot = hot
        self.catalog = catalog
        self.now = now
        self.batch = Batch(through=records[-1].offset)
        self.steering = steering.Steering(host, definitions, self.batch)
        self.actors: dict[bytes, _Actor] = {}

    def take(self, record: Record) -> None:
        """Fold one record: exactly one of moved on, invalid, forwarded or parked."""
        if record.timestamp > self.now:
            self.now = record.timestamp
        key = record.key
        try:
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
        batch = self.batch
        for key, actor in self.actors.items():
            due_at = earliest_due(actor.user, self.catalog, actor.tenant)
            if actor.user is not actor.user_before or due_at != actor.due_before:
                batch.states[states.USER + key] = states.encode_actor(actor.user, due_at)
                if due_at != actor.due_before:
                    batch.timers[key] = (actor.due_before, due_at)
            if actor.older is not actor.older_before and actor.older != actor.older_before:
                batch.states[states.SEEN + key] = actor.older or None
            if actor.user is not NOBODY:
                self.hot.keep(key, actor.user, actor.older, due_at)
        self.hot.trim()
        batch.states[states.PARTITION] = states.encode_clock(self.now)
        return batch

    # Actors

    def _give(self, record: Record, key: bytes) -> None:
        input = input_of(record)
        tenant, kind, id = owner_of(key, record.headers)
        if isinstance(input, FOR_PARTITIONS):
            raise InvalidInput("this is addressed to a partition: it has no key")
        if kind:
            self._give_other(kind, tenant, key, input, record)
        elif isinstance(input, Asked):
            raise InvalidInput("a user isn't asked for a place")
        else:
            actor = self.actors.get(key) or self._load(tenant, key)
            if not actor.known and actor.user is NOBODY and self._is_elsewhere(record, key):
                return
            handled = handle(self.catalog, tenant, id, actor.user, input, self.now, actor.older)
            outputs = self._outputs(handled, key, tenant, record.headers)  # May raise: before anything has changed.
            actor.user, actor.older = handled.user, handled.older
            self.batch.outputs += outputs
            self.tally.handled(input, handled, record.timestamp)
        self.failures.clear()

    def _load(self, tenant: str, key: bytes) -> _Actor:
        hot = self.hot.users.get(key)
        if hot is not None:
            actor = _Actor(tenant, *hot)
        else:
            raw = self.store.get(states.USER + key)
            user = None if raw is None else states.decode_user(raw)
            older = self.store.get(states.SEEN + key) if user is not None and user.has_older else None
            actor = _Actor(tenant, user, older or b"", states.due_in(raw))
        self.actors[key] = actor
        return actor

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
            self.batch.outputs.append(self._input_for(to, granted, tenant, record.headers))
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
        if not handled.messages and not handled.journal and not handled.inputs and not handled.shadowed:
            return []
        headers = _headers(tenant, given)
        told = (LINES_TYPE, *headers[1:])
        number = self.host.number
        outputs = [
            NewRecord(f"messages.{message.channel}", key, _encode(message), headers, number)
            for message in handled.messages
        ]
        entries = [*handled.journal, *handled.shadowed] if handled.shadowed else handled.journal
        outputs += [NewRecord("journal", key, lines, told, number) for lines in write_entries(entries)]
        outputs += [self._input_for(to.encode(), input, tenant, given) for to, input in handled.inputs]
        return outputs

    def _input_for(self, key: bytes, input: Input, tenant: str, given: Headers) -> NewRecord:
        return NewRecord("events", key, _encode(input), _headers(tenant, given), self.host.partition_for(key))

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
            self._fire(key, states.decode_campaign(raw), due_at)

    def _sweep(self, swept: Swept) -> Iterable[NewRecord]:
        """Give a chunk of the tenant's users their wake-up or entry, and come back for the next chunk."""
        given: Input = swept.entered if swept.entered is not None else WakeUp(self.now)
        value, headers = _encode(given), _headers(swept.tenant, ())
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


def _headers(tenant: str, given: Headers) -> Headers:
    traceparent = tracing.carried(given)
    headers: Headers = (JSON_TYPE, ("tenant", tenant.encode()))
    return headers if traceparent is None else (*headers, traceparent)
