"""What must be there, beside what was found: one row of differences for each kind of thing.

lost        it must be there and isn't
duplicated  it is there more often than it must be
phantom     it is there, and nothing in the log asks for it
early       it is there, and its time had not come
wrong       it is there, but in another place, order or form
"""

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from engine.actor import earliest_due, handle
from engine.runtime import states
from engine.runtime.kafka.partition_store import SOURCE
from engine.runtime.kafka.partitioner import partition_of
from schemas.inputs import WakeUp
from schemas.journal import read_entries
from schemas.outputs import Message
from schemas.records import Record
from tests.scenarios.embedded_world import CHANNELS_WORDS
from tests.scenarios.expectation import Expectation, expect
from tests.verify.accounts import accounts
from tests.verify.deliveries import deliveries_row
from tests.verify.evidence import Evidence, Records, StoreContents
from tests.verify.rows import Fault, Row, Verdict

T = TypeVar("T", bound=Hashable)

FOLDS_OWN = ("asked", "granted", "linked", "absorbed", "forwarded")  # inputs that only a fold writes
INTERNAL = tuple(f'{{"type":"{kind}"'.encode() for kind in FOLDS_OWN)


def verify(evidence: Evidence) -> Verdict:
    """Compute what must have come of the events, and compare everything found with it."""

    def home(key: bytes) -> int:
        return partition_of(key, evidence.partitions)

    expectation = expect(evidence.definitions, evidence.events, home)
    rows = [_commands_row(channel, evidence, expectation) for channel in _channels(evidence, expectation)]
    rows.append(_journal_row(evidence, expectation))
    rows.append(_inputs_row(evidence, expectation))
    rows.append(_set_aside_row(evidence, expectation))
    rows.append(_changelog_row(evidence, expectation))
    rows += accounts(evidence)
    for store in evidence.stores:
        if store.unreadable:
            rows.append(Row(f"store {store.name}"))
            rows[-1].note("wrong", store.unreadable)
            continue
        folded = [record for record in evidence.events[store.partition] if record.offset <= store.through]
        rows.append(_store_row(store, expect(evidence.definitions, {store.partition: folded}, home)))
    rows += [deliveries_row(channel, evidence, expectation) for channel in sorted(evidence.ledgers)]
    return Verdict(rows, waiting=_waiting(expectation))


# Commands


def _channels(evidence: Evidence, expectation: Expectation) -> list[str]:
    asked = {message.channel for message in expectation.messages}
    used = {channel for channel, records in evidence.commands.items() if any(records.values())}
    return sorted(asked | used)


@dataclass
class _Wanted:
    """The commands of one channel that must be there."""

    ids: Counter[str] = field(default_factory=Counter)
    by_id: dict[str, tuple[int, int, Message]] = field(default_factory=dict)  # partition, when it was asked for
    order: dict[int, list[str]] = field(default_factory=dict)


def _commands_row(channel: str, evidence: Evidence, expectation: Expectation) -> Row:
    row = Row(f"commands {channel}")
    wanted = _Wanted()
    for message, cause in zip(expectation.messages, expectation.causes, strict=True):
        if message.channel == channel:
            wanted.ids[message.id] += 1
            wanted.by_id[message.id] = (cause.partition, cause.at, message)
            wanted.order.setdefault(cause.partition, []).append(message.id)
    found: Counter[str] = Counter()
    for partition, record in _each(evidence.commands.get(channel, {})):
        message = msgspec.json.decode(record.value or b"", type=Message)
        found[message.id] += 1
        if message.id not in wanted.by_id:
            kind: Fault = "early" if _would_come(message, record, expectation) else "phantom"
            row.note(kind, f"{message.id} in partition {partition} at offset {record.offset}")
            continue
        home, at, exact = wanted.by_id[message.id]
        if record.timestamp < at:
            row.note("early", f"{message.id} stands in the log {at - record.timestamp} ms before its cause")
        if (partition, record.key, message) != (home, f"{exact.tenant}:{exact.user}".encode(), exact):
            row.note("wrong", f"{message.id} in partition {partition} at offset {record.offset}")
    _count(row, wanted.ids, found, phantoms=False)
    if not row.faults:
        records = evidence.commands.get(channel, {})
        for partition, ids in wanted.order.items():
            if ids != [msgspec.json.decode(each.value or b"", type=Message).id for each in records[partition]]:
                row.note("wrong", f"the order in partition {partition}")
    return row


