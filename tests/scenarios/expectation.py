"""What must have come of the accepted records, computed anew without the runtime.

Given each partition's records in their order, with the log's timestamps, `expect` folds them one by one with
`engine.actor.handle` and plain dicts: no batches, no store, no journal, no timers of its own. What a run of the product
must come to is then: exactly these messages, exactly these users.

So it knows the meaning of an input from the product, and nothing else. A check that does not know even that is written
for one journey at a time, from its description: see `welcome_notes` below.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from engine.actor import NOBODY, handle
from engine.catalog import Catalog
from engine.definitions import thaw, thaw_policy
from engine.errors import InvalidInput
from engine.quotas import ask
from engine.runtime.intake import check_tenant, input_of, owner_of
from engine.runtime.states import Activation
from schemas.definitions import Definition
from schemas.inputs import Activated, Asked, Controlled, Input, Swept
from schemas.outputs import JournalEntry, Message
from schemas.records import Record
from schemas.state import Quota, User


@dataclass(frozen=True)
class Cause:
    """Which record made it so, and when that was on the partition's clock."""

    partition: int
    offset: int
    at: int


@dataclass
class Expectation:
    """What must be there: users by key, messages and journal entries in the order of their partition.

    `causes` and `journal_causes` stand beside the messages and the entries, one for one. Campaigns and sweeps are not
    computed: what a sweep brings is in the log and is folded from there.
    """

    users: dict[bytes, User] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    journal: list[JournalEntry] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    journal_causes: list[Cause] = field(default_factory=list)
    older: dict[bytes, bytes] = field(default_factory=dict)  # seen ids that outgrew a user's state
    quotas: dict[bytes, Quota] = field(default_factory=dict)
    inputs: Counter[tuple[bytes, bytes]] = field(default_factory=Counter)  # (key, value) of what went back to `events`
    invalid: list[Cause] = field(default_factory=list)  # records that cannot be folded
    failed: list[Cause] = field(default_factory=list)  # records on which the fold itself fails
    catalogs: dict[int, Catalog] = field(default_factory=dict)  # partition -> what is active at its end
    activations: dict[int, dict[str, list[Activation]]] = field(
        default_factory=dict
    )  # partition -> tenant/kind/name ->
    clocks: dict[int, int] = field(default_factory=dict)
    homes: dict[bytes, int] = field(default_factory=dict)  # whose state is in which partition

    def message_ids(self) -> Counter[str]:
        return Counter(message.id for message in self.messages)


def expect(
    definitions: Mapping[str, Definition],
    partitions: Mapping[int, Sequence[Record]],
    partition_for: Callable[[bytes], int] | None = None,
) -> Expectation:
    """Fold every partition's records. `partition_for` tells which records lie in the wrong partition and were forwarded."""
    expectation = Expectation()
    for number, records in sorted(partitions.items()):
        _Fold(definitions, number, partition_for, expectation).take(records)
    return expectation


