"""What becomes of one delivery, from its command to its last receipt.

    (command) -> waiting -> calling -> accepted | bounced | failed | dropped
                    ^          |
                    +- later --+--> unknown

These are decisions only: they read no clock and call nobody, so every order of crashes and answers can be tried out.

- An attempt is durable (`calling`) before the provider is called. So a delivery found in `calling` after a crash may or
  may not have arrived: it is *unknown*.
- What is unknown gets a receipt that says so. It is tried again where the provider recognises the command's id, and
  where the message is transactional (better twice than not at all); a marketing message is not (better not than twice).
- "Later" is tried again with growing pauses, until the message expires or has been tried MAXIMUM_ATTEMPTS times.
"""

import hashlib
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from schemas.inputs import Receipt, ReceiptStatus
from schemas.outputs import JournalEntry, JournalKind, Message

FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 3600.0
MAXIMUM_ATTEMPTS: Final = 32  # 5 s doubled up to an hour: given up after almost a day, as long as messages live
_BREATHER_MS: Final = 1000  # for a worker or a disk that was too slow to begin a call it had committed


class Delivery(Struct, frozen=True, array_like=True):
    """One message on its way. Kept in the channel's store until its outcome is known."""

    message: Message
    began_at: int
    status: Literal["waiting", "calling"] = "waiting"
    attempts: int = 0  # calls begun, the present one included
    due_at: int = 0  # when the next attempt is due, while it waits
    uncertain: bool = False  # an earlier attempt may have arrived
    traceparent: str = ""


class Accepted(Struct, frozen=True):
    """The provider took it. `answer`: what a called system said, for the run."""

    detail: str = ""
    answer: dict[str, Any] = {}


class Refused(Struct, frozen=True):
    """The provider, or we in its place, will never take it."""

    reason: str
    bounced: bool = False
    gone: bool = False  # and nothing may go to that receiver again


class KeptBack(Struct, frozen=True):
    """A rule of ours says that it must not be sent: too late, suppressed."""

    reason: str


class Later(Struct, frozen=True):
    """Not now, and nothing was handed over."""

    reason: str
    retry_after_seconds: float | None = None


class NotBegun(Struct, frozen=True):
    """The attempt was committed too long ago to begin the call: another worker may have taken over."""


class Unknown(Struct, frozen=True):
    """Handed over, and then no answer came."""

    reason: str


Outcome = Accepted | Refused | KeptBack | Later | NotBegun | Unknown


class Conclusion(Struct, frozen=True):
    """What an outcome came to. Without a delivery nothing is left to do but to remember the id."""

    delivery: Delivery | None
    receipt: Receipt | None = None
    journal: JournalEntry | None = None


def is_expired(message: Message, now: int) -> bool:
    return now >= message.expires_at


def attempt(delivery: Delivery, now: int) -> tuple[Delivery, JournalEntry]:
    """The delivery as it must be durable before the provider is called."""
    number = delivery.attempts + 1
    calling = msgspec.structs.replace(delivery, status="calling", attempts=number, due_at=0)
    return calling, _entry(delivery.message, "attempt", now, detail={"attempt": number})


def conclude(delivery: Delivery, outcome: Outcome, now: int, idempotent: bool) -> Conclusion:
    """What an outcome makes of a delivery. `idempotent`: the provider recognises a command that comes twice."""
    message = delivery.message
    match outcome:
        case Accepted(detail, answer):
            return _finish(delivery, "accepted", detail, now, answer)
        case Refused(reason, bounced, _):
            return _finish(delivery, "bounced" if bounced else "failed", reason, now)
        case KeptBack(reason):
            return _finish(delivery, "unknown" if delivery.uncertain else "dropped", reason, now)
        case NotBegun():
            due_at = now + _BREATHER_MS
            waiting = msgspec.structs.replace(delivery, status="waiting", attempts=delivery.attempts - 1, due_at=due_at)
            return Conclusion(waiting, None, _entry(message, "retry", now, reason="the call was not begun in time"))
        case Later(reason, retry_after_seconds):
            return _retry(delivery, reason, retry_after_seconds, now)
        case Unknown(reason):
            uncertain = msgspec.structs.replace(delivery, uncertain=True)
            unknown = _finish(uncertain, "unknown", reason, now)
            if not (idempotent or message.transactional):
                return unknown
            again = _retry(uncertain, reason, None, now)
            return msgspec.structs.replace(again, receipt=unknown.receipt)


def pause_seconds(message_id: str, attempts: int, retry_after_seconds: float | None = None) -> float:
    """How long to wait after so many attempts: doubled each time, spread by a quarter, never less than asked for.

    The spread is a hash: the same delivery waits equally long on every worker, and a crowd does not come back at once.
    """
    digest = hashlib.blake2b(f"{message_id}:{attempts}".encode(), digest_size=4).digest()
    spread = int.from_bytes(digest, "big") / 2**32
    # The exponent is capped before it is used: 2.0 ** 2000 overflows.
    pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 30), LONGEST_PAUSE_SECONDS) * (0.75 + spread / 2)
    return pause if retry_after_seconds is None else max(pause, retry_after_seconds * (1 + spread / 10))


def _retry(delivery: Delivery, reason: str, retry_after_seconds: float | None, now: int) -> Conclusion:
    message = delivery.message
    pause = pause_seconds(message.id, max(delivery.attempts, 1), retry_after_seconds)
    # Compared in seconds first: a provider that says "in 10^300 seconds" must not become an integer of that size.
    if delivery.attempts >= MAXIMUM_ATTEMPTS or pause * 1000 >= message.expires_at - now:
        gave_up = f"given up after {delivery.attempts} attempts: {reason}"
        return _finish(delivery, "unknown" if delivery.uncertain else "failed", gave_up, now)
    due_at = now + int(pause * 1000)
    waiting = msgspec.structs.replace(delivery, status="waiting", due_at=due_at)
    detail = {"attempt": delivery.attempts, "due_at": due_at}
    return Conclusion(waiting, None, _entry(message, "retry", now, reason=reason, detail=detail))


def _finish(
    delivery: Delivery, status: ReceiptStatus, detail: str, now: int, answer: dict[str, Any] | None = None
) -> Conclusion:
    message = delivery.message
    return Conclusion(None, Receipt(message.id, status, now, message.channel, detail, answer or {}))


def _entry(
    message: Message, kind: JournalKind, at: int, reason: str = "", detail: dict[str, Any] | None = None
) -> JournalEntry:
    return JournalEntry(
        kind,
        at,
        message.tenant,
        message.user,
        cause=f"channel {message.channel}",
        journey=message.journey,
        version=message.version,
        run=message.run,
        step=message.step,
        message=message.id,
        reason=reason,
        detail=detail or {},
    )
