"""That a version runs beside the active one without anybody noticing, and shows what it would have done."""

from itertools import pairwise
from typing import Any

import pytest

from engine import (
    Branch,
    Call,
    Cap,
    Delay,
    Emit,
    Enter,
    EntryCap,
    Exit,
    Journey,
    Policy,
    Send,
    Throttle,
    Update,
    WaitFor,
    always,
    answer,
    api,
    changed,
    days,
    did,
    hours,
    on,
    profile,
    receipt,
)
from engine.simulator import Simulate
from engine.steps import AnyStep


def journey(version: int, steps: dict[str, AnyStep], **more: Any) -> Journey:
    more = {"name": "cart", "entry": on("cart_updated"), "reentry": always, **more}
    return Journey(version=version, start=next(iter(steps)), steps={**steps, "done": Exit()}, **more)


def reminding(version: int, patience: int, **more: Any) -> Journey:
    """Reminds after so many hours, unless somebody orders before."""
    steps: dict[str, AnyStep] = {
        "cooldown": Delay(hours(patience), then="remind"),
        "remind": Send("email", template="reminder", then="done"),
    }
    return journey(version, steps, exit_on=on("order_placed"), **more)


def of(user: Any, kind: str) -> list[str]:
    return [entry.reason or entry.step for entry in user.shadowed if entry.kind == kind]


def test_a_shadow_would_have_sent_what_the_active_version_did_not(simulate: Simulate) -> None:
    user = simulate(reminding(1, patience=5), shadow=reminding(2, patience=1))
    user.event("cart_updated")
    user.wait(hours(2))
    assert (user.sent, user.shadow_sent) == ([], ["email:reminder"])
    user.event("order_placed")
    user.wait(days(1))
    assert (user.sent, user.exits) == ([], ["exit_on"])
    assert of(user, "exited") == ["done"]
    assert all(entry.shadow and entry.version == 2 for entry in user.shadowed)
    assert not any(entry.shadow or entry.version == 2 for entry in user.journal)


def test_timers_of_a_shadow_fire_at_their_own_time_for_somebody_nobody_hears_from(simulate: Simulate) -> None:
    user = simulate(reminding(1, patience=5), shadow=reminding(2, patience=1))
    user.event("cart_updated")
    begun = user.now_ms
    user.wait(days(1))
    assert [entry.at - begun for entry in user.shadowed if entry.kind == "sent"] == [3_600_000]


def test_who_is_in_the_journey_when_a_shadow_begins_is_taken_along(simulate: Simulate) -> None:
    user = simulate(reminding(1, patience=5))
    user.event("cart_updated")
    user.wait(hours(1))
    user.shadow(reminding(2, patience=1, moves={"cooldown": "remind"}))
    user.wait(hours(1))
    assert (user.sent, user.shadow_sent) == ([], ["email:reminder"])
    assert [run.version for run in user.runs] == [1]
    user.wait(hours(4))
    assert user.sent == ["email:reminder"]
    assert of(user, "moved") == ["from v1, cooldown"]


def test_who_is_treated_alike_is_kept_once(simulate: Simulate) -> None:
    """A shade that says nothing new isn't stored; nor is one of a user whom the shadow doesn't concern."""
    user = simulate(reminding(1, patience=5))
    user.event("cart_updated")
    user.shadow(reminding(2, patience=1))
    user.event("page_viewed")
    assert user.state.shadows == {}
    user.event("cart_updated")
    assert user.state.shadows == {}  # both say: already in it
    user.wait(hours(6))
    user.event("cart_updated")
    assert [run.version for run in user.state.shadows["cart"].runs] == [2]


def test_a_shadow_that_ends_leaves_nothing(simulate: Simulate) -> None:
    user = simulate(reminding(1, patience=5), shadow=reminding(2, patience=1))
    user.event("cart_updated")
    assert user.state.shadows
    user.shadow("cart")
    assert user.state.shadows == {}
    user.wait(days(1))
    assert (user.sent, user.shadow_sent) == (["email:reminder"], [])