class _Fold:
    """One partition: it knows of no other."""

    def __init__(
        self,
        definitions: Mapping[str, Definition],
        number: int,
        partition_for: Callable[[bytes], int] | None,
        expectation: Expectation,
    ) -> None:
        self._definitions, self._number = definitions, number
        self._partition_for = partition_for
        self._into = expectation
        self._catalog = Catalog()
        self._users: dict[bytes, User] = {}
        self._quotas: dict[bytes, Quota] = {}
        self._older: dict[bytes, bytes] = {}
        self._activations: dict[str, list[Activation]] = {}
        self._now = 0

    def take(self, records: Iterable[Record]) -> None:
        into = self._into
        for record in records:
            self._now = max(self._now, record.timestamp)
            cause = Cause(self._number, record.offset, self._now)
            try:
                self._give(record, cause)
            except InvalidInput:
                into.invalid.append(cause)
            except MissingBody:
                raise
            except Exception:
                into.failed.append(cause)
        states = self._users.keys() | self._quotas.keys()
        assert not states & into.homes.keys(), "an actor lives in one partition"
        into.users |= self._users
        into.quotas |= self._quotas
        into.older |= {key: older for key, older in self._older.items() if older}
        into.homes |= dict.fromkeys(states, self._number)
        into.catalogs[self._number] = self._catalog
        into.activations[self._number] = self._activations
        into.clocks[self._number] = self._now

    def _give(self, record: Record, cause: Cause) -> None:
        input = input_of(record)
        if record.key is None:
            self._catalog = self._steered(input)
            return
        tenant, kind, id = owner_of(record.key)
        check_tenant(record.headers, tenant)
        if isinstance(input, Activated | Controlled | Swept):
            raise InvalidInput("addressed to a partition")
        if kind == "quota":
            self._ask(record, tenant, input)
        elif kind == "campaign":
            return
        elif isinstance(input, Asked):
            raise InvalidInput("a user isn't asked")
        elif not self._is_forwarded(record, record.key in self._users):
            self._handle(record.key, tenant, id, input, cause)

    def _handle(self, key: bytes, tenant: str, id: str, input: Input, cause: Cause) -> None:
        assert not isinstance(input, Activated | Controlled | Swept | Asked)
        before = self._users.get(key, NOBODY)
        handled = handle(self._catalog, tenant, id, before, input, self._now, self._older.get(key, b""))
        self._older[key] = handled.older
        if handled.user is not before:
            self._users[key] = handled.user
        into = self._into
        into.messages += handled.messages
        into.causes += [cause] * len(handled.messages)
        into.journal += handled.journal
        into.journal_causes += [cause] * len(handled.journal)
        into.inputs.update((to.encode(), msgspec.json.encode(given)) for to, given in handled.inputs)

    def _ask(self, record: Record, tenant: str, input: Input) -> None:
        assert record.key is not None
        if self._is_forwarded(record, record.key in self._quotas):
            return
        if not isinstance(input, Asked):
            raise InvalidInput("a quota is only asked")
        quota, granted = ask(self._quotas.get(record.key, Quota()), input, self._now)
        self._quotas[record.key] = quota
        self._into.inputs[f"{tenant}:{input.user}".encode(), msgspec.json.encode(granted)] += 1

    def _is_forwarded(self, record: Record, is_known: bool) -> bool:
        assert record.key is not None
        if is_known or self._partition_for is None or self._partition_for(record.key) == self._number:
            return False
        self._into.inputs[record.key, record.value or b""] += 1
        return True

    def _steered(self, input: Input) -> Catalog:
        match input:
            case Activated():
                key = f"{input.tenant}/{input.kind}/{input.name}@{input.version}"
                if key not in self._definitions:
                    raise MissingBody(key)
                frozen = self._definitions[key]
                slot = key.partition("@")[0]
                earlier = [each for each in self._activations.get(slot, []) if each.version != input.version]
                self._activations[slot] = [*earlier, Activation(input.version, input.hash, self._now)]
                if input.kind == "policy":
                    return self._catalog.activate_policy(input.tenant, thaw_policy(frozen))
                return self._catalog.activate(input.tenant, thaw(frozen), self._now)
            case Controlled():
                return self._catalog.control(input.tenant, input.journey, input.action, self._now)
            case Swept():
                return self._catalog
        raise InvalidInput("the record has no key, so it is nobody's")


class MissingBody(Exception):  # noqa: N818 - says what is the case
    """A definition was activated whose body nobody has given: nothing can be expected without it."""


def welcome_notes(records: Iterable[Record], patience_ms: int) -> Counter[tuple[str, str]]:
    """Return (user, template) -> how often, for the journey "note" of the crash tests, read off its description:

    Whoever signs up gets a welcome. If they have not answered when their patience is over, and something is heard of them
    then or later (if only that it is time), they get one reminder. Nobody is welcomed twice.

    Knows JSON and the order of records, and nothing of the engine.
    """
    due: dict[str, int | None] = {}  # who is welcomed: when the reminder is due, None when there is none any more
    notes: Counter[tuple[str, str]] = Counter()
    now = 0
    for record in records:
        now = max(now, record.timestamp)
        if record.key is None:
            continue
        user = record.key.decode().partition(":")[2]
        input = json.loads(record.value or b"{}")
        due_at = due.get(user)
        if due_at is not None and due_at <= now:
            notes[user, "reminder"] += 1
            due[user] = None
        if input.get("type") == "event" and input["name"] == "signed_up" and user not in due:
            notes[user, "welcome"] += 1
            due[user] = now + patience_ms
        elif input.get("type") == "event" and input["name"] == "answered" and user in due:
            due[user] = None
    return notes
