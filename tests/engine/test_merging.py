"""Two actors turn out to be one person: what goes on, what ends, and that nothing is lost or doubled."""

from dataclasses import replace

import pytest

from engine import (
    Cap,
    Delay,
    Exit,
    Journey,
    Policy,
    Send,
    WaitFor,
    after,
    always,
    days,
    did,
    hours,
    minutes,
    on,
    profile,
    receipt,
)
from engine.entries import changed
from engine.merging import MAX_ALIASES, MAX_KEPT, MAX_PATH, MAX_WAIT_MS
from engine.simulator import Simulate, SimulatedUser
from schemas.inputs import Absorbed, Erased, Event, Forwarded, Granted, Linked, Receipt, WakeUp
from schemas.state import Identity, User

CART = Journey(
    name="cart",
    version=1,
    entry=on("cart_updated"),
    reentry=always,
    exit_on=on("order_placed"),
    goal=on("order_placed", within=days(3)),
    start="pause",
    steps={
        "pause": Delay(hours(1), then="remind"),
        "remind": Send("email", template="reminder", then="answer"),
        "answer": WaitFor(receipt("remind", "clicked"), timeout=days(1), then="done", on_timeout="again"),
        "again": Send("email", template="again", then="done"),
        "done": Exit(),
    },
)


def test_what_a_visitor_began_goes_on_for_the_user_they_turn_out_to_be(simulate: Simulate) -> None:
    user = simulate(CART)
    visitor = user.visitor()
    visitor.event("cart_updated")
    begun = visitor.runs[0].id
    visitor.becomes(user, tier="gold")
    assert [run.id for run in user.runs] == [begun]
    assert (visitor.runs, visitor.due_at_ms) == ((), None)
    user.wait(hours(2))
    assert user.sent == ["email:reminder"]
    assert user.messages[0].address == "user@example.com"
    assert (visitor.reasons("linked"), user.reasons("absorbed")) == ([""], [""])


def test_what_comes_for_the_visitor_afterwards_is_the_users(simulate: Simulate) -> None:
    user = simulate(CART)
    visitor = user.visitor()
    visitor.becomes(user)
    visitor.event("cart_updated")
    assert user.step == "pause"
    visitor.event("order_placed")
    assert (user.exits, user.goals, visitor.journal[1:]) == (["exit_on"], ["cart"], [])


def test_the_receipt_of_a_message_asked_for_before_reaches_the_run_where_it_is_now(simulate: Simulate) -> None:
    user = simulate(CART)
    visitor = user.visitor(email="known@example.com")
    visitor.event("cart_updated")
    visitor.wait(hours(2))
    assert visitor.sent == ["email:reminder"]
    visitor.becomes(user)
    visitor.receipt("remind", "clicked")
    assert (user.exits, user.sent) == (["done"], [])


def test_an_event_that_both_were_given_counts_once(simulate: Simulate) -> None:
    user = simulate(CART)
    visitor = user.visitor()
    visitor.event("cart_updated", message_id="m1")
    visitor.becomes(user)
    user.event("order_placed")
    user.event("cart_updated", message_id="m1")
    visitor.event("cart_updated", message_id="m1")
    assert user.reasons("dropped") == ["duplicate", "duplicate"]
    assert user.runs == ()


@pytest.mark.parametrize(
    ("on_merge", "stay"),
    [("keep_earliest", ["visitor"]), ("keep_latest", ["user"]), ("keep_both", ["visitor", "user"])],
)
def test_of_two_runs_of_one_journey_it_says_which_goes_on(simulate: Simulate, on_merge: str, stay: list[str]) -> None:
    user = simulate(replace(CART, on_merge=on_merge))  # type: ignore[arg-type]
    visitor = user.visitor()
    visitor.event("cart_updated")
    user.wait(minutes(10))
    user.event("cart_updated")
    whose = {visitor.runs[0].id: "visitor", user.runs[0].id: "user"}
    visitor.becomes(user)
    assert [whose[run.id] for run in user.runs] == stay
    assert user.exits == ["merged"] * (2 - len(stay))
    user.event("order_placed")
    assert set(user.goals) == {"cart"}
    assert len(stay) == 2 or user.goals == ["cart"]


