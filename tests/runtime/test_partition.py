"""What the loop does with records: sound ones, invalid ones, and those of other partitions."""

from dataclasses import replace

import msgspec
import pytest

from engine.runtime import states
from engine.runtime.host import PartitionStopped
from engine.turn import MAX_FIRINGS
from schemas.inputs import Activated, Event, Receipt, Resumed
from schemas.journal import MOST_BYTES, read_entries
from schemas.records import Headers
from tests.runtime.stage import Stage
from tests.runtime.trial_journeys import basket, greeting, loyalty, metronome, queue

HOUR = 3_600_000
SOUND = b'{"type":"event","id":"e1","name":"signed_up","occurred_at":1,"profile":{"plan":"free"}}'


def nested(levels: int) -> bytes:
    return SOUND.replace(b'"free"', b"[" * (levels - 1) + b"]" * (levels - 1))


async def test_an_event_moves_its_user_and_nobody_else() -> None:
    stage = Stage()
    stage.publish(greeting())
    stage.event("ada", "signed_up")
    stage.event("ben", "looked_around", profile={"plan": "free"})
    await stage.play()
    assert stage.sent("ada") == ["hello"]
    assert stage.step("ada") == "pause"
    assert stage.user("ben").profile == {"plan": "free"}
    assert stage.sent("ben") == []


@pytest.mark.parametrize(
    ("key", "value", "headers", "reason"),
    [
        (b"shop:ada", b"{not json", (), "not an input"),
        (b"shop:ada", b"[]", (), "not an input"),
        (b"shop:ada", b'{"type":"event","name":"n","occurred_at":1}', (), "missing required field `id`"),
        (b"shop:ada", b'{"type":"teapot"}', (), "Invalid value 'teapot'"),
        (b"shop:ada", SOUND.replace(b"free", b"\xff"), (), "not an input"),
        (b"shop:ada", SOUND.replace(b"free", b"\\ud800"), (), "not an input"),
        (b"shop:ada", SOUND.replace(b'"free"', b"NaN"), (), "not an input"),
        (b"shop:ada", SOUND.replace(b'"free"', b"1" * 5000), (), "not an input"),
        (b"shop:ada", SOUND.replace(b'"free"', b"1" * 100), (), "a number beyond 64 bits"),
        (b"shop:ada", SOUND.replace(b'"e1"', b'""'), (), "an id and a name, each of 1 to 256"),
        (b"shop:ada", SOUND.replace(b"e1", b"e" * 257), (), "an id and a name, each of 1 to 256"),
        (b"shop:ada", SOUND.replace(b"signed_up", b"s" * 257), (), "an id and a name, each of 1 to 256"),
        (b"shop:ada", SOUND.replace(b"free", b"f" * 140_000), (), "131072 is the limit"),
        (b"shop:ada", SOUND.replace(b"free", b"f" * 70_000), (), "the profile would take"),
        (b"shop:ada", nested(70), (), "deeper than 64 levels"),
        (b"shop:ada", nested(10_000), (), "deeper than 64 levels"),
        (b"shop:ada", None, (), "the record has no value"),
        (b"shop", SOUND, (), "the key is not tenant:user"),
        (b"shop:", SOUND, (), "the key is not tenant:user"),
        (b":ada", SOUND, (), "the key is not tenant:user"),
        (b"Shop:ada", SOUND, (), "the key is not tenant:user"),
        (b"shop:" + b"a" * 508, SOUND, (), "the key is not tenant:user"),
        (b"shop:\xff", SOUND, (), "not UTF-8"),
        (b"shop:ada", SOUND, (("tenant", b"other"),), "another tenant"),
        (None, SOUND, (), "nobody's"),
        (None, None, (), "the record has no value"),
        (b"shop:ada", msgspec.json.encode(Activated("shop", "journey", "j", 1, "0")), (), "it has no key"),
    ],
)
async def test_an_invalid_record_is_set_aside_with_its_reason_and_harms_no_neighbour(
    key: bytes | None, value: bytes | None, headers: Headers, reason: str
) -> None:
    stage = Stage()
    stage.publish(greeting())
    stage.event("eve", "signed_up")
    bad = stage.put(key, value, headers)
    stage.event("zoe", "signed_up")
    await stage.play()
    [parked] = stage.log.of("events.invalid")
    assert reason in stage.reason(parked)
    told = dict(parked.headers)
    assert (parked.key, told["dlq-offset"], told["dlq-topic"]) == (key, str(bad.offset).encode(), b"events")
    assert parked.value == (value or b"")
    assert stage.sent() == ["hello", "hello"]
    assert not stage.log.of("dead-letters")
    assert stage.user("ada").profile == {}


