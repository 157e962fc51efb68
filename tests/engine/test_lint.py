"""That a check finds what is wrong, says where and what would be right, and leaves what is right alone."""

import dataclasses
from datetime import time
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given

from agents.event_schemas import read_declarations
from agents.folder import read_folder
from engine import (
    AtMost,
    Branch,
    Call,
    Delay,
    DelayUntil,
    Emit,
    Enter,
    Exit,
    Journey,
    Policy,
    QuietHours,
    Send,
    Update,
    WaitFor,
    after,
    all_of,
    always,
    any_of,
    changed,
    days,
    did,
    hours,
    minutes,
    not_,
    on,
    profile,
    receipt,
    value,
    where,
)
from engine.event_schemas import Declarations, Shape
from engine.lint import Finding, Surroundings, lint
from engine.simulator import Simulate
from tests.engine.generated import seeds, some_journey

EXAMPLES = Path(__file__).parents[2] / "journeys"

CART = Shape.of(
    {
        "properties": {
            "cart_id": {"type": "string"},
            "items": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "lines": {"type": "array", "items": {"properties": {"name": {"type": "string"}}}},
            "shipping": {"type": "object", "properties": {"city": {"type": ["string", "null"]}}},
        },
        "required": ["cart_id"],
    }
)
ORDER = Shape.of({"properties": {"total": {"type": "number"}, "currency": {"enum": ["EUR", "USD"]}}})
PROFILE = Shape.of({"properties": {"tier": {"enum": ["gold", "silver"]}, "age": {"type": "integer"}}})
DECLARED = Surroundings(declared=Declarations({"cart_updated": CART, "order_placed": ORDER}, PROFILE))


def mail(then: str = "done", **more: Any) -> Send:
    return Send("email", template="hello", then=then, **more)


def journey(entry: Any = None, **given: Any) -> Journey:
    """Return a journey of these steps and fields; "done" is added if something leads to it."""
    known = {field.name for field in dataclasses.fields(Journey)}
    fields = {"version": 1, **{name: given.pop(name) for name in list(given) if name in known}}
    steps = given or {"hello": mail()}
    led_to = {target for step in steps.values() for _, target in step.edges()}
    ends = {"done": Exit()} if "done" in led_to else {}
    return Journey(
        name="trial", entry=entry or on("cart_updated"), start=next(iter(steps)), steps={**steps, **ends}, **fields
    )


def found(trial: Journey, surroundings: Surroundings = DECLARED) -> list[str]:
    return [f"{finding.severity} {finding}" for finding in lint(trial, surroundings)]


def only(trial: Journey, surroundings: Surroundings = DECLARED) -> str:
    """Return the one thing that is found."""
    findings = found(trial, surroundings)
    assert len(findings) == 1, findings
    return findings[0]


# The table


def test_a_step_that_no_way_leads_to() -> None:
    assert only(journey(pause=Delay(days(1), then="done"), lost=mail())) == (
        "warning lost: no way leads to this step; lead to it from another step, or remove it"
    )
    assert not found(journey(pause=Delay(days(1), then="done"), lost=mail(), version=2, moves={"old": "lost"}))


def test_a_wait_that_can_be_over_on_arrival_makes_a_loop(simulate: Simulate) -> None:
    trial = journey(
        wait=WaitFor(profile("tier", "==", "gold"), timeout=days(1), then="hello", on_timeout="done"),
        hello=mail("wait"),
    )
    assert only(trial) == (
        "warning wait: wait > hello > wait is a loop that does not wait while `profile.tier == 'gold'` holds, and the run"
        " would be suspended; put a Delay into it"
    )
    user = simulate(trial, tier="gold")
    user.event("cart_updated")
    assert "loops without waiting" in user.runs[0].suspended
    awaits_event = WaitFor(on("order_placed"), timeout=days(1), then="hello", on_timeout="done")
    assert not found(journey(wait=awaits_event, hello=mail("wait")))


def test_an_event_in_a_branch_is_never_at_hand(simulate: Simulate) -> None:
    trial = journey(decide=Branch([(on("order_placed"), "hello")], otherwise="done"), hello=mail())
    assert only(trial).startswith("error decide: `order_placed` can never hold: a Branch decides at once")
    user = simulate(trial)
    user.event("order_placed")
    user.event("cart_updated")
    assert user.sent == []
    assert not found(journey(decide=Branch([(did("order_placed"), "hello")], otherwise="done"), hello=mail()))


