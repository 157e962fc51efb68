"""That a user's journal reads as a story. The entries are those the engine writes for simulated lives."""

import io
from datetime import UTC

from rich.console import Console

from agents.trace import Sentence, because, show, tell
from engine import (
    Branch,
    Cohorts,
    Delay,
    Enter,
    Exit,
    Journey,
    Send,
    WaitFor,
    after,
    days,
    hours,
    minutes,
    on,
    profile,
    receipt,
    where,
)
from engine.simulator import SimulatedUser, simulate
from schemas.outputs import JournalEntry

cart = Journey(
    name="cart_abandonment",
    version=3,
    entry=on("cart_updated", where("items", ">", 0)),
    key="cart_id",
    reentry=after(days(7)),
    exit_on=on("order_placed"),
    goal=on("order_placed", within=days(3), value="total"),
    start="cooldown",
    steps={
        "cooldown": Delay(hours(1), then="remind"),
        "remind": Send("email", template="cart_reminder", then="answer"),
        "answer": WaitFor(receipt("remind", "clicked"), timeout=days(1), then="done", on_timeout="offer"),
        "offer": Branch([(profile("tier", "==", "gold"), "gold")], otherwise="experiment"),
        "gold": Send("email", template="gold_offer", then="done"),
        "experiment": Cohorts({"done": 1}),
        "done": Exit(),
    },
)


def story(user: SimulatedUser, *, with_definitions: bool = True) -> list[str]:
    def find(name: str, version: int) -> Journey | None:
        return cart if with_definitions and (name, version) == (cart.name, cart.version) else None

    return [f"{said.journey}: {said.text}" if said.journey else said.text for said in tell(user.journal, find)]


def test_a_reminder_that_was_clicked_is_told_from_the_cart_to_the_end() -> None:
    user = simulate(cart)
    user.event("cart_updated", items=2, cart_id="c1")
    user.wait(hours(1))
    for status in ("accepted", "opened", "clicked"):
        user.wait(minutes(1))
        user.receipt("remind", status)
    assert story(user) == [
        "Cart abandonment v3: entered (c1), because cart_updated happened",
        "Cart abandonment v3: waits 1 hour",
        "Cart abandonment v3: goes on, because the wait was over",
        "Cart abandonment v3: email 'cart_reminder' asked for → accepted → opened → clicked",
        "Cart abandonment v3: waits up to 1 day for: remind clicked",
        "Cart abandonment v3: goes on, because the message was clicked",
        "Cart abandonment v3: left",
    ]


def test_decisions_are_told_with_what_decided_them() -> None:
    user = simulate(cart, tier="gold")
    user.event("cart_updated", items=2, cart_id="c1")
    user.wait(hours(26))
    assert story(user)[-4:] == [
        "Cart abandonment v3: goes on, because the wait was over",
        "Cart abandonment v3: decided at 'offer': profile.tier == 'gold', so on to 'gold'",
        "Cart abandonment v3: email 'gold_offer' asked for",
        "Cart abandonment v3: left",
    ]


def test_a_draw_is_told_with_what_was_drawn() -> None:
    user = simulate(cart)
    user.event("cart_updated", items=2, cart_id="c1")
    user.wait(hours(26))
    assert "Cart abandonment v3: drawn at random at 'experiment': 'done'" in story(user)


def test_an_order_ends_the_run_and_is_what_it_was_for() -> None:
    user = simulate(cart)
    user.event("cart_updated", items=2, cart_id="c1")
    user.event("order_placed", cart_id="c1", total=40)
    assert story(user)[-2:] == [
        "Cart abandonment v3: reached its goal: order_placed happened, worth 40",
        "Cart abandonment v3: left, because order_placed happened",
    ]


def test_who_was_not_let_in_is_told_why() -> None:
    user = simulate(cart)
    user.event("cart_updated", items=2, cart_id="c1")
    user.event("cart_updated", items=3, cart_id="c1")
    assert story(user)[-1] == "Cart abandonment v3: not entered although cart_updated happened: already in it"


def test_a_message_that_was_kept_back_is_told_with_the_reason() -> None:
    user = simulate(cart, email=None)
    user.event("cart_updated", items=2, cart_id="c1")
    user.wait(hours(1))
    assert "Cart abandonment v3: email 'cart_reminder' was kept back: no address for email" in story(user)


def test_an_event_that_came_twice_is_told_once() -> None:
    user = simulate(cart)
    for _ in range(2):
        user.event("cart_updated", message_id="m1", items=2, cart_id="c1")
    assert story(user)[-1] == "cart_updated came twice and was counted once"


