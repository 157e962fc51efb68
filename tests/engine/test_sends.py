"""How a message is asked for, kept back or given up, and what its receipts do."""

from itertools import permutations
from typing import Any

import pytest

from engine import Branch, Delay, Exit, Journey, Send, WaitFor, always, days, hours, minutes, on, receipt
from engine.policy import MAX_ADDRESS
from engine.simulator import REACHABLE, Simulate, SimulatedUser
from schemas.inputs import Receipt, ReceiptStatus


def sending(send: Send) -> Journey:
    """One send; its ways out are exits that say which was taken."""
    return Journey(
        name="sending",
        version=1,
        entry=on("start"),
        reentry=always,
        start="send",
        steps={
            "send": send,
            "sent": Exit("sent"),
            "blocked": Exit("blocked"),
            "failed": Exit("failed"),
        },
    )


def asking(*cases: ReceiptStatus, pause: bool = False) -> Journey:
    """Sends, then waits a day for receipts; each status is an exit. With `pause` it looks only after an hour."""
    return Journey(
        name="asking",
        version=1,
        entry=on("start"),
        start="send",
        steps={
            "send": Send("email", template="hello", then="pause" if pause else "answer"),
            "pause": Delay(hours(1), then="answer"),
            "answer": WaitFor(
                [(receipt("send", status), status) for status in cases], timeout=days(1), on_timeout="silent"
            ),
            **{status: Exit(status) for status in cases},
            "silent": Exit("silent"),
        },
    )


def test_a_send_goes_on_at_once(simulate: Simulate) -> None:
    user = simulate(sending(Send("email", template="hello", then="sent")))
    user.event("start")
    assert (user.sent, user.exits) == (["email:hello"], ["sent"])


def test_a_message_says_all_that_its_channel_needs(simulate: Simulate) -> None:
    journey = sending(Send("email", template="hello", then="sent", topic="news", transactional=True))
    user = simulate(journey, first_name="Ann")
    user.event("start", cart_id="c1")
    [message] = user.messages
    assert message.id == f"{message.run}:1"
    assert (message.tenant, message.user, message.channel) == ("test", "u1", "email")
    assert message.address == REACHABLE["email"]
    assert (message.journey, message.version, message.step) == ("sending", 1, "send")
    assert (message.requested_at, message.expires_at) == (user.now_ms, user.now_ms + 86_400_000)
    assert message.profile["first_name"] == "Ann"
    assert message.event == {"cart_id": "c1"}
    assert (message.topic, message.transactional) == ("news", True)


@pytest.mark.parametrize(
    ("missing", "sent"),
    [
        ([], ["push:hello"]),
        (["push_token"], ["sms:hello"]),
        (["push_token", "phone"], ["email:hello"]),
        (["push_token", "phone", "email"], []),
    ],
)
def test_of_a_list_of_channels_the_first_on_which_the_user_can_be_reached_is_taken(
    simulate: Simulate, missing: list[str], sent: list[str]
) -> None:
    journey = sending(Send(["push", "sms", "email"], template="hello", then="sent", on_blocked="blocked"))
    unreachable: dict[str, Any] = dict.fromkeys(missing)
    user = simulate(journey, **unreachable)
    user.event("start")
    assert user.sent == sent
    assert user.exits == (["sent"] if sent else ["blocked"])


def test_a_message_that_is_kept_back_says_why_and_leads_to_on_blocked_or_else_to_then(simulate: Simulate) -> None:
    for send, way in (
        (Send(["sms", "email"], template="hello", then="sent", on_blocked="blocked"), "blocked"),
        (Send(["sms", "email"], template="hello", then="sent"), "sent"),
        (Send(["sms", "email"], template="hello", then="sent", on_failed="failed"), "sent"),
        (Send(["sms", "email"], template="hello", then="sent", on_failed="failed", on_blocked="blocked"), "blocked"),
    ):
        user = simulate(sending(send), email=None, phone=None)
        user.event("start")
        assert user.sent == []
        assert user.reasons("blocked") == ["no address for sms or email"]
        assert user.exits == [way]


@pytest.mark.parametrize("address", ["", 5, ["a@b.c"], "x" * (MAX_ADDRESS + 1)])
def test_what_cannot_be_an_address_is_none(simulate: Simulate, address: object) -> None:
    user = simulate(sending(Send(["email", "inapp"], template="hello", then="sent")), email=address)
    user.event("start")
    assert user.sent == ["inapp:hello"]


