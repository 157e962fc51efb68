"""How journeys and templates become definitions, and that nothing is lost on the way."""

import gc
import json
from dataclasses import replace
from hashlib import sha256
from weakref import ref

import msgspec
import pytest
from hypothesis import given

from engine import Delay, Exit, Journey, JourneyError, Send, after, days, hours, on, where
from engine.definitions import MAX_BODY_BYTES, dump, freeze, freeze_template, load, thaw
from schemas.definitions import Definition
from tests.engine.generated import journeys

JOURNEY = Journey(
    name="cart",
    version=2,
    entry=on("cart_updated", where("items", ">", 0)),
    key="cart_id",
    reentry=after(days(7)),
    goal=on("order_placed", within=days(3), value="total"),
    start="pause",
    steps={
        "pause": Delay(hours(1), then="remind"),
        "remind": Send("email", template="reminder", then="again"),
        "again": Send(["push", "email"], template="again", then="done"),
        "done": Exit(),
    },
)
TEMPLATES = {"reminder": {"subject": "Hello", "html": "<p>Hello</p>", "text": ""}, "again": {"text": "Again"}}


def test_a_journey_is_frozen_with_its_templates_first() -> None:
    reminder, again, journey = freeze("shop", JOURNEY, TEMPLATES)
    assert [each.kind for each in (reminder, again, journey)] == ["template", "template", "journey"]
    assert reminder.key == f"shop/template/reminder@{reminder.hash[:12]}"
    assert journey.key == "shop/journey/cart@2"
    assert journey.hash == sha256(bytes(journey.body)).hexdigest()
    assert json.loads(bytes(reminder.body)) == {"subject": "Hello", "html": "<p>Hello</p>"}  # Empty parts are none.


def test_a_frozen_journey_names_its_templates_by_their_content() -> None:
    reminder, again, journey = freeze("shop", JOURNEY, TEMPLATES)
    assert thaw(journey).templates == {
        "reminder": f"reminder@{reminder.hash[:12]}",
        "again": f"again@{again.hash[:12]}",
    }


def test_the_same_is_frozen_to_the_same_bytes_and_a_changed_template_to_others() -> None:
    assert freeze("shop", JOURNEY, TEMPLATES) == freeze("shop", JOURNEY, TEMPLATES)
    *_, before = freeze("shop", JOURNEY, TEMPLATES)
    *_, changed = freeze("shop", JOURNEY, {**TEMPLATES, "again": {"text": "Once more"}})
    assert before.hash != changed.hash


def test_a_template_that_is_missing_is_named_with_what_to_do() -> None:
    with pytest.raises(JourneyError) as error:
        freeze("shop", JOURNEY, {"reminder": TEMPLATES["reminder"]})
    assert str(error.value) == (
        "cart v2: there is no template 'again'; put again.html and again.subject.txt into the journeys' templates folder"
    )


def test_a_definition_that_no_broker_would_take_is_refused() -> None:
    with pytest.raises(JourneyError, match=rf"the template big takes \d+ bytes; {MAX_BODY_BYTES} is the limit"):
        freeze_template("shop", "big", {"text": "x" * MAX_BODY_BYTES})


def test_a_body_that_is_not_the_published_one_is_refused() -> None:
    *_, frozen = freeze("shop", JOURNEY, TEMPLATES)
    tampered = msgspec.structs.replace(frozen, body=msgspec.Raw(bytes(frozen.body).replace(b"PT1H", b"PT9H")))
    with pytest.raises(JourneyError, match="shop/journey/cart@2: the body is not the one that was published"):
        thaw(tampered)


def test_a_definition_comes_through_the_topic_as_it_was() -> None:
    for definition in freeze("shop", JOURNEY, TEMPLATES):
        back = msgspec.json.decode(msgspec.json.encode(definition), type=Definition)
        assert (back.key, back.hash, bytes(back.body)) == (definition.key, definition.hash, bytes(definition.body))


@given(journeys())
def test_what_is_frozen_can_be_thawed_whatever_it_is(journey: Journey) -> None:
    *_, frozen = freeze("shop", journey, {"hello": {"text": "Hello"}})
    thawed = thaw(frozen)
    assert dump(thawed) == bytes(frozen.body)
    assert list(thawed.edges()) == list(journey.edges())


def test_durations_are_written_as_iso_8601() -> None:
    written = json.loads(dump(JOURNEY))
    assert written["steps"]["pause"] == {"duration": "PT1H", "then": "remind", "kind": "delay"}
    assert written["reentry"] == {"duration": "P7D", "kind": "after"}


def test_a_journey_can_be_written_by_hand_without_what_has_a_default() -> None:
    body = """{
        "name": "hello", "version": 1, "entry": {"kind": "on", "name": "signed_up"}, "start": "pause",
        "steps": {
            "pause": {"kind": "delay", "duration": "PT1H", "then": "mail"},
            "mail": {"kind": "send", "channel": ["push", "email"], "template": "hello", "then": "done"},
            "done": {"kind": "exit"}
        }
    }"""
    assert load(body) == Journey(
        name="hello",
        version=1,
        entry=on("signed_up"),
        start="pause",
        steps={
            "pause": Delay(hours(1), then="mail"),
            "mail": Send(["push", "email"], template="hello", then="done"),
            "done": Exit(),
        },
    )


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("{", "Invalid JSON: EOF while parsing an object at line 1 column 1"),
        ("[]", "Input should be an object"),
        ('{"name": "x"}', "Journey: `version` is missing; number it, from version=1 on"),
        (
            '{"name": "x", "version": 1, "entry": {"kind": "on", "name": "a"}, "start": "s", "steps": {"s": {"kind": "wait"}}}',
            "Journey: `steps.s` is of the kind 'wait', which is none; did you mean 'wait_for'?",
        ),
        (
            '{"name": "x", "version": 1, "entry": {"kind": "on", "name": "a"}, "start": "s",'
            ' "steps": {"s": {"kind": "exit", "raison": "x"}}}',
            "Journey: `steps.s.exit.raison` is nothing that it takes; did you mean 'reason'?",
        ),
        (
            '{"name": "x", "version": 1, "entry": {"kind": "on", "name": "a"}, "start": "t",'
            ' "steps": {"s": {"kind": "exit"}}}',
            "x v1: it starts at 't' (a), which is not a step; the steps are s",
        ),
    ],
)
def test_what_is_wrong_with_a_written_journey_is_said_in_one_line_with_its_place(body: str, told: str) -> None:
    with pytest.raises(JourneyError) as error:
        load(body)
    assert str(error.value) == told


def test_a_bomb_of_nested_conditions_is_refused_like_any_mistake() -> None:
    bomb = '{"kind": "not", "condition": ' * 10_000 + "{}" + "}" * 10_000
    with pytest.raises(JourneyError):
        load('{"name": "x", "version": 1, "start": "s", "steps": {"s": {"kind": "exit"}}, "entry": ' + bomb + "}")


def test_however_many_partitions_read_a_definition_it_is_in_memory_once_and_only_as_long_as_one_has_it() -> None:
    journeys = [replace(JOURNEY, version=number) for number in range(1, 301)]
    definitions = [freeze("shop", each, TEMPLATES)[-1] for each in journeys]
    first, second = ([thaw(definition) for definition in definitions] for _ in range(2))
    assert all(one is other for one, other in zip(first, second, strict=True))
    one = ref(first[0])
    del first, second
    gc.collect()
    assert one() is None