def test_who_asked_for_an_entry_is_told_in_words() -> None:
    upgrade = Journey(
        name="plan_upgrade", version=1, entry=on("upgraded"), start="thanks",
        steps={"thanks": Enter("thanks", then="done"), "done": Exit()},
    )  # fmt: skip
    thanks = Journey(
        name="thanks",
        version=2,
        entry=on("thanked"),
        start="wait",
        steps={"wait": Delay(days(1), then="e"), "e": Exit()},
    )
    user = simulate(upgrade, thanks)
    user.event("upgraded")
    user.enter("thanks")
    user.enter("nowhere")
    assert [said for said in story(user) if "enter" in said] == [
        "Plan upgrade v1: entered, because upgraded happened",
        "Thanks v2: entered, because plan upgrade led there",
        "Thanks v2: not entered although another system asked for it: already in it",
        "Nowhere: not entered although another system asked for it: no such journey is active",
    ]
    assert because("schedule #thanks@3") == "its scheduled time had come"
    twice = entry("dropped", reason="duplicate", cause="api #thanks:1")
    assert [said.text for said in tell([twice])] == ["an entry by API came twice and was counted once"]


def test_without_its_definition_a_journey_is_told_by_the_names_of_its_steps() -> None:
    user = simulate(cart)
    user.event("cart_updated", items=2, cart_id="c1")
    user.wait(hours(1))
    assert story(user, with_definitions=False) == [
        "Cart abandonment v3: entered (c1), because cart_updated happened",
        "Cart abandonment v3: arrived at 'cooldown'",
        "Cart abandonment v3: goes on, because the wait was over",
        "Cart abandonment v3: arrived at 'remind'",
        "Cart abandonment v3: email 'cart_reminder' asked for",
        "Cart abandonment v3: arrived at 'answer'",
    ]


def entry(kind: str, at: int = 0, **more: object) -> JournalEntry:
    return JournalEntry(kind, at, "default", "u1", **more)  # type: ignore[arg-type]


def test_what_the_channel_does_is_part_of_the_message() -> None:
    sent = entry(
        "sent", message="r:2", journey="welcome", version=1, run="r", detail={"channel": "email", "template": "a@1"}
    )
    attempt = entry("attempt", message="r:2")
    retry = entry("retry", message="r:2", reason="450 busy")
    bounced = entry("receipt", message="r:2", reason="bounced", detail={"detail": "550 no such user"})
    unknown = entry("receipt", message="r:2", reason="unknown")

    def fate(*entries: JournalEntry) -> str:
        return tell([sent, *entries])[0].text.removeprefix("email 'a' asked for")

    assert fate(attempt) == " → on its way to the provider"
    assert fate(attempt, retry) == " → the provider said later (450 busy)"
    assert fate(attempt, retry, attempt, bounced) == " → bounced (550 no such user)"
    assert fate(attempt, unknown) == " → unknown: it may have arrived"


def test_a_click_that_is_in_the_log_before_the_answer_of_the_provider_is_told_after_it() -> None:
    sent = entry("sent", message="r:2", run="r", detail={"channel": "email", "template": "a@1"})
    receipts = [entry("receipt", message="r:2", reason=status) for status in ("clicked", "accepted", "opened")]
    assert tell([sent, *receipts])[0].text == "email 'a' asked for → accepted → opened → clicked"


def test_a_receipt_whose_message_is_no_longer_in_the_journal_is_told_alone() -> None:
    late = entry("receipt", message="r:2", journey="welcome", version=1, run="r", reason="opened")
    assert [said.text for said in tell([late])] == ["an earlier message: opened"]


def test_a_suspended_run_is_told_with_the_error_and_with_who_let_it_go_on() -> None:
    told = [
        said.text
        for said in tell(
            [
                entry("suspended", journey="welcome", version=1, run="r", step="plan", reason="KeyError: 'x'"),
                entry("resumed", journey="welcome", version=1, run="r", step="plan", cause="operator"),
            ]
        )
    ]
    assert told == ["stands still at 'plan' after an error: KeyError: 'x'", "was let go on by an operator at 'plan'"]


def test_every_day_has_its_heading() -> None:
    day = 86_400_000
    console = Console(file=io.StringIO(), width=100)
    said = [Sentence(0, "Welcome v1", "entered"), Sentence(day, "Welcome v1", "left", "end"), Sentence(day, "", "more")]
    show(console, "What happened to ada", said, UTC)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert [line for line in text.splitlines() if line.endswith("1970")] == [
        "Thursday, 01 January 1970",
        "Friday, 02 January 1970",
    ]
    assert "00:00:00  Welcome v1              left" in text
