"""Whoever corrupts any of what the verifier looks at is found out; what the loop has written is found to be right."""

import json
from collections.abc import Callable
from copy import deepcopy

import msgspec
import pytest

from engine.catalog import Control
from engine.runtime import states
from engine.runtime.kafka.partition_store import SOURCE
from schemas.inputs import Receipt
from schemas.outputs import Message
from schemas.records import Record
from tests.runtime.stage import Stage
from tests.runtime.trial_journeys import basket, greeting, loyalty, poison, queue
from tests.verify.comparison import verify
from tests.verify.evidence import Delivery, Evidence, StoreContents, read_ledger
from tests.verify.rows import Fault, Row, Verdict

HOUR = 3_600_000


async def shop() -> Stage:
    """A shop after a busy day: greetings, reminders, a throttled queue, a suspended run, rubbish."""
    stage = Stage()
    for journey in (greeting(), basket(), loyalty(), queue(), poison()):
        stage.publish(journey)
    for user in ("ada", "ben", "cyd"):
        stage.event(user, "signed_up", id=f"s-{user}")
        stage.event(user, "signed_up", id=f"s-{user}")
        stage.event(user, "basket_filled", basket="b1")
        for _ in range(3):
            stage.event(user, "bought", basket="b1", total=20)
    stage.put(b"shop:ada", b"{rubbish")
    await stage.play()
    for message in stage.messages():
        stage.give(message.user, Receipt(message.id, "accepted", stage.log.now, message.channel))
    stage.event("dan", "basket_filled", basket="b2")
    for _ in range(3):
        stage.pass_time(HOUR)
        stage.wake_the_due()
        await stage.play()
    stage.event("eve", "signed_up")
    await stage.play()
    return stage


def evidence_of(stage: Stage) -> Evidence:
    """What a Kafka cluster would hold after the same."""
    log = stage.log

    def of(topic: str) -> dict[int, list[Record]]:
        return {0: list(log.of(topic, 0))}

    changes = [*stage.host.states.values.items(), (SOURCE, b"%d" % stage.host.position)]
    timers = [(due_at, actor) for actor, due_at in stage.host.timers.items()]
    commands = of("messages.inapp")
    return Evidence(
        definitions={each.key: each for each in stage.definitions.all()},
        partitions=1,
        events=of("events"),
        commands={"inapp": commands},
        journal=of("journal"),
        set_aside={topic: of(topic) for topic in ("events.invalid", "dead-letters")},
        changelog={0: [Record(at, log.now, key, value) for at, (key, value) in enumerate(changes)]},
        stores=[StoreContents("one/users/0", 0, stage.host.position, dict(stage.host.states.values), timers)],
        ledgers={"inapp": [Delivery(message_of(record).id, record.timestamp + 5) for record in commands[0]]},
    )


def message_of(record: Record) -> Message:
    return msgspec.json.decode(record.value or b"", type=Message)


async def test_what_the_loop_has_written_is_found_to_be_right() -> None:
    stage = await shop()
    verdict = verify(evidence_of(stage))
    assert verdict.is_clean, verdict.table()
    assert verdict.waiting > 0
    rows = {row.name: row for row in verdict.rows}
    assert rows["commands inapp"].expected == rows["commands inapp"].found == len(stage.messages()) > 10
    assert rows["inputs sent on"].expected > 10  # questions, answers, entries
    assert rows["set aside"].expected == 1
    assert all(row.expected for row in verdict.rows)
    assert "clean" in verdict.table()
    assert json.loads(json.dumps(verdict.as_json()))["clean"] is True


def drop_a_command(evidence: Evidence) -> None:
    del evidence.commands["inapp"][0][3]


def double_a_command(evidence: Evidence) -> None:
    commands = evidence.commands["inapp"][0]
    commands.append(commands[2])


def make_up_a_command(evidence: Evidence) -> None:
    commands = evidence.commands["inapp"][0]
    invented = msgspec.structs.replace(message_of(commands[0]), id="made:up")
    commands.append(msgspec.structs.replace(commands[0], value=msgspec.json.encode(invented)))