async def test_what_is_just_within_the_limits_is_folded() -> None:
    stage = Stage()
    stage.put(b"shop:ada", nested(63))
    stage.put(b"shop:" + b"u" * 507, SOUND.replace(b"e1", b"e" * 256).replace(b"signed_up", b"s" * 256))
    stage.put(b"shop:ben", SOUND, (("tenant", b"shop"),))
    stage.put(b"shop:cleo", SOUND.replace(b'"free"', b"[" + b"[]," * 200 + b"[]]"))
    await stage.play()
    assert not stage.log.of("events.invalid")
    assert stage.user("u" * 507).profile == {"plan": "free"}
    assert stage.user("ben").profile == {"plan": "free"}


async def test_a_record_with_the_wrong_partitioner_is_forwarded_and_handled_once() -> None:
    log_of_two = Stage(count=2, number=0)
    other = next(name for name in "abcdefgh" if log_of_two.log.partition_for(f"shop:{name}".encode()) == 1)
    log_of_two.put(f"shop:{other}".encode(), SOUND, (("traceparent", b"00-" + b"1" * 49 + b"-01"),))
    await log_of_two.play()
    [forwarded] = log_of_two.log.of("events", 1)
    assert (forwarded.key, forwarded.value) == (f"shop:{other}".encode(), SOUND)
    assert dict(forwarded.headers).keys() == {"traceparent"}
    assert log_of_two.user(other).profile == {}


async def test_a_user_who_is_in_the_wrong_partition_already_stays_there() -> None:
    """Their past would be lost otherwise: nobody moves a state."""
    stage = Stage(count=1)
    stage.put(b"shop:ada", SOUND)
    await stage.play()
    stage.log.count = stage.host.count = 64
    stage.put(b"shop:ada", SOUND.replace(b"e1", b"e2").replace(b"free", b"gold"))
    await stage.play()
    assert stage.user("ada").profile == {"plan": "gold"}


async def test_an_order_that_moves_a_run_is_told_in_one_record() -> None:
    """What one input did to one user, journey by journey, in the order in which it happened."""
    stage = Stage()
    for journey in (basket(), loyalty(), queue()):
        stage.publish(journey)
    stage.event("ada", "basket_filled", basket="b1")
    stage.event("ben", "basket_filled", basket="b1")
    stage.event("ada", "bought", id="order", basket="b1", total=60)
    await stage.play()
    told = [(record.key, read_entries(record.value)) for record in stage.log.of("journal")]
    [(key, entries)] = [each for each in told if each[1][0].cause == "event bought #order"]
    assert key == b"shop:ada"
    assert [(entry.kind, entry.journey, entry.step) for entry in entries] == [
        ("goal", "basket", ""),
        ("exited", "basket", "pause"),
        ("entered", "loyalty", ""),
        ("step", "loyalty", "often"),
        ("step", "loyalty", "tell"),
        ("step", "loyalty", "queue"),
        ("step", "loyalty", "done"),
        ("exited", "loyalty", "done"),
    ]
    assert all(key == f"shop:{entry.user}".encode() for key, entries in told for entry in entries)
    assert all(len({entry.cause for entry in entries}) == 1 for _, entries in told)


async def test_an_input_that_does_nothing_worth_telling_writes_no_record() -> None:
    stage = Stage()
    stage.publish(greeting())
    stage.event("ada", "looked_around")
    await stage.play()
    assert stage.counted("inputs_folded", topic="events", kind="event") == 1
    assert not stage.log.of("journal")


async def test_who_slept_through_thousands_of_timers_is_told_of_in_records_that_a_topic_takes() -> None:
    stage = Stage()
    names = ("tick", "tack")
    for name in names:
        stage.publish(replace(metronome(), name=name))
    stage.event("ada", "signed_up")
    await stage.play()
    before = len(stage.log.of("journal"))
    stage.pass_time(HOUR)
    stage.event("ada", "looked")
    await stage.play()
    records = stage.log.of("journal")[before:]
    assert len(records) == 2
    assert all(len(record.value or b"") <= MOST_BYTES for record in records)
    entries = [entry for record in records for entry in read_entries(record.value)]
    for name in names:
        steps = [entry.step for entry in entries if entry.journey == name and entry.kind == "step"]
        assert steps == ["tock", "tick"] * (MAX_FIRINGS // 2)
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)


async def test_headers_and_the_trace_are_carried_to_what_leaves() -> None:
    stage = Stage()
    stage.publish(greeting())
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    stage.event("ada", "signed_up", headers=(("traceparent", trace), ("tenant", b"shop"), ("secret", b"x")))
    await stage.play()
    for topic, type in (("messages.inapp", b"application/json"), ("journal", b"application/x-ndjson")):
        for record in stage.log.of(topic):
            assert record.key == b"shop:ada"
            assert record.headers == (
                ("content-type", type),
                ("tenant", b"shop"),
                ("traceparent", trace),
            )


async def test_a_broken_trace_header_is_not_carried() -> None:
    stage = Stage()
    stage.publish(greeting())
    stage.event("ada", "signed_up", headers=(("traceparent", b"nonsense"),))
    await stage.play()
    [message] = stage.log.of("messages.inapp")
    assert "traceparent" not in dict(message.headers)


