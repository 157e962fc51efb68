"""Properties of shadows, over hostile histories: they change nothing, and tell what would have been."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import (
    Call,
    Cap,
    Delay,
    Emit,
    Journey,
    Policy,
    Send,
    Throttle,
    Update,
    WaitFor,
    any_of,
    changed,
    days,
    hours,
    minutes,
    on,
    profile,
    receipt,
)
from engine.divergence import TELLING, Divergence
from engine.errors import InvalidInput
from engine.simulator.acts import Happens, Repeats
from engine.simulator.hostile import histories
from engine.simulator.user import SimulatedUser
from schemas.outputs import JournalEntry
from tests.engine.test_shadows import journey

LANGUAGE = journey(
    1,
    {
        "ask": Call("https://shop.example/ask", then="tell", on_failed="tell"),
        "tell": Emit("looked", {}, then="set"),
        "set": Update({"tier": 2}, then="mail"),
        "mail": Send(["push", "email"], template="hello", then="answer", on_failed="turn"),
        "answer": WaitFor(
            any_of(receipt("mail", "clicked"), on("looked")),
            timeout=days(1),
            then="turn",
            on_timeout="turn",
            lookback=hours(1),
        ),
        "turn": Throttle(per_minute=2, then="last"),
        "last": Send("email", template="last", then="done"),
    },
    exit_on=on("order_placed"),
    goal=on("order_placed", within=days(3), value="total"),
    key="cart_id",
)
BESIDE = journey(1, {"mail": Send("email", template="b", then="done")}, name="beside", entry=changed("tier"))
CAPS = Policy(version=1, caps=(Cap(2, days(2)), Cap(1, hours(3), channel="email")))
NEXT = journey(
    2,
    {
        "wait": WaitFor(profile("tier", "==", 2), timeout=minutes(90), then="tell", on_timeout="tell"),
        "tell": Emit("cart_updated", {"cart_id": "own"}, then="set"),
        "set": Update({"tier": 3}, then="mail"),
        "mail": Send("email", template="hello", then="answer"),
        "answer": WaitFor(receipt("mail", "clicked"), timeout=days(1), then="done", on_timeout="done"),
    },
    exit_on=on("order_placed"),
    goal=on("order_placed", within=days(3)),
    moves={"answer": "mail"},
)


@settings(max_examples=30, deadline=None)
@given(histories(LANGUAGE, BESIDE, CAPS), st.integers(0, 20))
def test_whatever_happens_a_shadow_changes_nothing_for_anybody(history: Any, begins: int) -> None:
    """And two hearings of the same history tell the same of the shadow."""

    def lived(with_shadow: bool) -> SimulatedUser:
        user = SimulatedUser(LANGUAGE, BESIDE, CAPS, now=history.begin, profile=history.profile)
        for at, act in enumerate(history.acts):
            if at == begins:
                user.shadow(NEXT) if with_shadow else user.wake_up()
            with suppress(InvalidInput):
                (replace(act, id=f"e {at}") if isinstance(act, Happens) else act).do(user)
        user.wait(days(30))
        return user

    without, beside, again = lived(False), lived(True), lived(True)
    assert beside.messages == without.messages
    assert beside.journal == without.journal
    assert beside.quotas == without.quotas
    assert beside.state.runs == without.state.runs
    assert (beside.profile, beside.state.contacts) == (without.profile, without.state.contacts)
    assert (beside.shadowed, beside.state) == (again.shadowed, again.state)


@settings(max_examples=30, deadline=None)
@given(histories(LANGUAGE, BESIDE, CAPS))
def test_events_that_concern_neither_side_leave_no_trace(history: Any) -> None:
    """They pass by without a turn, and come to what wake-ups at the same times come to."""

    def lived(with_events: bool) -> SimulatedUser:
        user = SimulatedUser(LANGUAGE, BESIDE, CAPS, now=history.begin, profile=history.profile)
        user.shadow(NEXT)
        for at, act in enumerate(history.acts):
            user.event("nobody_asks", message_id=f"n {at}") if with_events else user.wake_up()
            with suppress(InvalidInput):
                (replace(act, id=f"e {at}") if isinstance(act, Happens) else act).do(user)
        user.wait(days(30))
        return user

    if any(isinstance(act, Repeats) for act in history.acts):
        return  # what is repeated would be another event
    passed, woken = lived(True), lived(False)
    assert passed.shadowed == woken.shadowed
    assert passed.state.shadows == woken.state.shadows
    assert passed.messages == woken.messages


@settings(max_examples=30, deadline=None)
@given(histories(LANGUAGE, BESIDE, CAPS))
def test_a_shadow_that_is_the_active_version_does_what_it_does(history: Any) -> None:
    """The same journey under the next number, from the very beginning: it would have sent the same at the same times."""
    plain = _without_others(LANGUAGE, 1)
    user = SimulatedUser(plain, BESIDE, CAPS, now=history.begin, profile=history.profile)
    user.shadow(_without_others(LANGUAGE, 2))
    for act in history.acts:
        with suppress(InvalidInput):
            act.do(user)
    user.wait(days(30))
    divergence = Divergence("test", "cart")
    for entry in (*user.journal, *user.shadowed):
        divergence.give(entry)
    assert divergence.report().differences == []
    assert told(user.shadowed) == told(user.journal)


def told(journal: list[JournalEntry]) -> list[tuple[object, ...]]:
    return [
        (entry.kind, entry.at, entry.step, entry.reason, entry.detail)
        for entry in journal
        if entry.journey == "cart" and entry.kind in TELLING
    ]


def _without_others(journey: Journey, version: int) -> Journey:
    """Return the language less what is answered by others in their own time: quotas, and what is emitted."""
    steps = {**journey.steps, "ask": Delay(minutes(1), then="set"), "turn": Delay(minutes(1), then="last")}
    del steps["tell"]
    steps["answer"] = WaitFor(receipt("mail", "clicked"), timeout=days(1), then="turn", on_timeout="turn")
    fields = {name: getattr(journey, name) for name in ("name", "entry", "reentry", "exit_on", "goal", "key")}
    return Journey(version=version, start="ask", steps=steps, **fields)