def make_up_a_command_elsewhere(evidence: Evidence) -> None:
    evidence.commands["email"] = {0: evidence.commands["inapp"][0][:1]}


def address_a_command_to_another(evidence: Evidence) -> None:
    commands = evidence.commands["inapp"][0]
    changed = msgspec.structs.replace(message_of(commands[1]), address="somebody.else@shop.test")
    commands[1] = msgspec.structs.replace(commands[1], value=msgspec.json.encode(changed))


def swap_two_commands(evidence: Evidence) -> None:
    commands = evidence.commands["inapp"][0]
    commands[0], commands[1] = commands[1], commands[0]


def date_a_command_back(evidence: Evidence) -> None:
    """As if it had been written before the record that it comes from."""
    commands = evidence.commands["inapp"][0]
    commands[-1] = msgspec.structs.replace(commands[-1], timestamp=commands[-1].timestamp - 1)


def send_before_the_wait_is_over(evidence: Evidence) -> None:
    """A goodbye an hour too soon: nothing in the log says yet that its time has come."""
    commands = evidence.commands["inapp"][0]
    greeted = next(each for each in commands if (message_of(each).user, message_of(each).step) == ("eve", "greet"))
    message = message_of(greeted)
    goodbye = msgspec.structs.replace(message, id=f"{message.run}:3", step="part")
    commands.append(msgspec.structs.replace(greeted, value=msgspec.json.encode(goodbye)))


def drop_a_journal_record(evidence: Evidence) -> None:
    del evidence.journal[0][5]


def double_a_journal_record(evidence: Evidence) -> None:
    evidence.journal[0].append(evidence.journal[0][5])


def empty_a_journal_record(evidence: Evidence) -> None:
    rewrite(evidence, 5, [])


def drop_a_journal_entry(evidence: Evidence) -> None:
    at, lines = where_several_are_told(evidence)
    rewrite(evidence, at, lines[:1] + lines[2:])


def double_a_journal_entry(evidence: Evidence) -> None:
    at, lines = where_several_are_told(evidence)
    rewrite(evidence, at, [*lines, lines[1]])


def alter_a_journal_entry(evidence: Evidence) -> None:
    at, lines = where_several_are_told(evidence)
    rewrite(evidence, at, [*lines[:-1], lines[-1].replace(b'"user":"', b'"user":"x')])


def swap_two_entries_of_a_record(evidence: Evidence) -> None:
    at, (first, second, *rest) = where_several_are_told(evidence)
    rewrite(evidence, at, [second, first, *rest])


def tell_an_entry_in_the_record_of_another_user(evidence: Evidence) -> None:
    """All is there once and in order; only who asks for the one user's records finds what the other did."""
    records = evidence.journal[0]
    at = next(at for at in range(len(records)) if records[at].key != records[at + 1].key)
    *lines, moved = (records[at].value or b"").split(b"\n")
    rewrite(evidence, at, lines)
    rewrite(evidence, at + 1, [moved, records[at + 1].value or b""])


def where_several_are_told(evidence: Evidence) -> tuple[int, list[bytes]]:
    """Return (which record of the journal has more than two entries, its lines)."""
    told = [(record.value or b"").split(b"\n") for record in evidence.journal[0]]
    return next((at, lines) for at, lines in enumerate(told) if len(lines) > 2)


def rewrite(evidence: Evidence, at: int, lines: list[bytes]) -> None:
    records = evidence.journal[0]
    records[at] = msgspec.structs.replace(records[at], value=b"\n".join(lines))


def drop_an_event(evidence: Evidence) -> None:
    """The log itself: then everything that came of it is there for no reason."""
    events = evidence.events[0]
    events.remove(next(record for record in events if b'"signed_up"' in (record.value or b"")))
    events.remove(next(record for record in events if b'"signed_up"' in (record.value or b"")))


def drop_an_answer(evidence: Evidence) -> None:
    events = evidence.events[0]
    events.remove(next(record for record in reversed(events) if b'"granted"' in (record.value or b"")))


def double_a_question(evidence: Evidence) -> None:
    events = evidence.events[0]
    events.append(next(record for record in events if b'"asked"' in (record.value or b"")))


