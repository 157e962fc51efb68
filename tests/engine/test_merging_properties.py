"""Whatever crosses whatever on the way: nobody's events, runs, refusals or messages are lost or doubled by a merge."""

from collections import Counter
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine import Delay, Exit, Journey, Send, WaitFor, always, days, did, hours, on, receipt
from engine.actor import NOBODY
from schemas.inputs import Erased, Event, Receipt
from schemas.outputs import JournalEntry
from schemas.state import User
from tests.engine.scattered import BEGIN, Scattered

PEOPLE = ("ann", "ben", "anon:1", "anon:2")
GREETS = Journey(
    name="greets", version=1, entry=on("go"), key="key", reentry=always, on_merge="keep_both", start="send",
    steps={
        "send": Send("webhook", template="hello", then="answer"),
        "answer": WaitFor(receipt("send", "delivered"), timeout=days(2), then="rest", on_timeout="late"),
        "rest": Delay(hours(1), then="done"),
        "late": Exit(),
        "done": Exit(),
    },
)  # fmt: skip
ONE = Journey(  # of which a person has one run, whoever they turn out to be
    name="one", version=1, entry=on("go"), reentry=always, start="rest",
    steps={"rest": Delay(hours(30), then="done"), "done": Exit()},
)  # fmt: skip
COUNTS = Journey(
    name="counts", version=1, entry=on("never", did("go", at_least=1)), start="done", steps={"done": Exit()}
)  # fmt: skip

people = st.sampled_from(PEOPLE)
seconds = st.sampled_from([0, 1, 5, 29, 31, 600])
acts = st.one_of(
    st.tuples(st.just("go"), people, st.integers(0, 30)),
    st.tuples(st.just("link"), people, people),
    st.tuples(st.just("fold"), people, st.integers(1, 4)),
    st.tuples(st.just("fold"), people, st.integers(1, 4)),
    st.tuples(st.just("hear"), st.just(""), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.just(""), seconds),
)
lives = st.lists(acts, max_size=40)


def lived(life: list[tuple[str, str, Any]]) -> tuple[Scattered, dict[int, str], list[str]]:
    """Return the world after a life, who each key was first given to, and the messages that were answered."""
    world = Scattered(GREETS, ONE, COUNTS)
    given: dict[int, str] = {}
    answered: list[str] = []
    for number, (what, who, more) in enumerate(life):
        match what:
            case "go":  # The same key is the same event, given to the same actor again.
                who = given.setdefault(more, who)
                world.append(who, Event(f"m{more}", "go", world.wall, {"key": f"k{more}"}))
            case "link":
                world.append(who, Event(f"l{number}", "identify", world.wall, {}, {}, (more,)))
            case "fold":
                for _ in range(more):
                    world.fold(who)
            case "hear":
                for message in world.messages[more:][:1]:
                    hear(world, message.user, message.id, answered)
            case "wait":
                world.wait(more * 1000)
    world.settle(600_000)  # until nobody waits for an alias any more
    for message in list(world.messages):
        hear(world, message.user, message.id, answered)
    world.settle(6 * 86_400_000)
    return world, given, answered


def hear(world: Scattered, user: str, message: str, answered: list[str]) -> None:
    if message not in answered:
        answered.append(message)
        world.append(user, Receipt(message, "delivered", world.wall, "webhook"))


@settings(max_examples=300, deadline=None)
@given(lives)
@example([("link", "ben", "anon:1"), ("wait", "", 31), ("link", "ann", "ben"), ("link", "anon:1", "ann")])
@example([("link", "ann", "anon:1"), ("link", "anon:1", "ben"), ("go", "ann", 0), ("link", "ben", "ann")])
def test_every_event_is_counted_once_and_every_run_begins_and_ends_once(life: list[tuple[str, str, Any]]) -> None:
    world, given, _ = lived(life)
    assert world.errors == []
    entered = Counter(
        entry.detail["key"] for entry in world.journal if entry.kind == "entered" and entry.journey == "greets"
    )
    assert entered == {f"k{key}": 1 for key in given}
    exits = Counter(entry.run for entry in world.journal if entry.kind == "exited")
    assert exits == {entry.run: 1 for entry in world.journal if entry.kind == "entered"}
    ends = {(entry.journey, entry.step, entry.reason) for entry in world.journal if entry.kind == "exited"}
    assert ends <= {("greets", "done", "done"), ("one", "done", "done"), ("one", "rest", "merged")}
    assert len({message.id for message in world.messages}) == len(world.messages) == len(given)
    counted = Counter(
        {who: sum(track.count for track in state.history.values()) for who, state in world.states.items()}
    )
    expected = Counter(world.person(who) for who in given.values())
    assert +counted == expected
    for state in world.states.values():
        assert state.identity is None or not (state.identity.awaited or state.identity.kept or state.identity.brought)
        assert state.identity is None or not state.identity.alias_of or state == left_of(state)


