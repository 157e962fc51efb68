"""How inputs, outputs and states look on the wire, and that they come back as they went."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.definitions import Definition
from schemas.inputs import Activated, Event, Input, Receipt, Resumed, WakeUp
from schemas.outputs import JournalEntry, Message, Suppression
from schemas.records import NewRecord, Record
from schemas.state import OpenGoal, Run, Sent, User

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False), texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)
mappings = st.dictionaries(texts, values, max_size=4)
instants = st.integers(0, 1 << 45)

events = st.builds(Event, texts, texts, instants, mappings, mappings)
receipts = st.builds(Receipt, texts, st.sampled_from(["accepted", "clicked", "unknown"]), instants, texts, texts)
inputs = st.one_of(
    events,
    receipts,
    st.builds(WakeUp, instants),
    st.builds(Resumed, texts),
    st.builds(Activated, texts, st.just("journey"), texts, st.integers(1, 999), texts),
)
sends = st.dictionaries(texts, st.builds(Sent, st.integers(1, 99), st.lists(texts, max_size=3).map(tuple)), max_size=2)
runs = st.builds(
    Run,
    id=texts,
    journey=texts,
    version=st.integers(1, 999),
    step=texts,
    visit=st.integers(0, 999),
    entered_at=instants,
    arrived_at=instants,
    due_at=st.one_of(st.none(), instants),
    key=st.one_of(st.none(), texts),
    event=mappings,
    sends=sends,
    suspended=texts,
)
goals = st.builds(OpenGoal, texts, texts, st.integers(1, 99), instants, st.one_of(st.none(), texts))
users = st.builds(
    User,
    mappings,
    st.lists(runs, max_size=2).map(tuple),
    st.dictionaries(texts, instants, max_size=2),
    st.lists(goals, max_size=2).map(tuple),
    st.binary(max_size=24),
    st.booleans(),
)


@given(inputs.filter(lambda given: not _has_infinity(given)))
def test_every_input_comes_back_from_json_as_its_own_kind(given_input: Input) -> None:
    assert msgspec.json.decode(msgspec.json.encode(given_input), type=Input) == given_input


def _has_infinity(given: Input) -> bool:
    """JSON has none; what comes over HTTP or from a producer cannot either."""
    return isinstance(given, Event) and "inf" in repr((given.properties, given.profile))


@given(users)
def test_a_state_comes_back_from_msgpack_as_it_was(user: User) -> None:
    encoded = msgspec.msgpack.encode(user)
    back = msgspec.msgpack.decode(encoded, type=User)
    assert back == user
    assert msgspec.msgpack.encode(back) == encoded


def test_what_a_producer_writes_is_a_plain_json_object() -> None:
    body = b'{"type":"event","id":"m1","name":"order_placed","occurred_at":1767600000000,"properties":{"total":5}}'
    event = msgspec.json.decode(body, type=Input)
    assert event == Event("m1", "order_placed", 1_767_600_000_000, {"total": 5})
    assert msgspec.json.encode(event) == body


@pytest.mark.parametrize(
    ("input", "written"),
    [
        (
            Event("m1", "identify", 5, {}, {"plan": None}),
            {"type": "event", "id": "m1", "name": "identify", "occurred_at": 5, "profile": {"plan": None}},
        ),
        (
            Receipt("run:1", "clicked", 5, "email"),
            {"type": "receipt", "message": "run:1", "status": "clicked", "occurred_at": 5, "channel": "email"},
        ),
        (WakeUp(5), {"type": "wake_up", "due_at": 5}),
        (Resumed("run"), {"type": "resumed", "run": "run"}),
        (
            Activated("shop", "journey", "cart", 3, "abc"),
            {"type": "activated", "tenant": "shop", "kind": "journey", "name": "cart", "version": 3, "hash": "abc"},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_names_on_the_wire_stay_as_they_are(input: Input, written: dict[str, object]) -> None:
    """Logs of years hold them: another name here needs another kind."""
    assert msgspec.json.decode(msgspec.json.encode(input)) == written
    assert msgspec.json.decode(msgspec.json.encode(written), type=Input) == input


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"type":"event"}',
        b'{"type":"unheard"}',
        b'{"type":"event","id":1,"name":"a","occurred_at":1}',
        b'{"type":"event","id":"a","name":"a","occurred_at":1.5}',
        b'{"type":"event","id":"a","name":"a","occurred_at":1,"properties":[]}',
        b'{"type":"event","id":"a","name":"a","occurred_at":NaN}',
        b'{"type":"receipt","message":"a","status":"read","occurred_at":1,"channel":"email"}',
    ],
)
def test_what_is_no_input_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        msgspec.json.decode(body, type=Input)


def test_fields_that_later_versions_add_do_not_disturb() -> None:
    body = b'{"type":"wake_up","due_at":5,"since":"version 2"}'
    assert msgspec.json.decode(body, type=Input) == WakeUp(5)
    more = msgspec.msgpack.encode([*msgspec.msgpack.decode(msgspec.msgpack.encode(User())), "a field more"])
    assert msgspec.msgpack.decode(more, type=User) == User()


def test_a_state_written_before_a_field_was_added_is_read_with_its_default() -> None:
    fewer = msgspec.msgpack.encode([{"plan": "paid"}, [], {"cart": 5}])
    assert msgspec.msgpack.decode(fewer, type=User) == User({"plan": "paid"}, (), {"cart": 5})


def test_the_state_of_somebody_who_waits_is_small() -> None:
    run = Run("cart_abandonment.3.abcdefghijklmnop", "cart_abandonment", 3, "cooldown", 1, 1 << 40, 1 << 40, 1 << 40)
    assert len(msgspec.msgpack.encode(run)) < 120


@pytest.mark.parametrize(
    ("definition", "key"),
    [
        (Definition("shop", "journey", "cart", 3, "ab" * 32, msgspec.Raw(b"{}")), "shop/journey/cart@3"),
        (Definition("shop", "template", "hello", 0, "ab" * 32, msgspec.Raw(b"{}")), "shop/template/hello@abababababab"),
    ],
)
def test_a_definition_is_kept_under_its_version_and_a_template_under_its_hash(definition: Definition, key: str) -> None:
    assert definition.key == key


def test_outputs_leave_out_what_has_its_default() -> None:
    entry = JournalEntry("step", 5, "shop", "ann", "timer", "cart", 3, "run", "remind")
    assert msgspec.json.decode(msgspec.json.encode(entry)) == {
        "kind": "step",
        "at": 5,
        "tenant": "shop",
        "user": "ann",
        "cause": "timer",
        "journey": "cart",
        "version": 3,
        "run": "run",
        "step": "remind",
    }
    message = Message("r:1", "shop", "ann", "email", "a@b.c", "hello@abc", "cart", 3, "remind", "r", 5, 6)
    written = msgspec.json.encode(message)
    assert b"profile" not in written
    assert msgspec.json.decode(written, type=Message) == message
    assert msgspec.json.encode(Suppression("all", 5)) == b'{"scope":"all","at":5}'


def test_a_record_that_was_read_and_one_to_write_name_what_they_hold() -> None:
    assert Record(1, 2, b"key", b"value").headers == ()
    assert NewRecord("events", b"key", None).partition is None