def drop_what_was_set_aside(evidence: Evidence) -> None:
    evidence.set_aside["events.invalid"][0].clear()


def set_aside_what_was_sound(evidence: Evidence) -> None:
    parked = evidence.set_aside["events.invalid"][0][0]
    headers = tuple((name, b"1" if name == "dlq-offset" else value) for name, value in parked.headers)
    evidence.set_aside["dead-letters"][0].append(msgspec.structs.replace(parked, headers=headers))


def state_key(user: str) -> bytes:
    return states.USER + f"shop:{user}".encode()


def change(records: list[Record], key: bytes, value: bytes | None) -> None:
    records[:] = [msgspec.structs.replace(each, value=value) if each.key == key else each for each in records]


def alter_a_state(evidence: Evidence) -> None:
    records = evidence.changelog[0]
    raw = next(record.value for record in records if record.key == state_key("ada"))
    assert raw is not None
    user = msgspec.structs.replace(states.decode_user(raw), profile={"plan": "gold"})
    change(records, state_key("ada"), states.encode_actor(user, states.due_in(raw)))


def alter_a_timer(evidence: Evidence) -> None:
    """The state is right; the time in front of it, by which its user is woken, isn't."""
    records = evidence.changelog[0]
    raw = next(record.value for record in records if record.key == state_key("eve"))
    assert raw is not None
    change(records, state_key("eve"), states.encode_actor(states.decode_user(raw), None))


def delete_a_state(evidence: Evidence) -> None:
    change(evidence.changelog[0], state_key("ben"), None)


def make_up_a_state(evidence: Evidence) -> None:
    records = evidence.changelog[0]
    raw = next(record.value for record in records if record.key == state_key("ben"))
    records.append(Record(len(records), 0, state_key("nobody"), raw))


def alter_a_quota(evidence: Evidence) -> None:
    records = evidence.changelog[0]
    key = next(record.key for record in records if b"/quota:" in (record.key or b""))
    other = next(record.value for record in records if b"/quota:" in (record.key or b"") and record.key != key)
    assert key is not None
    change(records, key, other)


def put_back_the_clock(evidence: Evidence) -> None:
    change(evidence.changelog[0], states.PARTITION, states.encode_clock(1))


def put_back_the_stamp(evidence: Evidence) -> None:
    change(evidence.changelog[0], SOURCE, b"3")


def move_a_state_to_another_partition(evidence: Evidence) -> None:
    evidence.events[1] = []
    evidence.changelog[1] = [each for each in evidence.changelog[0] if each.key == state_key("ada")]
    evidence.changelog[0] = [each for each in evidence.changelog[0] if each.key != state_key("ada")]


def make_up_what_was_seen(evidence: Evidence) -> None:
    """Ids that nobody has sent would be taken for repeated."""
    evidence.changelog[0].append(Record(99, 0, states.SEEN + b"shop:ada", b"\x01" * 12))


def forget_a_version(evidence: Evidence) -> None:
    change(evidence.changelog[0], states.ACTIVE + b"shop/journey/basket", None)


def activate_another_version(evidence: Evidence) -> None:
    key = states.ACTIVE + b"shop/journey/basket"
    change(evidence.changelog[0], key, states.encode_activations([states.Activation(2, "made up")]))


def make_up_a_version(evidence: Evidence) -> None:
    raw = states.encode_activations([states.Activation(1, "made up")])
    evidence.changelog[0].append(Record(99, 0, states.ACTIVE + b"shop/journey/nobodys", raw))


def make_up_an_operators_word(evidence: Evidence) -> None:
    evidence.changelog[0].append(Record(99, 0, states.CONTROL + b"shop/greeting", states.encode_control(Control(1))))


def make_up_a_state_in_a_store(evidence: Evidence) -> None:
    kept = evidence.stores[0].states
    kept[state_key("nobody")] = kept[state_key("ben")]


def put_back_the_clock_of_a_store(evidence: Evidence) -> None:
    evidence.stores[0].states[states.PARTITION] = states.encode_clock(1)