def test_another_shadow_of_the_same_journey_begins_anew(simulate: Simulate) -> None:
    user = simulate(reminding(1, patience=9), shadow=reminding(2, patience=1))
    user.event("cart_updated")
    user.shadow(reminding(3, patience=2))
    user.wait(hours(5))
    assert user.shadow_sent == []  # the run of v1 was taken along, as v1 treats it
    user.wait(hours(5))
    assert (user.sent, user.shadow_sent) == (["email:reminder"], ["email:reminder"])


def test_nothing_of_a_shadow_reaches_quotas_calls_other_journeys_or_the_profile(simulate: Simulate) -> None:
    """And yet its own runs see what they have set, emitted and been granted."""
    other = journey(1, {"hi": Send("email", template="other", then="done")}, name="other", entry=api())
    listener = journey(1, {"hi": Send("email", template="heard", then="done")}, name="listener", entry=on("looked"))
    active = journey(1, {"wait": Delay(days(1), then="done")})
    busy = journey(
        2,
        {
            "turn": Throttle(per_minute=1, then="set"),
            "set": Update({"plan": "gold"}, then="tell"),
            "tell": Emit("looked", {}, then="let_in"),
            "let_in": Enter("other", then="ask"),
            "ask": Call("https://shop.example/ask", then="which", on_failed="done"),
            "which": Branch([(profile("plan", "==", "gold"), "hear")], otherwise="done"),
            "hear": WaitFor(on("looked"), timeout=days(1), lookback=hours(1), then="mail", on_timeout="done"),
            "mail": Send("email", template="gold", then="done"),
        },
        entry_cap=EntryCap(1, days(1)),
    )
    user = simulate(other, listener, active, shadow=busy)
    user.event("cart_updated")
    user.wait(hours(1))
    assert (user.sent, user.quotas) == ([], {})
    assert user.shadow_sent == ["call:", "email:gold"]
    assert "plan" not in user.profile
    assert {entry.journey for entry in [*user.journal, *user.shadowed]} == {"cart"}


def test_what_the_active_version_does_does_not_exist_for_its_shadow(simulate: Simulate) -> None:
    """Nor what it sets in the profile, nor what it emits; what others set does."""
    active = journey(
        1, {"set": Update({"plan": "gold", "tier": 1}, then="tell"), "tell": Emit("looked", {}, then="done")}
    )
    shadow = journey(
        2,
        {
            "wait": WaitFor(on("looked"), timeout=hours(1), then="done", on_timeout="which"),
            "which": Branch([(profile("plan", "==", "gold"), "done")], otherwise="mail"),
            "mail": Send("email", template="offer", then="done"),
        },
    )
    user = simulate(active, shadow=shadow)
    user.event("cart_updated")
    user.wait(hours(2))
    assert user.profile["plan"] == "gold"
    assert user.shadow_sent == ["email:offer"]
    assert user.state.shadows["cart"].profile == {"plan": None, "tier": None}
    user.identify(plan="silver")
    assert user.state.shadows["cart"].profile == {"tier": None}


def test_a_shadow_sees_at_once_what_another_journey_sets(simulate: Simulate) -> None:
    other = journey(1, {"set": Update({"plan": "gold"}, then="done")}, name="other", entry=on("paid"))
    active = journey(1, {"wait": Delay(days(1), then="done")})
    waiting = journey(
        2,
        {
            "wait": WaitFor(profile("plan", "==", "gold"), timeout=days(9), then="mail", on_timeout="done"),
            "mail": Send("email", template="gold", then="done"),
        },
    )
    entered = journey(3, {"mail": Send("email", template="new_plan", then="done")}, entry=changed("plan"))
    for shadow, sent in ((waiting, "email:gold"), (entered, "email:new_plan")):
        user = simulate(other, active, shadow=shadow)
        user.event("cart_updated")
        user.event("paid")
        assert user.shadow_sent == [sent]