def _would_come(message: Message, record: Record, expectation: Expectation) -> bool:
    """Would the user's next timer ask for this very message?"""
    key = record.key or b""
    user = expectation.users.get(key)
    if user is None:
        return False
    catalog = expectation.catalogs[expectation.homes[key]]
    due_at = earliest_due(user, catalog, message.tenant)
    if due_at is None:
        return False
    older = expectation.older.get(key, b"")
    handled = handle(catalog, message.tenant, message.user, user, WakeUp(due_at), due_at, older)
    return any(each.id == message.id for each in handled.messages)


# What else was written


def _journal_row(evidence: Evidence, expectation: Expectation) -> Row:
    row = Row("journal")
    wanted: Counter[tuple[int, bytes]] = Counter()
    order: dict[int, list[bytes]] = {}
    for entry, cause in zip(expectation.journal, expectation.journal_causes, strict=True):
        raw = msgspec.json.encode(entry)
        wanted[cause.partition, raw] += 1
        order.setdefault(cause.partition, []).append(raw)
    found: Counter[tuple[int, bytes]] = Counter()
    in_order: dict[int, list[bytes]] = {}
    for partition, record in _each(evidence.journal):
        for entry in read_entries(record.value):
            if entry.kind in CHANNELS_WORDS:
                continue
            raw = msgspec.json.encode(entry)
            found[partition, raw] += 1
            in_order.setdefault(partition, []).append(raw)
            if record.timestamp < entry.at:
                row.note("early", f"an entry in partition {partition} at offset {record.offset}")
            if record.key != (f"{entry.tenant}:{entry.user}".encode() if entry.user else None):
                row.note("wrong", f"an entry of another user in partition {partition} at offset {record.offset}")
    _count(row, wanted, found)
    if not row.faults and order != in_order:
        row.note("wrong", "the order")
    return row


def _inputs_row(evidence: Evidence, expectation: Expectation) -> Row:
    """What went back to `events`: forwarded records, questions and answers of quotas, what journeys emit.

    Anybody may write an equal record, so only what nobody else writes can be called doubled or made up.
    """
    row = Row("inputs sent on")
    found: Counter[tuple[bytes, bytes]] = Counter()
    for partition, record in _each(evidence.events):
        if record.key is None or partition_of(record.key, evidence.partitions) != partition:
            continue
        sent_on = (record.key, record.value or b"")
        if sent_on in expectation.inputs or sent_on[1].startswith(INTERNAL):
            found[sent_on] += 1
    for sent_on, times in expectation.inputs.items():
        if not sent_on[1].startswith(INTERNAL):
            found[sent_on] = min(found[sent_on], times)
    _count(row, expectation.inputs, found)
    return row


def _set_aside_row(evidence: Evidence, expectation: Expectation) -> Row:
    """Records that cannot be folded: each is kept, once, with where it was."""
    row = Row("set aside")
    wanted = Counter(("events.invalid", cause.partition, cause.offset) for cause in expectation.invalid)
    wanted.update(("dead-letters", cause.partition, cause.offset) for cause in expectation.failed)
    found: Counter[tuple[str, int, int]] = Counter()
    for topic, records in evidence.set_aside.items():
        for _, record in _each(records):
            headers = dict(record.headers)
            if headers.get("dlq-topic") == b"events":
                found[topic, int(headers["dlq-partition"]), int(headers["dlq-offset"])] += 1
    _count(row, wanted, found)
    return row


# States


def _changelog_row(evidence: Evidence, expectation: Expectation) -> Row:
    row = Row("states, changelog")
    found: dict[bytes, bytes] = {}
    for partition, records in evidence.changelog.items():
        latest = {record.key or b"": record.value for record in records}
        through = int(latest.pop(SOURCE, None) or b"-1")
        behind = sum(record.offset > through for record in evidence.events[partition])
        if behind:
            row.note("lost", f"partition {partition} is folded through {through}: {behind} records are not", behind)
        actors = _of_actors(latest, row, partition, expectation)
        for key in actors:
            if expectation.homes.get(key[1:], partition) != partition:
                row.note(
                    "wrong",
                    f"{key.decode(errors='replace')} is in partition {partition}, and lives elsewhere",
                )
        found |= actors
    _compare_states(row, found, expectation)
    return row