def test_runs_with_different_keys_are_no_two_of_one_journey(simulate: Simulate) -> None:
    user = simulate(replace(CART, key="cart"))
    visitor = user.visitor()
    visitor.event("cart_updated", cart="a")
    user.wait(minutes(1))
    user.event("cart_updated", cart="b")
    visitor.becomes(user)
    assert [run.key for run in user.runs] == ["a", "b"]


def test_the_users_own_values_win_and_a_no_of_either_side_is_a_no(simulate: Simulate) -> None:
    user = simulate(CART, plan="team", consent={"news": True, "offers": True})
    visitor = user.visitor(plan="free", campaign="spring", consent={"offers": False, "sms": True})
    visitor.becomes(user)
    assert (user.profile["plan"], user.profile["campaign"]) == ("team", "spring")
    assert user.profile["consent"] == {"news": True, "offers": False, "sms": True}
    assert user.profile["email"] == "user@example.com"


def test_who_unsubscribed_as_a_visitor_has_unsubscribed(simulate: Simulate) -> None:
    user = simulate(CART)
    visitor = user.visitor(email="known@example.com")
    visitor.event("cart_updated")
    visitor.wait(hours(2))
    visitor.receipt("remind", "unsubscribed")
    visitor.becomes(user)
    user.event("order_placed")
    user.event("cart_updated")
    user.wait(hours(2))
    assert (user.sent, user.reasons("blocked")) == ([], ["no consent to marketing on email"])


def test_a_cap_counts_what_both_were_sent(simulate: Simulate) -> None:
    hello = Journey(
        name="hello", version=1, entry=on("hello"), reentry=always, start="send",
        steps={"send": Send("email", template="hello", then="done"), "done": Exit()},
    )  # fmt: skip
    user = simulate(hello, Policy(version=1, caps=(Cap(2, days(1)),)))
    visitor = user.visitor(email="known@example.com")
    visitor.event("hello")
    user.event("hello")
    visitor.becomes(user)
    user.event("hello")
    assert (visitor.sent, user.sent) == (["email:hello"], ["email:hello"])
    assert user.reasons("blocked") == ["cap: at most 2 messages within 1 day"]


def test_what_happened_to_the_visitor_counts_as_the_users_past(simulate: Simulate) -> None:
    third = replace(CART, name="third", entry=on("viewed", did("viewed", at_least=3, within=days(1))))
    user = simulate(third)
    visitor = user.visitor()
    visitor.event("viewed")
    user.event("viewed")
    visitor.becomes(user)
    assert user.runs == ()
    user.event("viewed")
    assert user.step == "pause"


def test_who_entered_as_a_visitor_has_entered(simulate: Simulate) -> None:
    user = simulate(replace(CART, reentry=after(days(7))))
    visitor = user.visitor()
    visitor.event("cart_updated")
    visitor.event("order_placed")
    visitor.becomes(user)
    user.event("cart_updated")
    assert user.reasons("not_entered") == ["re-entry is again after 1 week"]


def test_a_wait_for_an_attribute_sees_what_the_merge_brings(simulate: Simulate) -> None:
    waits = Journey(
        name="waits", version=1, entry=on("asked"), start="wait",
        steps={"wait": WaitFor(profile("campaign", "==", "spring"), timeout=days(1), then="done", on_timeout="done"),
               "done": Exit()},
    )  # fmt: skip
    enters = replace(CART, name="enters", entry=changed("campaign"))
    user = simulate(waits, enters)
    user.event("asked")
    visitor = user.visitor(campaign="spring")
    visitor.becomes(user)
    assert user.exits == ["done"]
    assert [run.journey for run in user.runs] == ["enters"]


def test_identifying_again_changes_nothing(simulate: Simulate) -> None:
    user = simulate(CART)
    visitor = user.visitor()
    visitor.becomes(user)
    before = user.state, visitor.state, len(visitor.log)
    visitor.becomes(user)
    assert (user.state.aliases, visitor.state, len(visitor.log)) == (before[0].aliases, *before[1:])


