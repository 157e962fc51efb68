"""What becomes of a delivery, whatever the order of answers, crashes and pauses."""

import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agents.channels import deliveries
from agents.channels.deliveries import (
    Accepted,
    Delivery,
    KeptBack,
    Later,
    NotBegun,
    Outcome,
    Refused,
    Unknown,
    attempt,
    conclude,
    pause_seconds,
)
from tests.channels.stage import HOUR, T0, command

outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.just(Accepted("250 ok")),
    st.builds(Refused, st.just("no"), st.booleans()),
    st.builds(Later, st.just("busy"), st.none() | st.floats(0, 1e300)),
    st.just(NotBegun()),
    st.just(Unknown("connection lost")),  # a crash during the call is the same
)


@given(
    st.lists(st.tuples(outcomes, st.integers(0, 2 * HOUR)), min_size=1, max_size=40),
    st.booleans(),
    st.booleans(),
    st.integers(0, 24 * HOUR),
)
def test_nothing_is_sent_twice_unless_that_is_safe_or_asked_for(
    story: list[tuple[Outcome, int]], transactional: bool, idempotent: bool, lifetime: int
) -> None:
    message = command(transactional=transactional, expires_at=T0 + lifetime)
    delivery: Delivery | None = Delivery(message, T0)
    now = T0
    receipts: list[str] = []
    may_have_arrived = calls = 0
    for outcome, late_by in story:
        assert delivery is not None
        now = max(now, delivery.due_at) + late_by
        if deliveries.is_expired(message, now):
            outcome = KeptBack("late")
        else:
            delivery, entry = attempt(delivery, now)
            assert entry.kind == "attempt"
            calls += not isinstance(outcome, NotBegun)
            may_have_arrived += isinstance(outcome, Accepted | Unknown)
        before = delivery
        conclusion = conclude(delivery, outcome, now, idempotent)
        delivery = conclusion.delivery
        if conclusion.receipt is not None:
            receipts.append(conclusion.receipt.status)
        if isinstance(outcome, Unknown):
            assert "unknown" in receipts, "an unknown outcome was hidden"
        if delivery is None:
            assert conclusion.receipt is not None, "a delivery ended silently"
            break
        assert conclusion.journal is not None
        assert delivery.status == "waiting"
        assert delivery.due_at > now
        assert isinstance(outcome, NotBegun) or delivery.due_at < message.expires_at, "a retry after expiry"
        assert delivery.attempts == before.attempts - isinstance(outcome, NotBegun)
        assert msgspec.json.decode(msgspec.json.encode(delivery), type=Delivery) == delivery
    assert calls <= deliveries.MAXIMUM_ATTEMPTS
    if not (transactional or idempotent):
        assert may_have_arrived <= 1, "a marketing message may have arrived twice"
    if delivery is None and "unknown" in receipts[:-1]:
        assert receipts[-1] != "dropped", "it may have arrived, and the last receipt says that it did not"


@given(st.text(min_size=1), st.integers(1, 10_000), st.none() | st.floats(0, 1e9))
def test_pauses_grow_to_an_hour_and_never_fall_below_what_was_asked_for(
    message_id: str, attempts: int, asked: float | None
) -> None:
    message_id = message_id.encode("utf-8", "replace").decode()
    pause = pause_seconds(message_id, attempts, asked)
    assert pause == pause_seconds(message_id, attempts, asked)
    assert math.isfinite(pause)
    assert pause >= 0.75 * 5
    assert asked is None or pause >= asked
    assert asked is not None or pause <= 1.25 * 3600


def test_a_delivery_is_given_up_after_so_many_attempts() -> None:
    delivery = Delivery(command(expires_at=T0 + 10_000 * HOUR), T0)
    now = T0
    for _ in range(deliveries.MAXIMUM_ATTEMPTS - 1):
        delivery, _ = attempt(delivery, now)
        again = conclude(delivery, Later("busy"), now, False).delivery
        assert again is not None
        delivery, now = again, again.due_at
    delivery, _ = attempt(delivery, now)
    conclusion = conclude(delivery, Later("busy"), now, False)
    assert conclusion.delivery is None
    assert conclusion.receipt is not None
    assert conclusion.receipt.status == "failed"
    assert "given up after 32 attempts: busy" in conclusion.receipt.detail
    assert 18 * HOUR < now - T0 < 26 * HOUR