def test_a_channel_without_an_address_of_its_own_reaches_the_user_by_id(simulate: Simulate) -> None:
    user = simulate(sending(Send("inapp", template="hello", then="sent")), user_id="ann")
    user.event("start")
    assert user.messages[0].address == "ann"


# on_failed


CAREFUL = sending(Send("email", template="hello", then="sent", on_failed="failed"))


def test_with_on_failed_the_run_waits_for_accepted(simulate: Simulate) -> None:
    user = simulate(CAREFUL)
    user.event("start")
    user.event("something else")
    user.receipt("send", "delivered")
    assert user.step == "send"
    user.receipt("send", "accepted")
    assert user.exits == ["sent"]


@pytest.mark.parametrize("status", ["failed", "bounced", "dropped"])
def test_with_on_failed_what_was_not_taken_leads_there(simulate: Simulate, status: ReceiptStatus) -> None:
    user = simulate(CAREFUL)
    user.event("start")
    user.receipt("send", status)
    assert user.exits == ["failed"]


def test_with_on_failed_an_hour_of_silence_counts_as_failed(simulate: Simulate) -> None:
    user = simulate(CAREFUL)
    user.event("start")
    user.wait(minutes(59))
    assert user.step == "send"
    user.wait(minutes(1))
    assert user.exits == ["failed"]


@pytest.mark.parametrize(("later", "exits"), [("accepted", ["sent"]), ("failed", ["failed"]), (None, ["failed"])])
def test_with_on_failed_a_message_whose_fate_is_unknown_is_waited_for(
    simulate: Simulate, later: ReceiptStatus | None, exits: list[str]
) -> None:
    user = simulate(CAREFUL)
    user.event("start")
    user.receipt("send", "unknown")  # It may be with the user already: another channel now would tell them twice.
    assert user.step == "send"
    if later is not None:
        user.receipt("send", later)
        assert user.exits == exits
    user.wait(hours(1))
    assert user.exits == exits


def test_the_hour_of_a_message_that_went_out_late_begins_when_it_went_out(simulate: Simulate) -> None:
    journey = Journey(
        name="careful",
        version=1,
        entry=on("start"),
        start="pause",
        steps={
            "pause": Delay(hours(1), then="send"),
            "send": Send("email", template="hello", then="sent", on_failed="failed"),
            "sent": Exit("sent"),
            "failed": Exit("failed"),
        },
    )
    user = simulate(journey)
    user.event("start")
    user.sleep(hours(6))
    user.wake_up()
    assert (user.sent, user.step) == (["email:hello"], "send")
    user.wait(minutes(59))
    user.receipt("send", "accepted")
    assert user.exits == ["sent"]


def test_a_second_attempt_hears_only_its_own_receipts(simulate: Simulate) -> None:
    journey = Journey(
        name="again",
        version=1,
        entry=on("start"),
        start="send",
        steps={
            "send": Send("email", template="hello", then="sent", on_failed="pause"),
            "pause": Delay(hours(1), then="send"),
            "sent": Exit("sent"),
        },
    )
    user = simulate(journey)
    user.event("start")
    user.receipt("send", "bounced")
    user.wait(hours(1))
    first, second = user.messages
    assert first.id != second.id
    user.event("anything")
    assert user.step == "send"  # The bounce was the first attempt's.
    user.give(Receipt(first.id, "accepted", user.now_ms, "email"))  # of the first attempt, late
    assert user.step == "send"
    user.give(Receipt(second.id, "accepted", user.now_ms, "email"))
    assert user.exits == ["sent"]


# Receipts


def test_a_click_moves_a_run_that_waits_for_it(simulate: Simulate) -> None:
    user = simulate(asking("clicked"))
    user.event("start")
    user.receipt("send", "accepted")
    user.receipt("send", "opened")
    assert user.step == "answer"
    user.receipt("send", "clicked")
    assert user.exits == ["clicked"]


def test_a_receipt_that_is_already_there_holds_at_once(simulate: Simulate) -> None:
    user = simulate(asking("clicked", pause=True))
    user.event("start")
    user.receipt("send", "clicked")
    assert user.step == "pause"
    user.wait(hours(1))
    assert user.exits == ["clicked"]