def left_of(state: User) -> User:
    """What an alias still holds: nothing but for whom it stands, and who stands for it."""
    return User(aliases=state.aliases, identity=state.identity)


@settings(max_examples=150, deadline=None)
@given(lives, st.data())
def test_who_was_erased_stays_erased_whatever_links_come(life: list[tuple[str, str, Any]], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(life)))
    whom = data.draw(people)
    world = Scattered(GREETS, ONE, COUNTS)
    for number, (what, who, more) in enumerate([*life[:at], ("erase", whom, None), *life[at:]]):
        match what:
            case "go":
                world.append(who, Event(f"m{number}", "go", world.wall, {"key": f"k{number}"}, {"from": who}))
            case "link":
                world.append(who, Event(f"l{number}", "identify", world.wall, {}, {}, (more,)))
            case "fold":
                for _ in range(more):
                    world.fold(who)
            case "wait":
                world.wait(more * 1000)
            case "erase":
                world.fold_all()  # What was under way before is there.
                world.settle(60_000)
                person = world.person(whom)
                theirs = [each for each in PEOPLE if world.person(each) == person]
                world.append(whom, Erased("e1"))
                world.fold_all()
                assert all(world.states[each] == User(erased=True) for each in theirs)
    world.settle(3 * 86_400_000)
    assert all(world.states[each] == User(erased=True) for each in theirs)
    known = [state for state in world.states.values() if state.profile]
    assert all(state.profile["from"] not in theirs for state in known)


STORY = Journey(
    name="story", version=1, entry=on("go"), reentry=always, exit_on=on("stop"), start="wait",
    steps={
        "wait": WaitFor(on("next"), timeout=hours(1), then="send", on_timeout="done"),
        "send": Send("webhook", template="hello", then="rest"),
        "rest": Delay(days(0.0002), then="done"),  # 17 s, so that it may end while it is waited
        "done": Exit(),
    },
)  # fmt: skip
names = st.sampled_from(["go", "next", "stop", "other"])


@settings(max_examples=300, deadline=None)
@given(
    before=st.lists(st.tuples(st.sampled_from(["ann", "anon:1"]), names), max_size=6),
    meanwhile=st.lists(st.tuples(names, st.integers(0, 9)), max_size=6),
    delays=st.tuples(st.integers(0, 12), st.integers(0, 12)),
)
def test_how_long_the_alias_takes_makes_no_difference(
    before: list[tuple[str, str]], meanwhile: list[tuple[str, int]], delays: tuple[int, int]
) -> None:
    assert told(before, meanwhile, delays) == told(before, meanwhile, (0, 0))


def told(
    before: list[tuple[str, str]], meanwhile: list[tuple[str, int]], delays: tuple[int, int]
) -> tuple[list[JournalEntry], list[str], dict[str, User]]:
    """Let an alias be linked, that takes so many seconds to answer, and whose answer takes so many to arrive."""
    world = Scattered(STORY)
    for number, (who, name) in enumerate(before):
        world.wait(1000)
        world.append(who, Event(f"b{number}", name, world.wall, {}, {f"a{number}": who}))
        world.fold_all()
    world.append("ann", Event("l", "identify", world.wall, {}, {}, ("anon:1",)))
    world.fold("ann")
    happening = [(at * 1000, name) for name, at in sorted(meanwhile, key=lambda each: each[1])]
    begun = world.wall
    for moment in range(0, 25_000, 1000):
        world.wall = begun + moment
        for number, (at, name) in enumerate(happening):
            if at == moment:
                world.append("ann", Event(f"w{number}", name, world.wall, {}))
        if moment == delays[0] * 1000:
            world.fold("anon:1")
        if moment == (delays[0] + delays[1]) * 1000 or not waits_for_the_answer(world):
            world.fold_all(["ann"])
    world.settle(2 * 3_600_000)
    journal = [entry for entry in world.journal if entry.kind not in ("linked", "absorbed")]
    forget = {who: msgspec.structs.replace(state, seen=b"") for who, state in world.states.items()}
    return journal, [message.id for message in world.messages], forget


def waits_for_the_answer(world: Scattered) -> bool:
    """Is the answer on the way? Its record comes after those that were there before it."""
    return any(type(input).__name__ == "Absorbed" for _, input in world.logs["ann"])


def test_a_world_without_links_is_what_it_was() -> None:
    world = Scattered(GREETS, ONE, COUNTS)
    world.append("ann", Event("m1", "go", BEGIN, {"key": "k1"}))
    world.fold_all()
    assert (len(world.messages), world.states.get("ben", NOBODY)) == (1, NOBODY)
