"""Who enters a journey, who comes back, and who doesn't."""

from datetime import timedelta

from engine import Delay, Exit, Journey, WaitFor, after, always, days, hours, minutes, on, once, profile, where
from engine.admission import MAX_ENTERED, MAX_RUNS
from engine.journey import Reentry
from engine.simulator import BEGIN, Simulate


def brief(reentry: Reentry = once, key: str | None = None, name: str = "brief", version: int = 1) -> Journey:
    """A journey of an hour."""
    return Journey(
        name=name,
        version=version,
        entry=on("start"),
        key=key,
        reentry=reentry,
        start="pause",
        steps={"pause": WaitFor(on("stop"), timeout=hours(1), then="end", on_timeout="end"), "end": Exit()},
    )


def test_an_event_begins_a_run_only_if_its_properties_and_the_profile_are_as_the_entry_says(simulate: Simulate) -> None:
    journey = Journey(
        name="rich_carts",
        version=1,
        entry=on("cart_updated", where("total", ">", 100), profile("country", "in", ["DE", "FR"])),
        start="end",
        steps={"end": Exit()},
    )
    user = simulate(journey, country="IT")
    user.event("cart_updated", total=101)
    user.event("other", total=101)
    user.identify(country="FR")
    user.event("cart_updated", total=100)
    assert user.exits == []
    user.event("cart_updated", total=101)
    assert user.exits == ["done"]


def test_once_is_once_for_ever(simulate: Simulate) -> None:
    user = simulate(brief(once))
    user.event("start")
    user.wait(days(4000))
    user.event("start")
    assert not user.runs
    assert user.reasons("not_entered") == ["re-entry is once"]


def test_once_holds_across_versions(simulate: Simulate) -> None:
    user = simulate(brief(once))
    user.event("start")
    user.wait(hours(1))
    user.publish(brief(once, version=2))
    user.event("start")
    assert not user.runs


def test_after_a_duration_the_user_may_enter_again_counted_from_the_last_entry(simulate: Simulate) -> None:
    user = simulate(brief(after(days(7))))
    user.event("start")
    user.wait(days(7) - timedelta(milliseconds=1))
    user.event("start")
    assert user.reasons("not_entered") == ["re-entry is again after 1 week"]
    user.wait(timedelta(milliseconds=1))
    user.event("start")
    assert len(user.runs) == 1


def test_always_is_as_soon_as_the_last_run_is_over(simulate: Simulate) -> None:
    user = simulate(brief(always))
    for _ in range(3):
        user.event("start")
        user.event("start")
        user.event("stop")
    assert user.exits == ["done"] * 3
    assert user.reasons("not_entered") == ["already in it"] * 3


def test_at_most_one_run_is_live_for_a_journey_and_key(simulate: Simulate) -> None:
    user = simulate(brief(always, key="cart_id"))
    for cart in ("a", "b", "a", "b", "a"):
        user.event("start", cart_id=cart)
    assert [run.key for run in user.runs] == ["a", "b"]
    assert user.reasons("not_entered") == ["already in it"] * 3


def test_a_new_version_does_not_let_a_second_run_in(simulate: Simulate) -> None:
    user = simulate(brief(always))
    user.event("start")
    user.publish(brief(always, version=2))
    user.event("start")
    assert [run.version for run in user.runs] == [1]


def test_re_entry_rules_count_for_each_key_alone(simulate: Simulate) -> None:
    user = simulate(brief(once, key="cart_id"))
    user.event("start", cart_id="a")
    user.event("stop", cart_id="a")
    user.event("start", cart_id="b")
    user.event("start", cart_id="a")
    assert [run.key for run in user.runs] == ["b"]


def test_a_user_has_at_most_64_live_runs(simulate: Simulate) -> None:
    user = simulate(brief(always, key="cart_id"))
    for number in range(MAX_RUNS + 3):
        user.event("start", cart_id=number)
    assert len(user.runs) == MAX_RUNS == 64
    assert user.reasons("not_entered") == ["64 runs are live already"] * 3
    user.event("stop", cart_id=0)
    user.event("start", cart_id="one more")
    assert len(user.runs) == MAX_RUNS
    assert user.runs[-1].key == "one more"


def test_hundreds_of_carts_do_not_make_a_customer_new_again(simulate: Simulate) -> None:
    user = simulate(brief(once, name="welcome"), brief(once, key="cart_id", name="carts"))
    user.event("start")
    user.event("stop")
    for number in range(MAX_ENTERED + 50):
        user.event("start", cart_id=number)
        user.event("stop", cart_id=number)
    assert len(user.state.entered) == MAX_ENTERED
    assert [entry.journey for entry in user.journal if entry.kind == "entered"].count("welcome") == 1


def test_an_event_that_occurred_long_ago_begins_nothing(simulate: Simulate) -> None:
    user = simulate(brief(always))
    user.event("start", occurred=BEGIN - days(3) - timedelta(milliseconds=1))
    assert user.reasons("not_entered") == ["the event came too late"]
    user.event("start", occurred=BEGIN - days(3))
    assert len(user.runs) == 1


def test_how_late_an_event_may_be_is_the_journeys_to_say(simulate: Simulate) -> None:
    journey = Journey(
        name="flash_sale",
        version=1,
        entry=on("start"),
        late_after=minutes(10),
        start="pause",
        steps={"pause": Delay(hours(1), then="end"), "end": Exit()},
    )
    user = simulate(journey)
    user.event("start", occurred=BEGIN - minutes(11))
    assert not user.runs
    user.event("start", occurred=BEGIN - minutes(9))
    assert user.runs


def test_a_late_event_still_changes_the_profile_and_the_runs_that_are_live(simulate: Simulate) -> None:
    user = simulate(brief())
    user.event("start")
    user.event("stop", occurred=BEGIN - days(100))
    assert user.exits == ["done"]


def test_an_event_from_the_future_counts_as_of_now(simulate: Simulate) -> None:
    user = simulate(brief())
    user.event("start", occurred=BEGIN + days(3650))
    [run] = user.runs
    assert run.entered_at == run.arrived_at == user.now_ms
    assert run.due_at == user.now_ms + 3_600_000


def test_journeys_begin_in_the_order_of_their_names_whatever_the_order_of_their_publication(
    simulate: Simulate,
) -> None:
    user = simulate(brief(name="c"), brief(name="a"), brief(name="b"))
    user.event("start")
    assert [run.journey for run in user.runs] == ["a", "b", "c"]


def test_a_runs_id_names_journey_and_version_and_differs_for_each_user_event_and_key(simulate: Simulate) -> None:
    ids = []
    for user_id in ("ann", "bob"):
        user = simulate(brief(always, key="cart_id"), user_id=user_id)
        for cart in ("a", "b"):
            for message_id in ("m1", "m2"):
                user.event("start", cart_id=cart, message_id=f"{cart}{message_id}")
                user.event("stop", cart_id=cart)
        ids += [entry.run for entry in user.journal if entry.kind == "entered"]
    assert len(ids) == len(set(ids)) == 8
    assert all(id.startswith("brief.1.") and len(id) == len("brief.1.") + 16 for id in ids)


def test_another_tenants_journeys_are_never_entered(simulate: Simulate) -> None:
    user = simulate(brief())
    user.tenant = "other"
    user.event("start")
    assert not user.runs