@pytest.mark.parametrize("order", list(permutations(["accepted", "delivered", "opened"])))
def test_the_order_in_which_receipts_come_makes_no_difference(
    simulate: Simulate, order: tuple[ReceiptStatus, ...]
) -> None:
    user = simulate(asking("clicked", pause=True))
    user.event("start")
    for status in order:
        user.receipt("send", status)
    assert user.runs[0].sends["send"].statuses == ("accepted", "delivered", "opened")


def test_a_receipt_that_comes_twice_is_no_news(simulate: Simulate) -> None:
    user = simulate(asking("clicked"))
    user.event("start")
    user.receipt("send", "opened")
    before, told = user.state, len(user.journal)
    user.receipt("send", "opened")
    assert user.state is before
    assert len(user.journal) == told


def test_receipts_find_the_run_whose_message_they_are_about(simulate: Simulate) -> None:
    journey = Journey(
        name="carts",
        version=1,
        entry=on("start"),
        key="cart_id",
        start="send",
        steps={
            "send": Send("email", template="hello", then="answer"),
            "answer": WaitFor(receipt("send", "clicked"), timeout=days(1), then="end", on_timeout="end"),
            "end": Exit(),
        },
    )
    user = simulate(journey)
    user.event("start", cart_id="a")
    user.event("start", cart_id="b")
    first = user.messages[0]
    user.give(Receipt(first.id, "clicked", user.now_ms, "email"))
    assert [run.key for run in user.runs] == ["b"]


def test_a_receipt_after_the_runs_end_and_one_of_nobody_are_told_and_change_nothing(simulate: Simulate) -> None:
    user = simulate(sending(Send("email", template="hello", then="sent")))
    user.event("start")
    before = user.state
    user.receipt("send", "opened")
    for message in ("", "x", "nothing.1.aaaa:1", "a.b.c.d:e", ":"):
        user.give(Receipt(message, "opened", user.now_ms, "email"))
    assert user.state is before
    told = [entry for entry in user.journal if entry.kind == "receipt"]
    assert len(told) == 6
    assert (told[0].journey, told[0].version, told[0].reason) == ("sending", 1, "opened")


def test_of_two_receipts_that_are_both_there_the_first_in_written_order_wins(simulate: Simulate) -> None:
    user = simulate(asking("bounced", "clicked", pause=True))
    user.event("start")
    user.receipt("send", "clicked")
    user.receipt("send", "bounced")
    user.wait(hours(1))
    assert user.exits == ["bounced"]


def test_a_branch_can_ask_what_became_of_a_message(simulate: Simulate) -> None:
    journey = Journey(
        name="branching",
        version=1,
        entry=on("start"),
        start="send",
        steps={
            "send": Send("email", template="hello", then="pause"),
            "pause": Delay(days(1), then="look"),
            "look": Branch(
                [(receipt("send", "clicked"), "warm"), (receipt("send", "opened"), "mild")], otherwise="cold"
            ),
            "warm": Exit("warm"),
            "mild": Exit("mild"),
            "cold": Exit("cold"),
        },
    )

    def outcome(*statuses: ReceiptStatus) -> list[str]:
        user: SimulatedUser = simulate(journey)
        user.event("start")
        for status in statuses:
            user.receipt("send", status)
        user.wait(days(1))
        return user.exits

    assert outcome() == ["cold"]
    assert outcome("opened") == ["mild"]
    assert outcome("opened", "clicked") == ["warm"]


def test_an_exit_can_be_a_receipt(simulate: Simulate) -> None:
    journey = Journey(
        name="complaints",
        version=1,
        entry=on("start"),
        exit_on=receipt("send", "complained"),
        start="send",
        steps={
            "send": Send("email", template="hello", then="pause"),
            "pause": Delay(days(1), then="again"),
            "again": Send("email", template="again", then="end"),
            "end": Exit(),
        },
    )
    user = simulate(journey)
    user.event("start")
    user.receipt("send", "complained")
    user.wait(days(2))
    assert (user.sent, user.exits) == (["email:hello"], ["exit_on"])


def test_a_message_carries_the_profile_as_it_was_when_it_was_asked_for(simulate: Simulate) -> None:
    user = simulate(sending(Send("email", template="hello", then="sent")), city="Lyon")
    user.event("start")
    user.identify(city="Oslo")
    assert user.messages[0].profile["city"] == "Lyon"