# Somebody else's


def test_who_stands_for_somebody_does_not_come_to_stand_for_somebody_else(simulate: Simulate) -> None:
    ann = simulate(CART, user_id="ann")
    ben = ann.visitor("ben")
    device = ann.visitor("anon:1")
    device.becomes(ann)
    device.becomes(ben)
    device.event("cart_updated")
    assert (len(ann.runs), ben.runs) == (1, ())
    assert ben.reasons("not_linked") == ["stands for another user"]
    assert (ann.state.aliases, ben.state.aliases) == ({"anon:1": True}, {"anon:1": False})
    told = len(device.log)
    device.becomes(ben)
    assert len(device.log) == told, "what was refused is not asked again"


def test_a_user_who_was_renamed_brings_along_who_stands_for_them(simulate: Simulate) -> None:
    new = simulate(CART, user_id="new")
    old, device = new.visitor("old"), new.visitor("anon:1")
    device.becomes(old)
    old.becomes(new)
    device.event("cart_updated")
    assert new.step == "pause"
    passed = new.log[-1].input
    assert isinstance(passed, Forwarded)
    assert (passed.path, passed.input) == (("anon:1", "old"), device.log[-1].input)


def test_a_link_that_would_close_a_circle_is_none(simulate: Simulate) -> None:
    ann = simulate(CART, user_id="ann")
    ben, cat = ann.visitor("ben"), ann.visitor("cat")
    ben.becomes(ann)
    cat.becomes(ben)
    ann.becomes(cat)  # goes to cat, who is ben, who is ann
    ann.event("cart_updated")
    assert ann.step == "pause"
    assert ann.state.identity is None


@pytest.mark.parametrize("first", ["ann", "ben", "cat"])
def test_an_input_that_comes_back_in_a_circle_ends_the_circle(simulate: Simulate, first: str) -> None:
    ann = simulate(CART, user_id="ann")
    people = {"ann": ann, "ben": ann.visitor("ben"), "cat": ann.visitor("cat")}
    for name, to in (("ann", "ben"), ("ben", "cat"), ("cat", "ann")):
        people[name].state = User(identity=Identity(to))
    people[first].event("cart_updated")
    assert ann.step == "pause"
    assert [user.state.identity for user in people.values()] == [None, Identity("cat"), Identity("ann")]
    people["ben"].event("order_placed")
    assert ann.exits == ["exit_on"]


def test_an_input_that_was_passed_on_by_too_many_stays(simulate: Simulate) -> None:
    last = simulate(CART, user_id="p0")
    people = [last, *(last.visitor(f"p{number}") for number in range(1, MAX_PATH + 2))]
    for number, user in enumerate(people[1:]):
        user.state = User(identity=Identity(f"p{number}"))
    people[MAX_PATH].event("cart_updated")
    assert last.step == "pause"
    people[MAX_PATH + 1].event("cart_updated")
    assert people[1].step == "pause"


def test_nobody_stands_for_themselves(simulate: Simulate) -> None:
    user = simulate(CART)
    user.becomes(user)
    user.give(Linked("u1"))
    assert user.state.identity is None


# While it is waited


def alone(simulate: Simulate, **more: object) -> SimulatedUser:
    """Return a user who waits for an alias from which nothing is heard."""
    user = simulate(CART, **more)  # type: ignore[arg-type]
    waiting = Identity(awaited=("anon:1",), linked_at=user.now_ms, until_at=user.now_ms + MAX_WAIT_MS)
    user.state = User(user.profile, aliases=user.state.aliases, identity=waiting)
    return user


def test_what_comes_while_it_is_waited_is_kept_and_folded_in_its_order(simulate: Simulate) -> None:
    user = alone(simulate)
    user.event("cart_updated")
    assert user.journal == []
    user.wait(minutes(0.1))
    user.event("order_placed")
    user.give(Absorbed("a1", "anon:1"))
    assert [entry.kind for entry in user.journal] == ["absorbed", "entered", "step", "goal", "exited"]
    assert user.journal[-1].at - user.journal[1].at == 6_000
    assert user.state.identity is None