def test_the_second_of_two_equal_cases_never_wins() -> None:
    gold = profile("tier", "==", "gold")
    trial = journey(decide=Branch([(gold, "hello"), (gold, "done")], otherwise="done"), hello=mail())
    assert "the second `profile.tier == 'gold'` never leads to 'done'" in only(trial)


def test_a_condition_without_parts() -> None:
    trial = journey(decide=Branch([(any_of(all_of()), "hello")], otherwise="done"), hello=mail())
    assert only(trial) == (
        "warning decide: `all_of()` without conditions always holds; put conditions into it, or leave it out"
    )


def test_a_date_that_has_passed_and_sends_at_once() -> None:
    trial = journey(due=DelayUntil(date=value("profile.due"), if_past="continue", then="hello"), hello=mail())
    assert [finding.rule for finding in lint(trial)] == ["sends_at_once", "sends_at_once"]
    assert str(lint(trial)[0]) == (
        "due: a date that has passed leads to 'hello', which sends at once, at whatever time of day;"
        ' say `if_past="exit"`, or lead to a step that waits for a good time'
    )
    assert not lint(journey(due=DelayUntil(date=value("profile.due"), if_past="exit", then="hello"), hello=mail()))


def test_a_wait_of_more_than_a_year() -> None:
    trial = journey(wait=WaitFor(on("order_placed"), timeout=days(400), then="done", on_timeout="done"))
    assert "the wait may last 400 days" in only(trial)


def test_reentry_that_is_shorter_than_the_journey(simulate: Simulate) -> None:
    trial = journey(pause=Delay(days(10), then="done"), reentry=after(days(7)))
    assert only(trial) == (
        "warning reentry: a user may enter again after 1 week, and a run may last 10 days: who is still in it then is"
        " turned away; say after(10 days) or longer"
    )
    user = simulate(trial)
    user.event("cart_updated")
    user.wait(days(8))
    user.event("cart_updated")
    assert user.reasons("not_entered") == ["already in it"]
    assert not found(journey(pause=Delay(days(7), then="done"), reentry=after(days(7))))


def test_a_goal_that_is_over_before_the_first_message() -> None:
    trial = journey(pause=Delay(days(3), then="hello"), hello=mail(), goal=on("order_placed", within=days(3)))
    assert "the goal counts for 3 days, and the first message goes out after 3 days" in only(trial)
    assert not found(journey(pause=Delay(days(3), then="hello"), hello=mail(), goal=on("order_placed", within=days(4))))


def test_a_promise_that_does_not_hold() -> None:
    daily = {"hello": mail("pause"), "pause": Delay(days(1), then="hello")}
    assert only(journey(**daily, at_most=AtMost(5, days(7)))) == (
        "error at_most: at_most promises 5 within 1 week, and a user can get 8 (what is late by less than `max_lateness`"
        " counts where it goes out); put longer delays between the sends, or promise 8"
    )
    assert not found(journey(**daily, at_most=AtMost(8, days(7))))
    assert "nothing bounds how many a user can get: re-entry is always" in only(
        journey(reentry=always, at_most=AtMost(5, days(7)))
    )
    assert "(for each cart_id at most 1): each cart_id has a run of its own" in only(
        journey(key="cart_id", at_most=AtMost(5, days(7)))
    )


def test_a_journey_to_enter_that_is_not_there() -> None:
    trial = journey(next=Enter("win_bak", then="done"))
    there = Surroundings(journeys=frozenset({"win_back", "welcome"}))
    assert only(trial, there) == "error next: there is no journey 'win_bak' to enter; did you mean 'win_back'?"
    assert not found(trial, Surroundings())