def put_back_the_stamp_of_a_store(evidence: Evidence) -> None:
    """It would fold the last records once more."""
    evidence.stores[0].through -= 3


def forget_a_version_in_a_store(evidence: Evidence) -> None:
    del evidence.stores[0].states[states.ACTIVE + b"shop/journey/basket"]


def put_off_a_timer_in_a_store(evidence: Evidence) -> None:
    (due_at, actor), *rest = timers_of(evidence)
    evidence.stores[0].timers = [(due_at + HOUR, actor), *rest]


def timers_of(evidence: Evidence) -> list[tuple[int, bytes]]:
    timers = evidence.stores[0].timers
    assert timers is not None
    return timers


def damage_a_store(evidence: Evidence) -> None:
    """Beyond reading. The other owner's is sound."""
    sound = deepcopy(evidence.stores[0])
    sound.name = "two/users/0"
    evidence.stores.append(sound)
    evidence.stores[0].unreadable = "Corruption: block checksum mismatch"


def alter_the_store_of_an_earlier_owner(evidence: Evidence) -> None:
    earlier = deepcopy(evidence.stores[0])
    earlier.name = "two/users/0"
    earlier.states[state_key("ada")] = earlier.states[state_key("ben")]
    evidence.stores.append(earlier)


def alter_a_store(evidence: Evidence) -> None:
    kept = evidence.stores[0].states
    kept[state_key("ada")] = kept[state_key("ben")]


def drop_a_state_from_a_store(evidence: Evidence) -> None:
    del evidence.stores[0].states[state_key("ada")]


def drop_a_timer_from_a_store(evidence: Evidence) -> None:
    timers_of(evidence).pop()


def make_up_a_timer_in_a_store(evidence: Evidence) -> None:
    timers_of(evidence).append((1, b"shop:ada"))


def drop_a_delivery(evidence: Evidence) -> None:
    evidence.ledgers["inapp"].pop()


def double_a_delivery(evidence: Evidence) -> None:
    evidence.ledgers["inapp"].append(evidence.ledgers["inapp"][0])


def make_up_a_delivery(evidence: Evidence) -> None:
    evidence.ledgers["inapp"].append(Delivery("made:up", 0))


def deliver_before_it_was_asked_for(evidence: Evidence) -> None:
    last = evidence.ledgers["inapp"].pop()
    evidence.ledgers["inapp"].append(Delivery(last.id, last.at - HOUR))


CORRUPTIONS: list[tuple[Callable[[Evidence], None], str, Fault]] = [
    (drop_a_command, "commands inapp", "lost"),
    (double_a_command, "commands inapp", "duplicated"),
    (make_up_a_command, "commands inapp", "phantom"),
    (make_up_a_command_elsewhere, "commands email", "phantom"),
    (address_a_command_to_another, "commands inapp", "wrong"),
    (swap_two_commands, "commands inapp", "wrong"),
    (date_a_command_back, "commands inapp", "early"),
    (send_before_the_wait_is_over, "commands inapp", "early"),
    (drop_a_journal_record, "journal", "lost"),
    (double_a_journal_record, "journal", "duplicated"),
    (empty_a_journal_record, "journal", "lost"),
    (drop_a_journal_entry, "journal", "lost"),
    (double_a_journal_entry, "journal", "duplicated"),
    (alter_a_journal_entry, "journal", "phantom"),
    (swap_two_entries_of_a_record, "journal", "wrong"),
    (tell_an_entry_in_the_record_of_another_user, "journal", "wrong"),
    (drop_an_event, "commands inapp", "phantom"),
    (drop_an_answer, "inputs sent on", "lost"),
    (double_a_question, "inputs sent on", "duplicated"),
    (drop_what_was_set_aside, "set aside", "lost"),
    (set_aside_what_was_sound, "set aside", "phantom"),
    (alter_a_state, "states, changelog", "wrong"),
    (alter_a_timer, "states, changelog", "wrong"),
    (delete_a_state, "states, changelog", "lost"),
    (make_up_a_state, "states, changelog", "phantom"),
    (alter_a_quota, "states, changelog", "wrong"),
    (put_back_the_clock, "states, changelog", "wrong"),
    (put_back_the_stamp, "states, changelog", "lost"),
    (move_a_state_to_another_partition, "states, changelog", "wrong"),
    (make_up_what_was_seen, "states, changelog", "phantom"),
    (forget_a_version, "states, changelog", "lost"),
    (activate_another_version, "states, changelog", "wrong"),
    (make_up_a_version, "states, changelog", "phantom"),
    (make_up_an_operators_word, "states, changelog", "phantom"),
    (alter_a_store, "store one/users/0", "wrong"),
    (make_up_a_state_in_a_store, "store one/users/0", "phantom"),
    (put_back_the_clock_of_a_store, "store one/users/0", "wrong"),
    (put_back_the_stamp_of_a_store, "store one/users/0", "wrong"),
    (forget_a_version_in_a_store, "store one/users/0", "lost"),
    (put_off_a_timer_in_a_store, "store one/users/0", "lost"),
    (damage_a_store, "store one/users/0", "wrong"),
    (alter_the_store_of_an_earlier_owner, "store two/users/0", "wrong"),
    (drop_a_state_from_a_store, "store one/users/0", "lost"),
    (drop_a_timer_from_a_store, "store one/users/0", "lost"),
    (make_up_a_timer_in_a_store, "store one/users/0", "phantom"),
    (drop_a_delivery, "ledger inapp", "lost"),
    (double_a_delivery, "ledger inapp", "duplicated"),
    (make_up_a_delivery, "ledger inapp", "phantom"),
    (deliver_before_it_was_asked_for, "ledger inapp", "early"),
]