def test_a_timer_waits_for_the_inputs_that_were_there_before_it(simulate: Simulate) -> None:
    user = simulate(CART)
    visitor = user.visitor()
    user.event("cart_updated")
    user.wait(minutes(59.9))
    user.give(Event("m1", "identify", user.now_ms, {}, {}, ("anon:9",)))
    begun = user.now_ms
    assert user.state.identity is None  # the simulation has answered at once
    waiting = Identity(awaited=("anon:1",), linked_at=begun, until_at=begun + MAX_WAIT_MS)
    user.state = User(user.profile, user.runs, goals=user.state.goals, identity=waiting)
    user.wait(minutes(0.05))
    user.event("order_placed")  # three seconds before the reminder is due
    user.wait(minutes(0.2))
    visitor.give(Linked("u1"))
    assert (user.sent, user.exits) == ([], ["exit_on"])


def test_after_thirty_seconds_the_user_goes_on_alone(simulate: Simulate) -> None:
    user = alone(simulate)
    user.event("cart_updated")
    user.wait(minutes(1))
    assert user.step == "pause"
    assert user.reasons("not_linked") == ["nothing came within 30 s"]
    assert user.state.identity == Identity(late=("anon:1",))


def test_what_comes_later_than_that_is_united_all_the_same(simulate: Simulate) -> None:
    user = alone(simulate)
    user.wait(minutes(1))
    late = user.visitor("anon:1", campaign="spring")
    late.event("cart_updated")
    late.give(Linked("u1"))
    assert (user.step, user.profile["campaign"], user.state.identity) == ("pause", "spring", None)
    assert user.state.aliases == {"anon:1": True}


def test_no_more_than_256_inputs_are_kept(simulate: Simulate) -> None:
    user = alone(simulate)
    for number in range(MAX_KEPT):
        user.event("viewed", number=number)
    assert user.state.identity is not None and len(user.state.identity.kept) == MAX_KEPT
    user.event("cart_updated")
    assert user.reasons("not_linked") == ["256 inputs are kept already"]
    assert user.step == "pause"


def test_no_more_than_256_kib_are_kept(simulate: Simulate) -> None:
    user = alone(simulate)
    for number in range(9):
        user.event("viewed", number=number, text="x" * 30_000)
    assert user.reasons("not_linked") == ["8 inputs are kept already"]


def test_a_kept_input_that_cannot_be_folded_harms_no_other(simulate: Simulate) -> None:
    user = alone(simulate)
    user.event("cart_updated")
    user.give(Event("m2", "identify", user.now_ms, {}, {"essay": "x" * 70_000}))
    user.event("order_placed")
    user.give(Absorbed("a1", "anon:1"))
    assert user.exits == ["exit_on"]
    assert user.reasons("dropped")[0].startswith("InvalidInput: the profile would take")


def test_a_second_alias_named_while_the_first_is_awaited_is_asked_then(simulate: Simulate) -> None:
    user = alone(simulate)
    second = user.visitor("anon:2")
    second.event("cart_updated")
    second.becomes(user)
    user.event("order_placed")
    assert second.runs and user.journal == []
    user.give(Absorbed("a1", "anon:1"))
    assert user.exits == ["exit_on"]
    assert user.state.aliases == {"anon:1": True, "anon:2": True}


@pytest.mark.parametrize("ann_first", [True, False])
def test_two_who_are_linked_to_each_other_at_once_become_the_first(simulate: Simulate, ann_first: bool) -> None:
    ann = simulate(CART, user_id="ann")
    ben = ann.visitor("ben")
    until_at = ann.now_ms + MAX_WAIT_MS
    for user, other in ((ann, "ben"), (ben, "ann")):
        user.event("cart_updated", message_id=user.user_id)
        waiting = Identity(awaited=(other,), linked_at=ann.now_ms, until_at=until_at)
        user.state = User(user.profile, user.runs, identity=waiting)
    ben.event("viewed")
    for user, other in ((ann, "ben"), (ben, "ann")) if ann_first else ((ben, "ann"), (ann, "ben")):
        user.give(Linked(other))
    assert ben.state.identity == Identity("ann")
    assert (ann.state.identity, ann.exits) == (None, ["merged"])
    ben.event("order_placed")
    assert ann.exits == ["merged", "exit_on"]