# Events and attributes


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (on("cart_updated", where("item", ">", 0)), "`event.item` is not declared for 'cart_updated'; did you mean 'items'?"),
        (on("cart_updated", where("items", "==", "3")), "`items == '3'` asks for '3', which it can't be"),
        (on("cart_updated", where("items", "==", "4")), "; `event.items` is declared as integer"),
        (on("cart_updated", where("cart_id", ">", 3)), "`cart_id > 3` compares what has no order with it"),
        (on("cart_updated", where("tags", "contains", 3)), "`tags contains 3` asks for what it can't contain"),
        (on("cart_updated", where("shipping.town", "==", "Lyon")), "`event.shipping.town` is not declared"),
        (on("cart_updated", where("shipping.city", "==", 5)), "`event.shipping.city` is declared as null or string"),
        (on("order_placed", where("currency", "in", ["EUR", "GBP"])), "asks for 'GBP', which it can't be"),
        (on("order_placed", where("currency", "==", "GBP")), "`event.currency` is declared as one of 'EUR', 'USD'"),
        (on("order_placed", where("total", "starts_with", "1")), "can't be judged: 'starts_with' is for string"),
        (all_of(on("order_placed"), where("totl", ">", 1)), "`event.totl` is not declared for 'order_placed'"),
        (not_(on("order_placed", where("totl", ">", 1))), "`event.totl` is not declared"),
        (profile("teir", "==", "gold"), "`profile.teir` is not declared in the profile's schema; did you mean 'tier'?"),
        (profile("tier", "!=", "bronze"), "asks for 'bronze', which it can't be"),
        (did("order_placed", within=days(3), total="totle", total_at_least=5), "`event.totle` is not declared"),
        (did("order_placed", within=days(3), total="total", total_at_least=5), ""),
        (profile("age", "within_last", days(3)), ""),
        (profile("tier", "exists"), ""),
        (profile("nothing_known", "exists", False), ""),
        (profile("timezone", "==", "Europe/Berlin"), ""),
        (on("cart_updated", where("items", ">", 2.5), where("tags", "contains", "a"), where("lines", "exists")), ""),
        (on("order_placed", where("total", "==", 3)), ""),
    ],
)  # fmt: skip
def test_what_is_asked_of_events_and_profiles_is_compared_with_what_is_declared(condition: Any, expected: str) -> None:
    trial = journey(wait=WaitFor(condition, timeout=days(1), then="done", on_timeout="done"))
    findings = found(trial)
    assert len(findings) == bool(expected)
    assert expected in "".join(findings)
    assert not found(trial, Surroundings())


def test_an_event_that_nobody_declares_may_be_a_slip() -> None:
    trial = journey(wait=WaitFor(on("order_plced"), timeout=days(1), then="done", on_timeout="done"))
    assert only(trial) == "warning wait: the event 'order_plced' is not declared; did you mean 'order_placed'?"


def test_in_a_branch_a_property_is_one_of_the_event_that_began_the_run() -> None:
    decide = Branch([(where("total", ">", 5), "hello")], otherwise="done")
    assert "`event.total` is not declared for 'cart_updated'" in only(journey(decide=decide, hello=mail()))
    assert not found(journey(any_of(on("cart_updated"), on("order_placed")), decide=decide, hello=mail()))
    assert not found(journey(changed("tier"), decide=decide, hello=mail()))


def test_a_keyed_run_never_hears_an_event_without_the_key(simulate: Simulate) -> None:
    trial = journey(key="cart_id", exit_on=on("order_placed"), pause=Delay(days(1), then="done"))
    assert only(trial) == (
        "error exit_on: 'order_placed' has no 'cart_id', which is the journey's key: a run hears only events with its key;"
        " declare 'cart_id' in the schema of 'order_placed' if it has one, or do without that event"
    )
    user = simulate(trial)
    user.event("cart_updated", cart_id="c1")
    user.event("order_placed", total=5)
    assert user.step == "pause"


def test_what_steps_fill_in_is_looked_up() -> None:
    assert "`event.cart` is not declared" in only(journey(mark=Update({"tier": value("event.cart")}, then="done")))
    assert "`profile.stage` is not declared" in only(journey(mark=Update({"stage": "reminded"}, then="done")))
    assert "`profile.tier` is set to 'bronze'; it is declared as one of 'gold', 'silver'" in only(
        journey(mark=Update({"tier": "bronze"}, then="done"))
    )
    assert not found(journey(mark=Update({"tier": "gold", "age": None}, then="done")))
    assert "a run has no 'step'; a run has id, journey, key" in only(
        journey(call=Call("https://example.com", body={"x": value("run.step")}, then="done", on_failed="done"))
    )
    assert "'scor' is not a step that calls; did you mean 'score'?" in only(
        journey(
            score=Call("https://example.com", then="mark", on_failed="done"),
            mark=Update({"age": value("answer.scor.age")}, then="done"),
        )
    )


