"""What must hold for every log: the outcome depends on the log alone, not on batches, crashes or repetitions."""

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Cap, Policy, days, hours
from engine.actor import earliest_due
from engine.runtime import states
from schemas.inputs import Event, Receipt
from schemas.outputs import Message
from schemas.records import Record
from tests.runtime.stage import Stage
from tests.runtime.trial_journeys import basket, greeting, loyalty, news, poison, queue
from tests.scenarios.expectation import Expectation, expect

USERS = ("ada", "ben", "cleo", "device")
JOURNEYS = {
    "greeting 1": greeting(),
    "greeting 2": greeting(2, "welcome"),
    "greeting 3": greeting(3, moves={"pause": "part"}),
    "greeting 4": greeting(4, moves={"pause": "exit"}),
    "basket": basket(),
    "poison": poison(),
    "loyalty": loyalty(),
    "queue": queue(),
    "news": news(),
}
POLICIES = {
    "policy 1": Policy(version=1, caps=(Cap(2, hours(3)),)),
    "policy 2": Policy(version=2, caps=(Cap(1, days(1), topic="marketing"),), topics={"marketing": "opt_in"}),
}

Step = tuple[Any, ...]

events = st.tuples(
    st.just("event"),
    st.sampled_from(USERS),
    st.sampled_from(["signed_up", "basket_filled", "bought", "looked"]),
    st.sampled_from(["m1", "m2", None, None, None, None]),  # a repeated id, or a new one
    st.fixed_dictionaries({}, optional={"basket": st.sampled_from(["b1", "b2", 3]), "total": st.integers(0, 10**25)}),
    st.fixed_dictionaries({}, optional={"plan": st.sampled_from(["free", None, "ü", 2**65]), "score": st.floats(0, 9)}),
)
ordinary = [
    events,
    events,
    events,
    st.tuples(st.just("receipt"), st.integers(0, 30), st.sampled_from(["accepted", "opened", "clicked", "bounced"])),
    st.tuples(st.just("wake")),
    st.tuples(st.just("pass"), st.sampled_from([1, 1000, 600_000, 3_600_000, 30_000_000, -5000])),
    st.tuples(st.just("resume"), st.sampled_from(USERS)),
    st.tuples(st.just("publish"), st.sampled_from(["greeting 1", "greeting 2", "basket", "poison"])),
    st.tuples(  # who logs in, what their device is called, and what they do before the device has answered
        st.just("login"),
        st.sampled_from(USERS),
        st.sampled_from(USERS),
        st.lists(st.sampled_from(["signed_up", "basket_filled", "bought", "looked"]), max_size=3),
    ),
    st.tuples(st.just("put"), st.sampled_from([b"{", b"[]", b"", None]), st.sampled_from([b"shop:ada", b"x", None])),
]
steered = [
    *ordinary,
    st.tuples(st.just("publish"), st.sampled_from(sorted(JOURNEYS))),
    st.tuples(st.just("policy"), st.sampled_from(sorted(POLICIES))),
    st.tuples(
        st.just("control"),
        st.sampled_from(["greeting", "basket", "loyalty", "queue", "news", "nothing"]),
        st.sampled_from(["pause", "resume", "stop", "retire"]),
    ),
    st.tuples(st.just("erase"), st.sampled_from(USERS)),
]
plain_lives = st.lists(st.one_of(ordinary), min_size=1, max_size=40)
lives = st.lists(st.one_of(steered), min_size=1, max_size=40)
splits = st.lists(st.integers(1, 9), min_size=1, max_size=40)


@dataclass
class Play:
    """What came of a log."""

    states: dict[bytes, bytes]
    timers: dict[bytes, int]
    outputs: dict[str, list[tuple[bytes | None, bytes | None, Any]]]  # topic -> records in order