@pytest.mark.parametrize(("corrupt", "name", "fault"), CORRUPTIONS, ids=[each.__name__ for each, _, _ in CORRUPTIONS])
async def test_a_corruption_is_told(corrupt: Callable[[Evidence], None], name: str, fault: Fault) -> None:
    evidence = evidence_of(await shop())
    corrupt(evidence)
    verdict = verify(evidence)
    assert row_of(verdict, name).counts[fault], verdict.table()
    assert any(note.startswith(fault) for note in row_of(verdict, name).notes)
    assert "NOT CLEAN" in verdict.table()


async def test_a_store_that_is_behind_is_right_as_far_as_it_goes() -> None:
    stage = Stage()
    stage.publish(greeting())
    stage.event("ada", "signed_up")
    await stage.play()
    behind = deepcopy(evidence_of(stage).stores[0])
    stage.pass_time(2 * HOUR)
    stage.wake_the_due()
    await stage.play()
    evidence = evidence_of(stage)
    evidence.stores.append(behind)
    assert verify(evidence).is_clean
    behind.through += 1
    assert not verify(evidence).is_clean


async def test_a_store_whose_index_of_timers_is_not_made_yet_is_right() -> None:
    """Its worker died, or lost the partition, while it recovered: whoever opens it next makes the index first."""
    evidence = evidence_of(await shop())
    evidence.stores[0].timers = None
    assert verify(evidence).is_clean


async def test_a_delivery_whose_answer_was_lost_may_have_come_twice_and_a_message_kept_back_not_at_all() -> None:
    stage = await shop()
    first, second = stage.messages()[:2]
    stage.give(first.user, Receipt(first.id, "unknown", stage.log.now, "inapp"))
    stage.give(second.user, Receipt(second.id, "dropped", stage.log.now, "inapp"))
    await stage.play()
    evidence = evidence_of(stage)
    twice, *rest = evidence.ledgers["inapp"]
    evidence.ledgers["inapp"] = [twice, twice, *(each for each in rest if each.id != second.id)]
    assert verify(evidence).is_clean


def test_a_ledger_is_read_line_by_line() -> None:
    assert read_ledger(['{"id": "a:1", "at": 5}\n', "\n", '{"id": "b:1", "at": 6, "more": true}\n']) == [
        Delivery("a:1", 5),
        Delivery("b:1", 6),
    ]


def row_of(verdict: Verdict, name: str) -> Row:
    return next(row for row in verdict.rows if row.name == name)