def test_a_message_of_both_is_heard_of_by_both_and_one_of_the_shadow_alone_never(simulate: Simulate) -> None:
    def asking(version: int, *first: str) -> Journey:
        steps: dict[str, AnyStep] = {
            name: Send("email", template=name, then=following) for name, following in pairwise((*first, "hello"))
        }
        return journey(
            version,
            {
                **steps,
                "hello": Send("email", template="hello", then="answer"),
                "answer": WaitFor(receipt("hello", "clicked"), timeout=days(1), then="thank", on_timeout="nag"),
                "thank": Send("email", template="thanks", then="done"),
                "nag": Send("email", template="nag", then="done"),
            },
        )

    user = simulate(asking(1), shadow=asking(2, "before"))
    user.event("cart_updated")
    user.receipt("hello", "clicked")
    user.wait(days(2))
    assert user.sent == ["email:hello", "email:thanks"]
    assert user.shadow_sent == ["email:before", "email:hello", "email:thanks"]
    only = journey(
        2,
        {
            "extra": Send("email", template="extra", then="answer"),
            "answer": WaitFor(receipt("extra", "clicked"), timeout=days(1), then="done", on_timeout="nag"),
            "nag": Send("email", template="nag", then="done"),
        },
    )
    user = simulate(asking(1), shadow=only)
    user.event("cart_updated")
    user.receipt("hello", "clicked")
    user.wait(days(2))
    assert user.shadow_sent == ["email:extra", "email:nag"]


def test_the_answer_to_a_call_of_both_is_heard_by_both(simulate: Simulate) -> None:
    def calling(version: int, at_least: int) -> Journey:
        return journey(
            version,
            {
                "ask": Call("https://shop.example/score", then="which", on_failed="done"),
                "which": Branch([(answer("ask.score", ">=", at_least), "mail")], otherwise="done"),
                "mail": Send("email", template="offer", then="done"),
            },
        )

    user = simulate(calling(1, 9), shadow=calling(2, 5))
    user.event("cart_updated")
    user.receipt("ask", "accepted", {"score": 7})
    assert "email:offer" not in user.sent
    assert user.shadow_sent == ["call:", "email:offer"]


def test_caps_count_for_a_shadow_what_others_sent_and_what_it_would_have_sent(simulate: Simulate) -> None:
    policy = Policy(version=1, caps=(Cap(2, days(7)),))
    other = journey(1, {"hi": Send("email", template="other", then="done")}, name="other", entry=on("greeted"))
    eager = journey(
        1, {"one": Send("email", template="a", then="two"), "two": Send("email", template="b", then="done")}
    )
    shy = journey(2, {"one": Send("email", template="a", then="done")})
    user = simulate(policy, other, eager, shadow=shy)
    user.event("cart_updated")
    user.event("greeted")
    user.event("cart_updated")
    assert user.sent == ["email:a", "email:b"]  # the others were one too many, for the greeting too
    assert user.shadow_sent == ["email:a", "email:a"]
    user.event("cart_updated")
    assert user.shadow_sent == ["email:a", "email:a"]
    user = simulate(policy, other, shy, shadow=eager.__class__(**{**_fields(eager), "version": 3}))
    user.event("greeted")
    user.event("cart_updated")
    assert user.sent == ["email:other", "email:a"]
    assert user.shadow_sent == ["email:a"]


def _fields(journey: Journey) -> dict[str, Any]:
    return {name: getattr(journey, name) for name in ("name", "entry", "reentry", "start", "steps")}


def test_a_shadow_asks_a_past_that_the_active_version_never_asked(simulate: Simulate) -> None:
    curious = journey(
        2,
        {
            "often": Branch([(did("order_placed", at_least=2), "mail")], otherwise="done"),
            "mail": Send("email", template="fan", then="done"),
        },
    )
    user = simulate(reminding(1, 1), shadow=curious)
    for name in ("order_placed", "order_placed", "cart_updated"):
        user.event(name)
    assert user.shadow_sent == ["email:fan"]
    assert user.state.history == {}