def live(life: Sequence[Step], begun_with: Sequence[str] = tuple(JOURNEYS)) -> Stage:
    """Write a log by living through it: receipts and wake-ups answer what was asked for and what is due."""
    stage = Stage()
    for name in begun_with:
        stage.publish(JOURNEYS[name])
    fold_the_rest(stage)
    for kind, *details in life:
        match kind:
            case "event":
                user, name, id, properties, profile = details
                stage.event(user, name, id, profile, **properties)
            case "receipt":
                messages = stage.messages()
                if messages:
                    message = messages[details[0] % len(messages)]
                    stage.give(message.user, Receipt(message.id, details[1], stage.log.now, message.channel))
            case "wake":
                stage.wake_the_due()
            case "pass":
                stage.pass_time(details[0])
            case "resume":
                for run in stage.user(details[0]).runs:
                    stage.resume(details[0], run.id)
            case "publish":
                stage.publish(JOURNEYS[details[0]])
            case "policy":
                stage.publish_policy(POLICIES[details[0]])
            case "control":
                stage.control(*details)
            case "erase":
                stage.erase(details[0])
            case "login":
                user, alias, names = details
                stage.give(user, Event(f"l{stage.log.now}", "identify", stage.log.now, {}, {}, (alias,)))
                for name in names:
                    stage.event(user, name, basket="b1", total=30)
            case "put":
                stage.put(details[1], details[0])
        fold_the_rest(stage)
    return stage


def fold_the_rest(stage: Stage) -> None:
    """Fold what is in the log, one record at a time, also what folding writes into it."""
    for _ in range(1000):
        records = stage.log.of("events", 0)[stage.host.position + 1 :]
        if not records:
            return
        take(stage, records[:1])
    raise AssertionError("folding goes on for ever")


def take(stage: Stage, records: Sequence[Record]) -> None:
    finish(stage.users._take(records, stage.users._fold_here))