def test_what_came_before_a_user_turns_out_to_be_another_is_handed_on_with_them(simulate: Simulate) -> None:
    """Ben waits for two; what the first has brought is not forgotten when the second turns out to be who he is."""
    ann = simulate(CART, user_id="ann")
    ben, device = ann.visitor("ben"), ann.visitor("anon:1", campaign="spring")
    ben.event("cart_updated")
    device.event("cart_updated")
    waiting = Identity(awaited=("anon:1", "ann"), linked_at=ann.now_ms, until_at=ann.now_ms + MAX_WAIT_MS)
    ben.state = User(ben.profile, ben.runs, identity=waiting)
    device.give(Linked("ben"))
    assert ben.state.identity is not None and ben.state.identity.awaited == ("ann",)
    ben.give(Linked("ann"))
    assert (len(ann.runs), ben.exits, ann.profile["campaign"]) == (1, ["merged"], "spring")
    device.event("order_placed")
    assert ann.exits == ["exit_on"]


# Erasure


def test_erasing_the_user_erases_who_stands_for_them(simulate: Simulate) -> None:
    new = simulate(CART, user_id="new")
    old, device = new.visitor("old"), new.visitor("anon:1")
    device.becomes(old)
    old.becomes(new)
    new.erase()
    assert [who.state for who in (new, old, device)] == [User(erased=True)] * 3
    device.event("cart_updated")
    device.becomes(new)
    assert [who.state for who in (new, old, device)] == [User(erased=True)] * 3


def test_erasing_an_alias_erases_the_user(simulate: Simulate) -> None:
    user = simulate(CART)
    visitor = user.visitor()
    visitor.becomes(user)
    visitor.erase()
    assert (user.state, visitor.state) == (User(erased=True), User(erased=True))


def test_a_link_revives_nobody_who_was_erased(simulate: Simulate) -> None:
    user = simulate(CART)
    visitor = user.visitor(campaign="spring")
    visitor.erase()
    visitor.becomes(user)
    assert visitor.state == User(erased=True)
    assert (user.reasons("not_linked"), "campaign" in user.profile) == (["erased"], False)
    other = user.visitor("anon:2", campaign="autumn")
    user.erase()
    other.becomes(user)
    other.event("cart_updated")
    assert user.state == User(erased=True)
    assert other.state.identity is None, "who isn't there any more takes over nobody"


def test_erasure_does_not_wait_for_an_alias(simulate: Simulate) -> None:
    user = alone(simulate)
    alias = user.visitor("anon:1")
    user.event("cart_updated")
    user.erase()
    assert user.state == User(erased=True)
    assert isinstance(alias.log[-1].input, Erased)


def test_an_erasure_of_somebody_it_does_not_stand_for_is_nothing_to_an_actor(simulate: Simulate) -> None:
    user = simulate(CART)
    user.event("cart_updated")
    user.give(Erased("e1", "somebody"))
    assert user.step == "pause"


# Bounds


def test_the_ids_of_a_user_are_forgotten_beyond_256(simulate: Simulate) -> None:
    user = simulate(CART)
    for number in range(MAX_ALIASES + 1):
        user.give(Event(f"m{number}", "identify", user.now_ms, {}, {}, (f"anon:{number}",)))
    assert len(user.state.aliases) == MAX_ALIASES
    assert "anon:0" not in user.state.aliases


def test_what_is_addressed_to_a_run_reaches_it_where_it_is(simulate: Simulate) -> None:
    user = simulate(CART)
    visitor = user.visitor()
    visitor.becomes(user)
    before = len(user.log)
    visitor.give(Granted("r:1", 1))
    visitor.give(WakeUp(user.now_ms))
    visitor.give(Receipt("r:1", "delivered", user.now_ms, "email"))
    assert [type(folded.input) for folded in user.log[before:]] == [Forwarded, Forwarded]