def test_what_is_emitted_is_as_declared() -> None:
    assert found(journey(emit=Emit("cart_updated", {"itms": 3, "items": "3"}, then="done"))) == [
        "error emit: `event.itms` is not declared for 'cart_updated'; did you mean 'items'?",
        "error emit: 'cart_updated' is emitted with 'items' as '3'; it is declared as integer",
        "error emit: 'cart_updated' is emitted without 'cart_id'; the schema requires it; add it to `properties`",
    ]


# Messages


def sending(html: str, step: Send | None = None, **parts: str) -> tuple[Journey, Surroundings]:
    templates = {"hello": {"subject": "Hello", "html": html, **parts}}
    return journey(hello=step or mail()), Surroundings(templates, DECLARED.declared)


OUT = '<a href="{{ unsubscribe_url }}">no more</a>'


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("{{ first_name }}", "`first_name` is nothing a template is given; there are"),
        ("{{ tier }}", "`tier` is nothing a template is given; did you mean `profile.tier`?"),
        ("{{ items }}", "`items` is nothing a template is given; did you mean `event.items`?"),
        ("{{ profil.tier }}", "`profil.tier` is nothing a template is given; did you mean `profile`?"),
        ("\n\n{{ profile.teir }}", "hello.html:3: `profile.teir` is not declared in the profile's schema"),
        ("{{ event.itms | default: 3 }}", "`event.itms` is not declared in the schema of 'cart_updated'"),
        ("{{ event.shipping.town }}", "`event.shipping.town` is not declared"),
        ("{% for line in event.lines %}{{ line.name }}{% endfor %}", ""),
        ("{{ event.lines[0].name }} {{ event.lines.first.name }} {{ event.lines.size }} {{ event[profile.tier] }}", ""),
        ("{{ event.lines[0].nme }}", "`event.lines[0].nme` is not declared"),
        ("{% assign who = profile.tier %}{{ who }} {{ message.id }} {{ profile.email }}", ""),
        ("{{ message.subject }}", "a message has no 'subject'"),
        ("{% if profile.tier %}", "expected tag endif, found end of expression (line 1)"),
        ("{{ profile.tier | shout }}", "there is no filter 'shout'"),
        ("{% include 'footer' %}", "unexpected tag 'include' (line 1)"),
    ],
)  # fmt: skip
def test_variables_of_templates_are_compared_with_what_a_message_is_given(html: str, expected: str) -> None:
    findings = found(*sending(html + OUT))
    assert len(findings) == bool(expected), findings
    assert expected in "".join(findings)


def test_a_mail_has_a_subject_a_body_and_a_way_out() -> None:
    assert "without a way out of it that its reader can see" in only(*sending("<p>Hi</p>"))
    assert not found(*sending("<p>Hi</p>", mail(transactional=True)))
    assert "`unsubscribe_url` is empty in a transactional message" in only(*sending(OUT, mail(transactional=True)))
    assert "the mail 'hello' has no subject" in only(*sending(OUT, subject=""))
    assert "the mail 'hello' has neither html nor text" in only(*sending(""))
    assert not found(*sending("", mail(), text="bye: {{ unsubscribe_url }}"))
    assert "hello.txt: a mail about 'marketing'" in only(*sending(OUT, mail(), text="bye"))


def test_a_template_that_is_not_there() -> None:
    there = Surroundings({"helo": {"subject": "x", "text": "{{ unsubscribe_url }}"}})
    assert only(journey(hello=mail()), there) == "error hello: there is no template 'hello'; did you mean 'helo'?"
    assert "put hello.html and hello.subject.txt beside" in only(journey(hello=mail()), Surroundings({}))
    assert not found(journey(hello=mail()), Surroundings())


def test_a_channel_without_a_worker() -> None:
    trial = journey(hello=Send(["webhok", "email"], template="hello", then="done"))
    assert only(trial, Surroundings(channels=frozenset({"email", "webhook"}))) == (
        "warning hello: no worker sends 'webhok': its messages wait in their topic for one of yours; did you mean 'webhook'?"
    )


def waiting_for(status: Any, send: Send) -> Journey:
    return journey(hello=send, wait=WaitFor(receipt("hello", status), timeout=days(1), then="done", on_timeout="done"))


