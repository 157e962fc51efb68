"""Steps that change the profile, emit events, enter other journeys and call other systems."""

from engine import (
    Branch,
    Call,
    Delay,
    Emit,
    Enter,
    Exit,
    Journey,
    Send,
    Update,
    WaitFor,
    always,
    answer,
    api,
    changed,
    days,
    hours,
    minutes,
    on,
    profile,
    value,
)
from engine.simulator import Simulate
from engine.steps import AnyStep
from schemas.inputs import Receipt

END: dict[str, AnyStep] = {"end": Exit()}


def test_an_update_takes_values_from_event_profile_and_run_with_defaults(simulate: Simulate) -> None:
    step = Update(
        {
            "cart": value("event.cart_id"),
            "name": value("profile.first_name", "there"),
            "why": value("run.journey"),
            "old": None,
        },
        then="end",
    )
    user = simulate(Journey(name="u", version=1, entry=on("go"), start="s", steps={"s": step, **END}), old=1)
    user.event("go", cart_id="c1")
    assert {name: user.profile.get(name) for name in ("cart", "name", "why", "old")} == {
        "cart": "c1",
        "name": "there",
        "why": "u",
        "old": None,
    }


def test_what_a_step_sets_is_seen_by_the_next_step_and_by_waiting_runs(simulate: Simulate) -> None:
    setter = Journey(
        name="setter", version=1, entry=on("go"), start="s",
        steps={"s": Update({"tier": "gold"}, then="b"), "b": Branch([(profile("tier", "==", "gold"), "yes")], otherwise="no"),
               "yes": Exit("yes"), "no": Exit("no")},
    )  # fmt: skip
    waiter = Journey(
        name="waiter", version=1, entry=on("wait"), start="w",
        steps={"w": WaitFor(profile("tier", "==", "gold"), timeout=days(9), then="end", on_timeout="end"), **END},
    )  # fmt: skip
    user = simulate(setter, waiter)
    user.event("wait")
    user.event("go")
    assert user.exits == ["yes", "done"]


def test_who_waits_for_a_change_sees_it_in_time_although_the_worker_was_down(simulate: Simulate) -> None:
    setter = Journey(
        name="setter", version=1, entry=on("go"), start="pause",
        steps={"pause": Delay(hours(1), then="set"), "set": Update({"tier": "gold"}, then="end"), **END},
    )  # fmt: skip
    gold = WaitFor(profile("tier", "==", "gold"), timeout=hours(2), then="end", on_timeout="late")
    waiter = Journey(
        name="waiter", version=1, entry=on("go"), start="wait", steps={"wait": gold, "late": Exit("late"), **END}
    )
    user = simulate(setter, waiter)
    user.event("go")
    begun = user.now_ms
    user.sleep(hours(3))
    user.wake_up()
    assert user.exits == ["done", "done"]
    assert {entry.at - begun for entry in user.journal if entry.kind == "exited"} == {3_600_000}


def test_a_second_send_is_not_passed_by_the_receipts_of_the_first_while_another_run_changes_the_profile(
    simulate: Simulate,
) -> None:
    setter = Journey(
        name="setter", version=1, entry=on("go"), start="pause",
        steps={"pause": Delay(hours(1), then="set"), "set": Update({"tier": "gold"}, then="end"), **END},
    )  # fmt: skip
    again = Journey(
        name="again", version=1, entry=on("go"), start="send",
        steps={"send": Send("email", template="t", then="wait", on_failed="end"), "wait": Delay(hours(1), then="send"), **END},
    )  # fmt: skip
    user = simulate(again, setter)
    user.event("go")
    user.receipt("send", "accepted")
    user.sleep(hours(1))
    user.wake_up()
    assert (user.sent, user.step) == (["email:t", "email:t"], "send")


