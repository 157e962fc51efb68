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
from engine.definitions import thaw
from engine.errors import InvalidInput
from schemas.definitions import Definition
from schemas.inputs import Activated, Input
from schemas.outputs import JournalEntry, Message
from schemas.records import Record
from schemas.state import User

DISTURBANCES = (ValueError, RecursionError, InvalidInput)  # msgspec's errors are ValueErrors


@dataclass
class Expectation:
    """What must be there: users by key, messages and journal entries in the order of their partition."""

    users: dict[bytes, User] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    journal: list[JournalEntry] = field(default_factory=list)

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
        _fold(definitions, number, records, partition_for, expectation)
    return expectation


def _fold(
    definitions: Mapping[str, Definition],
    number: int,
    records: Iterable[Record],
    partition_for: Callable[[bytes], int] | None,
    expectation: Expectation,
) -> None:
    catalog = Catalog()
    users: dict[bytes, User] = {}  # of this partition: it knows of no other
    older: dict[bytes, bytes] = {}
    now = 0
    for record in records:
        now = max(now, record.timestamp)
        try:
            input = msgspec.json.decode(record.value or b"", type=Input)
            if isinstance(input, Activated):
                frozen = definitions[f"{input.tenant}/{input.kind}/{input.name}@{input.version}"]
                catalog = catalog.activate(input.tenant, thaw(frozen))
                continue
            key = record.key or b""
            tenant, user_id = key.decode().split(":", 1)
            known = users.get(key)
            if known is None and partition_for is not None and partition_for(key) != number:
                continue
            handled = handle(catalog, tenant, user_id, known or NOBODY, input, now, older.get(key, b""))
        except DISTURBANCES:
            continue
        older[key] = handled.older
        if handled.user is not (known or NOBODY):
            users[key] = handled.user
        expectation.messages += handled.messages
        expectation.journal += handled.journal
    assert not users.keys() & expectation.users.keys(), "a user lives in one partition"
    expectation.users |= users


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