def _store_row(store: StoreContents, expectation: Expectation) -> Row:
    """A store may be of a partition that has gone elsewhere since: it must be right as far as it goes."""
    row = Row(f"store {store.name}")
    found = _of_actors(dict(store.states), row, store.partition, expectation)
    _compare_states(row, found, expectation)
    if store.timers is None:
        return row
    timers = Counter((states.due_in(raw) or 0, key[1:]) for key, raw in found.items() if key.startswith(states.USER))
    for due_at, actor in (timers - Counter(store.timers)).elements():
        if due_at:
            row.note("lost", f"the timer of {actor.decode(errors='replace')}, due at {due_at}")
    for due_at, actor in (Counter(store.timers) - timers).elements():
        row.note("phantom", f"a timer of {actor.decode(errors='replace')}, due at {due_at}")
    return row


def _of_actors(
    latest: "dict[bytes, bytes | None] | dict[bytes, bytes]", row: Row, partition: int, expectation: Expectation
) -> dict[bytes, bytes]:
    """Return the states of users and quotas; look at the partition's own on the way."""
    _look_at_what_is_active(latest, row, partition, expectation)
    clock = latest.get(states.PARTITION)
    if states.decode_clock(clock) != expectation.clocks.get(partition, 0):
        row.note("wrong", f"the clock of partition {partition}")
    kept = (states.USER, states.SEEN)
    return {key: raw for key, raw in latest.items() if raw and key.startswith(kept) and not _is_campaign(key)}


def _look_at_what_is_active(
    latest: "dict[bytes, bytes | None] | dict[bytes, bytes]", row: Row, partition: int, expectation: Expectation
) -> None:
    """Which versions were activated, and what operators have said about journeys."""
    wanted: dict[bytes, object] = {
        states.ACTIVE + slot.encode(): activations for slot, activations in expectation.activations[partition].items()
    }
    for (tenant, journey), control in expectation.catalogs[partition].controls.items():
        wanted[states.CONTROL + f"{tenant}/{journey}".encode()] = control
    decoders = {states.ACTIVE: states.decode_activations, states.CONTROL: states.decode_control}
    for key in wanted:
        if not latest.get(key):
            row.note("lost", f"{key.decode(errors='replace')} of partition {partition}")
    for key, raw in latest.items():
        decode = decoders.get(key[:1])
        if decode is None or not raw:
            continue
        if key not in wanted:
            row.note("phantom", f"{key.decode(errors='replace')} of partition {partition}")
        elif decode(raw) != wanted[key]:
            row.note("wrong", f"{key.decode(errors='replace')} of partition {partition}")


def _compare_states(row: Row, found: dict[bytes, bytes], expectation: Expectation) -> None:
    wanted: set[bytes] = set()
    for key, user in expectation.users.items():
        wanted.add(states.USER + key)
        raw = found.get(states.USER + key)
        if raw is not None:
            catalog, tenant = expectation.catalogs[expectation.homes[key]], key.partition(b":")[0].decode()
            is_right = states.decode_user(raw) == user and states.due_in(raw) == earliest_due(user, catalog, tenant)
            _note_wrong(row, states.USER + key, is_right)
    for key, quota in expectation.quotas.items():
        wanted.add(states.USER + key)
        raw = found.get(states.USER + key)
        if raw is not None:
            _note_wrong(row, states.USER + key, states.decode_quota(raw) == quota)
    for key, older in expectation.older.items():
        wanted.add(states.SEEN + key)
        if states.SEEN + key in found:
            _note_wrong(row, states.SEEN + key, found[states.SEEN + key] == older)
    _count(row, Counter(wanted), Counter(found.keys()))


def _note_wrong(row: Row, key: bytes, is_right: bool) -> None:
    if not is_right:
        row.note("wrong", key.decode(errors="replace"))


def _is_campaign(key: bytes) -> bool:
    return b"/campaign:" in key.partition(b":")[0] + b":"


def _waiting(expectation: Expectation) -> int:
    """How many runs go on: a later look would find more. A suspended one waits for an operator."""
    return sum(not run.suspended for user in expectation.users.values() for run in user.runs)


# Counting


def _count(row: Row, wanted: Counter[T], found: Counter[T], phantoms: bool = True) -> None:
    row.expected += wanted.total()
    row.found += found.total()
    for each, times in (wanted - found).items():
        row.note("lost", _shown(each), times)
    for each, times in (found - wanted).items():
        if each in wanted:
            row.note("duplicated", _shown(each), times)
        elif phantoms:
            row.note("phantom", _shown(each), times)


def _shown(each: object) -> str:
    parts = each if isinstance(each, tuple) else (each,)
    return " ".join(part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in parts)


def _each(records: Records) -> Iterator[tuple[int, Record]]:
    return ((number, record) for number, each in sorted(records.items()) for record in each)