def test_a_changed_attribute_begins_a_journey_once_per_change(simulate: Simulate) -> None:
    upgraded = Journey(
        name="upgraded", version=1, entry=changed("plan", profile("plan", "==", "team")), reentry=always, start="end", steps=END
    )  # fmt: skip
    user = simulate(upgraded)
    for plan in ("solo", "team", "team", "solo", "team"):
        user.identify(plan=plan)
    assert user.exits == ["done", "done"]


def test_two_journeys_that_change_each_others_attributes_come_to_an_end(simulate: Simulate) -> None:
    def flips(name: str, when: str, then: str) -> Journey:
        return Journey(
            name=name, version=1, entry=changed("flag", profile("flag", "==", when)), reentry=always, start="s",
            steps={"s": Update({"flag": then}, then="end"), **END},
        )  # fmt: skip

    user = simulate(flips("a", "x", "y"), flips("b", "y", "x"))
    user.identify(flag="x")
    assert 2 < len(user.exits) < 100


def test_an_emitted_event_has_an_id_of_its_own_and_moves_other_journeys(simulate: Simulate) -> None:
    emitter = Journey(
        name="emitter", version=1, entry=on("go"), start="s",
        steps={"s": Emit("staged", {"cart": value("event.cart_id")}, then="end"), **END},
    )  # fmt: skip
    listener = Journey(
        name="listener",
        version=1,
        entry=on("staged"),
        start="s",
        steps={"s": Send("push", template="t", then="end"), **END},
    )
    user = simulate(emitter, listener)
    user.event("go", cart_id="c1")
    assert user.messages[0].event == {"cart": "c1"}
    assert any("event staged #emitter.1." in entry.cause for entry in user.journal)


def test_one_journey_enters_another_by_its_rules(simulate: Simulate) -> None:
    parent = Journey(
        name="parent", version=1, entry=on("go"), reentry=always, start="s",
        steps={"s": Enter("child", {"from": value("run.journey")}, then="end"), **END},
    )  # fmt: skip
    child = Journey(
        name="child", version=1, entry=api(profile("plan", "==", "team")), start="s",
        steps={"s": Send("push", template="t", then="end"), **END},
    )  # fmt: skip
    user = simulate(parent, child, plan="solo")
    user.event("go")
    assert user.reasons("not_entered") == ["not profile.plan == 'team'"]
    user.identify(plan="team")
    user.event("go")
    user.event("go")
    assert user.messages[0].event == {"from": "parent"}
    assert user.reasons("not_entered")[1:] == ["re-entry is once"]


def test_an_unknown_journey_is_entered_by_nobody_and_the_journal_says_so(simulate: Simulate) -> None:
    user = simulate()
    user.enter("nowhere")
    assert user.reasons("not_entered") == ["no such journey is active"]


scoring = Journey(
    name="scoring", version=1, entry=on("go"), reentry=always, start="score",
    steps={
        "score": Call(
            "https://crm.example.com/score", body={"email": value("profile.email")}, timeout=minutes(5),
            then="rich", on_failed="failed",
        ),
        "rich": Branch([(answer("score.points", ">", 50), "send")], otherwise="end"),
        "send": Update({"points": value("answer.score.points")}, then="end"),
        "failed": Exit("no score"),
        **END,
    },
)  # fmt: skip


def test_the_answer_of_a_call_decides_and_can_be_used_later(simulate: Simulate) -> None:
    user = simulate(scoring)
    user.event("go")
    call = user.messages[0]
    assert call.channel == "call"
    assert call.call["body"] == {"id": call.id, "email": "user@example.com"}
    user.give(Receipt(call.id, "accepted", user.now_ms, "call", answer={"points": 80}))
    assert user.profile["points"] == 80
    assert user.exits == ["done"]


def test_a_call_that_is_refused_or_never_answered_fails(simulate: Simulate) -> None:
    user = simulate(scoring)
    user.event("go")
    user.receipt("score", "failed")
    user.event("go")
    user.wait(minutes(5))
    assert user.exits == ["no score", "no score"]
