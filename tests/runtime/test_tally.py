"""What a partition of users adds to the metrics."""

from tests.runtime.stage import Stage
from tests.runtime.trial_journeys import basket, greeting, poison

HOUR = 3_600_000
SHOP = {"tenant": "shop"}


async def test_a_users_way_through_a_journey_is_counted() -> None:
    stage = Stage()
    stage.publish(greeting())
    stage.event("ann", "signed_up")
    stage.event("bea", "signed_up")
    await stage.play()
    assert stage.counted("inputs_folded", topic="events", kind="event") == 2
    assert stage.counted("runs_entered", **SHOP, journey="greeting") == 2
    assert stage.counted("messages_asked", **SHOP, journey="greeting", channel="inapp") == 2
    assert stage.counted("commits", topic="events", partition="0") == 1
    assert stage.counted("timers_fired", topic="events") == 0

    stage.pass_time(HOUR + 5000)
    stage.wake_the_due()
    await stage.play()
    assert stage.counted("timers_fired", topic="events") == 2
    assert stage.metrics.registry.get_sample_value("equeengage_timer_lateness_seconds_sum", {"topic": "events"}) == 5
    assert stage.counted("messages_asked", **SHOP, journey="greeting", channel="inapp") == 4
    assert stage.counted("runs_exited", **SHOP, journey="greeting", reason="done") == 2


async def test_timers_that_an_event_found_due_are_counted_like_woken_ones() -> None:
    stage = Stage()
    stage.publish(basket())
    stage.event("ann", "basket_filled", basket="b1")
    await stage.play()
    stage.pass_time(8 * HOUR)  # the first reminder was due after one hour, the second after seven
    stage.event("ann", "looked_around")
    await stage.play()
    assert stage.counted("timers_fired", topic="events") == 2
    assert (
        stage.metrics.registry.get_sample_value("equeengage_timer_lateness_seconds_sum", {"topic": "events"})
        == 7 * 3600
    )


async def test_what_changed_nothing_and_what_went_wrong_is_counted_with_its_reason() -> None:
    stage = Stage()
    stage.publish(poison())
    stage.event("ann", "signed_up", id="e1")
    stage.event("ann", "signed_up", id="e1")
    stage.put(b"shop:ann", b"{")
    await stage.play()
    assert stage.counted("inputs_dropped", topic="events", reason="duplicate") == 1
    assert stage.counted("inputs_dropped", topic="events", reason="invalid") == 1
    assert stage.counted("dead_letters", topic="events", reason="InvalidInput") == 0


async def test_an_event_to_command_time_is_that_of_the_batchs_oldest_event() -> None:
    stage = Stage()
    stage.publish(greeting())
    stage.event("ann", "signed_up")
    stage.pass_time(3000)
    stage.event("bea", "signed_up")
    stage.pass_time(1000)
    await stage.play()
    value = stage.metrics.registry.get_sample_value
    assert value("equeengage_event_to_command_seconds_count") == 1
    assert value("equeengage_event_to_command_seconds_sum") == 4