def test_an_error_of_a_shadow_harms_nobody(simulate: Simulate, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a step it suspends that run; anywhere else it gives the user up, and timers of the shadow fire no more."""
    shadow = reminding(2, 1)
    user = simulate(reminding(1, 5), shadow=shadow)
    user.event("cart_updated")

    def fail(*given: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(shadow.steps["remind"].__dict__, "enter", fail)
    user.wait(hours(2))
    assert of(user, "suspended") == ["ZeroDivisionError: a bug"]
    assert user.state.shadows["cart"].failed == ""
    monkeypatch.setattr("engine.shadows._Folding._given", fail)
    user.event("order_placed")
    assert of(user, "suspended")[1:] == ["ZeroDivisionError: a bug"]
    monkeypatch.undo()
    user.event("cart_updated")
    user.wait(hours(6))
    assert (user.sent, user.exits) == (["email:reminder"], ["exit_on", "done"])
    assert user.shadow_sent == []


def test_what_a_shadow_keeps_of_a_user_is_bounded(simulate: Simulate) -> None:
    """A hundred thousand bytes in a user's record are enough; the real runs don't notice."""
    waiting: dict[str, AnyStep] = {"wait": Delay(days(9), then="done")}
    user = simulate(journey(1, waiting, key="cart_id"), shadow=journey(2, waiting, key="cart_id"))
    for number in range(64):
        user.event("cart_updated", cart_id=str(number), text="x" * 2000)
        assert number > 40 or user.state.shadows["cart"].failed == ""
    assert "is the limit" in user.state.shadows["cart"].failed
    assert (len(user.runs), user.state.shadows["cart"].runs) == (64, ())


def test_an_event_that_comes_twice_is_one_to_the_shadow(simulate: Simulate) -> None:
    user = simulate(reminding(1, 5), shadow=reminding(2, 1))
    for _ in range(2):
        user.event("cart_updated", message_id="once")
        user.wait(hours(2))
    assert of(user, "entered") == ["cooldown"] or len(of(user, "entered")) == 1
    assert user.shadow_sent == ["email:reminder"]


def test_an_operator_holds_a_journey_and_its_shadow_alike(simulate: Simulate) -> None:
    user = simulate(reminding(1, 5), shadow=reminding(2, 1))
    user.event("cart_updated")
    user.control("cart", "pause")
    user.wait(hours(2))
    assert user.shadow_sent == []
    user.control("cart", "resume")
    assert user.shadow_sent == ["email:reminder"]
    user.event("cart_updated")
    user.control("cart", "stop")
    assert of(user, "exited")[-1] == "stopped"
    user.event("cart_updated")
    assert (user.runs, user.state.shadows["cart"].runs) == ((), ())


def test_who_is_erased_is_erased_from_the_shadow(simulate: Simulate) -> None:
    user = simulate(reminding(1, 5), shadow=reminding(2, 1))
    user.event("cart_updated")
    user.erase()
    user.event("cart_updated")
    assert user.state.shadows == {}
    assert of(user, "exited") == ["erased"]
    user = simulate(reminding(1, 5))
    user.event("cart_updated")
    user.shadow(reminding(2, 1))
    user.erase()
    assert of(user, "exited") == user.exits == ["erased"]


def test_a_shadow_takes_over_anew_who_turns_out_to_be_two(simulate: Simulate) -> None:
    user = simulate(reminding(1, 5), shadow=reminding(2, 3))
    visitor = user.visitor()
    visitor.event("cart_updated")
    user.event("page_viewed")
    visitor.becomes(user)
    assert [run.version for run in user.runs] == [1]
    user.wait(hours(6))
    assert (user.sent, user.shadow_sent) == (["email:reminder"], ["email:reminder"])
    assert visitor.state.shadows == {}
    user.event("cart_updated")
    user.wait(hours(4))
    assert (user.sent, user.shadow_sent) == (["email:reminder"], ["email:reminder"] * 2)


def test_a_journey_that_is_not_active_can_be_tried_as_a_shadow(simulate: Simulate) -> None:
    user = simulate(shadow=reminding(1, 1))
    user.event("cart_updated")
    user.wait(hours(2))
    assert (user.sent, user.shadow_sent) == ([], ["email:reminder"])