def finish(coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("in memory nothing has to be waited for")


def played(stage: Stage) -> Play:
    outputs: dict[str, list[tuple[bytes | None, bytes | None, Any]]] = {}
    for topic in stage.log.topics():
        if topic != "events":
            outputs[topic] = [(record.key, record.value, record.headers) for record in stage.log.of(topic)]
    outputs["into events"] = [
        (new.key, new.value, new.headers)
        for batch in stage.host.batches
        for new in batch.outputs
        if new.topic == "events"
    ]
    return Play(dict(stage.host.states.values), dict(stage.host.timers), outputs)


def replay(lived: Stage, split: Sequence[int], crash_after: Sequence[int] = ()) -> Play:
    """Fold the log of another stage anew, in batches of the given sizes (over and over). At the batches numbered in
    `crash_after` the process dies between fold and commit, and the next one begins again from what is stored."""
    stage = Stage()
    for definition in lived.definitions.all():
        stage.definitions.arrive(definition)
    stage.log.copy(lived.log, "events")
    batches = []
    end = number = 0
    records = lived.log.of("events", 0)
    while end < len(records):
        end += split[number % len(split)]
        if number in crash_after:
            stage.users.fold(records[stage.host.position + 1 : end])  # and nobody hears of it
            batches += stage.host.batches
            stage.restart()
            finish(stage.users.restore())
        take(stage, records[stage.host.position + 1 : end])
        number += 1
    stage.host.batches = batches + stage.host.batches
    return played(stage)


@given(lives, splits)
@settings(max_examples=200, deadline=None)
def test_the_outcome_does_not_depend_on_where_batches_begin(life: list[Step], split: list[int]) -> None:
    lived = live(life)
    assert replay(lived, split) == played(lived)


@given(lives, splits)
@settings(max_examples=30, deadline=None)
def test_replaying_the_log_gives_the_same_commands_byte_for_byte(life: list[Step], split: list[int]) -> None:
    lived = live(life)
    first, second = replay(lived, split), replay(lived, split)
    assert first.outputs.get("messages.inapp") == second.outputs.get("messages.inapp")
    assert first == second == played(lived)


@given(lives, splits, st.lists(st.integers(0, 30), max_size=5))
@settings(max_examples=150, deadline=None)
def test_a_crash_between_fold_and_commit_changes_nothing(
    life: list[Step], split: list[int], crashes: list[int]
) -> None:
    lived = live(life)
    assert replay(lived, split, crashes) == played(lived)


@given(plain_lives)
@settings(max_examples=100, deadline=None)
def test_the_loop_comes_to_what_the_independent_fold_comes_to(life: list[Step]) -> None:
    lived = live(life, ["greeting 1", "greeting 2", "basket", "poison"])
    expectation = expected_of(lived)
    assert lived.messages() == expectation.messages
    assert lived.journal() == expectation.journal
    users = {key[1:]: states.decode_user(raw) for key, raw in lived.host.store.scan(b"u", b"v")}
    assert users == expectation.users


@given(plain_lives, splits)
@settings(max_examples=100, deadline=None)
def test_the_hosts_timers_are_those_of_a_naive_index_over_all_users(life: list[Step], split: list[int]) -> None:
    lived = live(life, ["greeting 1", "greeting 2", "basket", "poison"])
    naive = {
        key: due_at for key, user in expected_of(lived).users.items() if (due_at := earliest_due(user)) is not None
    }
    assert lived.host.timers == naive
    assert replay(lived, split).timers == naive
    for key, raw in lived.host.store.scan(b"u", b"v"):
        assert int.from_bytes(raw[1:9], "big") == naive.get(key[1:], 0)


@given(lives)
@settings(max_examples=100, deadline=None)
def test_once_all_sweeps_are_over_every_timer_is_what_the_catalog_of_now_says(life: list[Step]) -> None:
    lived = live(life)
    for key, raw in lived.host.store.scan(b"ushop:", b"ushop;"):
        due_at = earliest_due(states.decode_user(raw), lived.users.catalog, "shop")
        assert lived.host.timers.get(key[1:]) == due_at == states.due_in(raw)


@given(plain_lives)
@settings(max_examples=60, deadline=None)
def test_a_producer_that_repeats_everything_moves_nobody_twice(life: list[Step]) -> None:
    """Each event record stands in the log twice in a row, as when an answer was lost: nobody can tell from the messages."""
    lived = live(life, ["greeting 1", "greeting 2", "basket", "poison"])
    doubled = Stage()
    for definition in lived.definitions.all():
        doubled.definitions.arrive(definition)
    for record in lived.log.of("events", 0):
        doubled.log.now = record.timestamp
        for _ in range(2 if b'"type":"event"' in (record.value or b"") else 1):
            doubled.put(record.key, record.value, record.headers)
    fold_the_rest(doubled)
    assert _ids(doubled.messages()) == _ids(lived.messages())


def expected_of(stage: Stage) -> Expectation:
    definitions = {definition.key: definition for definition in stage.definitions.all()}
    return expect(definitions, {0: stage.log.of("events", 0)})


def _ids(messages: list[Message]) -> list[str]:
    return [message.id for message in messages]


def test_a_life_in_this_file_is_eventful() -> None:
    """So that the properties above are not about logs in which nothing happens."""
    life: list[Step] = [
        ("event", "ada", "signed_up", None, {}, {}),
        ("event", "ada", "basket_filled", None, {"basket": "b1"}, {}),
        ("receipt", 0, "accepted"),
        ("receipt", 1, "accepted"),
        ("pass", 3_600_000),
        ("wake",),
        ("receipt", 2, "opened"),
        ("resume", "ada"),
        ("put", b"{", b"shop:ada"),
        *[("event", "ada", "bought", None, {"basket": "b1", "total": 60}, {})] * 3,
        ("pass", 1000),
        ("wake",),
        ("control", "greeting", "stop"),
        ("event", "device", "basket_filled", None, {"basket": "b2"}, {}),
        ("login", "ada", "device", ["bought"]),
    ]
    stage = live(life, ["greeting 1", "basket", "poison", "loyalty", "queue", "news"])
    kinds = {entry.kind for entry in stage.journal()}
    assert kinds >= {"entered", "step", "sent", "receipt", "suspended", "resumed", "exited", "linked", "absorbed"}
    assert stage.log.topics() == ["events", "events.invalid", "journal", "messages.inapp"]
    assert set(stage.sent()) >= {"hello", "reminder", "your_turn", "news"}
    assert b"ushop/quota:throttle.queue.turn" in stage.host.states.values