async def test_timers_are_told_to_the_host_as_they_are_in_the_states() -> None:
    stage = Stage()
    stage.publish(basket())
    stage.event("ada", "basket_filled", basket="b1")
    stage.event("ben", "basket_filled", basket="b2")
    stage.event("ben", "bought", basket="b2", total=5)
    stage.pass_time(1000)
    stage.event("ada", "basket_filled", basket="b3")
    await stage.play()
    assert stage.host.timers == {b"shop:ada": stage.log.now - 1000 + HOUR}
    stage.pass_time(HOUR)
    stage.wake_the_due()
    await stage.play()
    assert stage.sent("ada") == ["reminder", "reminder"]
    assert stage.host.timers == {b"shop:ada": stage.log.now - 1000 + 6 * HOUR}


async def test_the_clock_of_a_partition_never_goes_back() -> None:
    stage = Stage()
    stage.publish(greeting())
    stage.pass_time(HOUR)
    stage.event("ada", "signed_up")
    await stage.play()
    later = stage.log.now
    stage.restart()
    stage.pass_time(-HOUR // 2)
    stage.event("ben", "signed_up")
    await stage.play()
    assert stage.user("ben").runs[0].entered_at == later
    assert states.decode_clock(stage.host.store.get(states.PARTITION)) == later


async def test_an_invalid_record_moves_the_clock_like_any_other() -> None:
    stage = Stage()
    stage.pass_time(HOUR)
    stage.put(b"shop:ada", b"{")
    await stage.play()
    assert states.decode_clock(stage.host.store.get(states.PARTITION)) == stage.log.now


@pytest.mark.parametrize("key", [states.PARTITION, states.USER + b"shop:ada"])
async def test_states_of_a_later_format_are_refused_with_what_to_do(key: bytes) -> None:
    stage = Stage()
    stage.event("ada", "signed_up")
    await stage.play()
    before = dict(stage.host.states.values)
    stage.host.states.values[key] = b"\x07" + before[key][1:]
    stage.restart()
    stage.event("ada", "looked_around")
    with pytest.raises(PartitionStopped, match=r"format 7, and this version reads format 1; run the version"):
        await stage.play()
    assert stage.host.position == 0


async def test_a_duplicate_is_dropped_and_journaled_across_a_restart() -> None:
    stage = Stage()
    stage.publish(greeting())
    stage.event("ada", "signed_up", id="m1")
    await stage.play()
    stage.restart()
    stage.event("ada", "signed_up", id="m1")
    await stage.play()
    assert stage.sent() == ["hello"]
    assert [entry.reason for entry in stage.journal("dropped")] == ["duplicate"]


async def test_an_sdk_may_repeat_its_largest_batch() -> None:
    stage = Stage()
    for _ in range(2):
        for number in range(2500):
            stage.give("ada", Event(f"m{number}", "looked", stage.log.now))
        await stage.play()
        stage.restart()
    assert len(stage.journal("dropped")) == 2500
    older = stage.host.store.get(states.SEEN + b"shop:ada")
    assert older is not None
    assert stage.user("ada").has_older
    assert len(stage.user("ada").seen) + len(older) == 2500 * 12


async def test_a_receipt_or_an_operators_word_for_nobody_changes_nothing() -> None:
    stage = Stage()
    stage.give("ada", Receipt("greeting.1.aaaa:1", "opened", stage.log.now, "email"))
    stage.give("ada", Resumed("greeting.1.aaaa"))
    await stage.play()
    assert not [key for key in stage.host.states.values if key.startswith(states.USER)]
    assert [(entry.kind, entry.journey) for entry in stage.journal()] == [("receipt", "greeting")]


async def test_the_batch_says_how_far_it_reaches_and_nothing_is_folded_twice() -> None:
    stage = Stage()
    stage.users.max_records = 3
    for number in range(8):
        stage.event(f"u{number}", "looked", profile={"n": number})
    await stage.play()
    assert [batch.through for batch in stage.host.batches] == [2, 5, 7]
    assert stage.counted("inputs_folded", topic="events", kind="event") == 8


async def test_what_takes_long_to_fold_is_committed_in_parts_and_comes_to_the_same() -> None:
    """Else a group would take the partition away meanwhile, and whoever gets it begins the same batch anew."""
    stages = {seconds: Stage() for seconds in (60.0, 0.0)}
    for seconds, stage in stages.items():
        stage.users.longest_fold_seconds = seconds
        stage.publish(greeting())
        for number in range(100):
            stage.event(f"user-{number % 7}", "signed_up")
        await stage.play()
    whole, parts = stages[60.0], stages[0.0]
    assert len(whole.host.batches) < len(parts.host.batches)
    assert [batch.through for batch in parts.host.batches][:3] == [15, 31, 47]
    assert parts.host.position == whole.host.position
    assert parts.host.states.values == whole.host.states.values
    assert parts.log.of("messages.inapp") == whole.log.of("messages.inapp")
    assert parts.log.of("journal") == whole.log.of("journal")