def test_receipts_that_can_never_come() -> None:
    late = journey(
        wait=WaitFor(receipt("hello", "opened"), timeout=days(1), then="hello", on_timeout="hello"), hello=mail()
    )
    assert "`hello opened` can never hold here: no way leads from 'hello' to this step" in only(late)
    webhook = Send("webhook", template="hello", then="wait")
    assert "nobody learns that of a webhook" in only(waiting_for("opened", webhook))
    assert not found(waiting_for("accepted", webhook))
    assert "has no link to unsubscribe" in only(waiting_for("unsubscribed", mail("wait", transactional=True)))
    no_link = Surroundings({"hello": {"subject": "x", "html": OUT}})
    assert "'hello' has no link to click" in only(waiting_for("clicked", mail("wait")), no_link)
    assert not found(waiting_for("opened", mail("wait")), no_link)
    text_only = Surroundings({"hello": {"subject": "x", "text": "{{ unsubscribe_url }}"}})
    assert "'hello' is text only" in only(waiting_for("opened", mail("wait")), text_only)
    with_link = Surroundings({"hello": {"subject": "x", "html": f"<a href='https://example.com'>x</a>{OUT}"}})
    assert not found(waiting_for("clicked", mail("wait")), with_link)


# The policy


QUIET = Policy(version=1, topics={"marketing": "opt_in"}, quiet_hours=(QuietHours(time(21), time(8), ("email",)),))


def test_a_topic_that_the_policy_does_not_name_needs_no_consent() -> None:
    assert only(journey(hello=mail(topic="marketting")), Surroundings(policy=QUIET)) == (
        "warning hello: the policy has no topic 'marketting', so the message needs no consent; did you mean 'marketing'?"
    )
    assert not found(journey(hello=mail(topic="receipts", transactional=True)), Surroundings(policy=QUIET))


def test_a_message_that_quiet_hours_would_lose(simulate: Simulate) -> None:
    trial = journey(hello=mail(max_lateness=hours(2)))
    assert only(trial, Surroundings(policy=QUIET)) == (
        "warning hello: quiet hours last 11 hours, and a message that is held longer than 2 hours is dropped;"
        " let max_lateness be more than 11 hours"
    )
    user = simulate(trial, QUIET, consent={"marketing": True})
    user.wait(hours(12))
    user.event("cart_updated")
    user.wait(days(1))
    assert user.sent == []
    assert user.reasons("blocked") == ["late"]
    assert not found(journey(hello=mail(max_lateness=hours(12))), Surroundings(policy=QUIET))
    assert not found(journey(hello=mail(max_lateness=minutes(5), quiet_hours="ignore")), Surroundings(policy=QUIET))


def test_a_time_to_send_that_lies_in_quiet_hours() -> None:
    def at(hour: int, channel: str = "email") -> Journey:
        return journey(
            morning=DelayUntil(at=time(hour), then="decide"),
            decide=Branch([(profile("tier", "==", "gold"), "hello")], otherwise="done"),
            hello=Send(channel, template="hello", then="done"),
        )

    assert only(at(7), Surroundings(policy=QUIET)) == (
        "warning morning: 07:00 lies in the quiet hours (21:00 to 08:00): 'hello' will be held until 08:00;"
        ' wait for a time outside them, or say quiet_hours="ignore" at the send'
    )
    assert only(at(22), Surroundings(policy=QUIET))
    assert not found(at(8), Surroundings(policy=QUIET))
    assert not found(at(7, "webhook"), Surroundings(policy=QUIET))


# The whole


@pytest.mark.parametrize("name", ["cart_abandonment", "welcome", "win_back"])
def test_the_examples_are_in_order(name: str) -> None:
    folder = read_folder(EXAMPLES)
    surroundings = Surroundings(
        folder.templates, read_declarations(EXAMPLES), frozenset(folder.files), frozenset({"email"}), QUIET
    )
    assert lint(import_module(f"journeys.{name}").journey, surroundings) == []


def test_errors_come_first_and_nothing_is_said_twice() -> None:
    html = "{{ profile.teir }}"
    steps = {"first": mail("second"), "second": mail(), "lost": mail()}
    findings = lint(journey(**steps), sending(html)[1])
    assert [finding.severity for finding in findings] == ["error", "warning", "warning"]
    assert len(set(findings)) == 3


@given(seeds)
def test_any_journey_can_be_checked(seed: int) -> None:
    for finding in lint(some_journey(Random(seed)), DECLARED):
        assert isinstance(finding, Finding)
        assert finding.problem
        assert finding.remedy
        assert "\n" not in str(finding)
