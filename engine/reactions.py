"""What becomes of messages that are never sent: how the people of a simulation or a backtest take them.

Receipts are scripted. A message is accepted after a second and delivered after two, or bounces; of those delivered a share
is opened within two days, half of them within the hour, and a share is clicked soon after. Who opens what is a hash of the
user, the template and how many of that template they got before. So both versions of a journey meet the same people: one
who would open the first reminder opens it in either, and a difference between versions is never luck.

What a test wants to be exactly so is written down by template: what is heard of it, and how long after it was asked for.

    Reactions(opens=0.3, bounces=0.03, scripted={"gold_offer": [("accepted", seconds(1)), ("clicked", hours(5))]})
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from engine.cohorts import point
from engine.conditions import NOTHING
from engine.durations import milliseconds
from engine.steps.sends import CALL_CHANNEL
from schemas.inputs import Receipt, ReceiptStatus
from schemas.outputs import Message

ACCEPTED_MS = 1_000
DELIVERED_MS = 2_000
SOONEST_MS, LATEST_MS = 60_000, 172_800_000  # between these a message is opened
CLICKED_MS = 20_000  # after it was opened

Script = Mapping[str, Sequence[tuple[ReceiptStatus, timedelta]]]  # template -> what is heard, and how long after


@dataclass(frozen=True, slots=True)
class Reactions:
    """The shares of messages that are opened, clicked (at most those opened) and bounce: between 0 and 1.

    `scripted` says by template what is heard instead: nothing, for an empty list. `answers` says by step what a Call is
    answered; one that isn't named is accepted without an answer.
    """

    opens: float = 0.0
    clicks: float = 0.0
    bounces: float = 0.0
    scripted: Script = field(default_factory=dict)
    answers: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, share in (("opens", self.opens), ("clicks", self.clicks), ("bounces", self.bounces)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share between 0 and 1, not {share:g}")
        if self.clicks > self.opens:
            raise ValueError(f"clicks ({self.clicks:g}) are a part of opens ({self.opens:g}) and can't be more")

    def to(self, message: Message, nth: int) -> list[tuple[int, Receipt]]:
        """Return what becomes of a message, as (when, receipt) in order. `nth`: how many of its template came before."""
        asked_at = message.requested_at
        template = message.template.partition("@")[0]
        if message.channel == CALL_CHANNEL:
            answer = self.answers.get(message.step, {})
            return [_receipt(message, "accepted", asked_at + ACCEPTED_MS, answer)]
        if template in self.scripted:
            script = sorted(self.scripted[template], key=lambda each: each[1])
            return [_receipt(message, status, asked_at + milliseconds(after)) for status, after in script]
        heard = [_receipt(message, "accepted", asked_at + ACCEPTED_MS)]
        who = f"{message.tenant}:{message.user}"
        what = f"{message.channel}:{template}:{nth}"
        if self.bounces and point(who, f"bounces:{what}") < self.bounces:
            return [*heard, _receipt(message, "bounced", asked_at + DELIVERED_MS)]
        heard.append(_receipt(message, "delivered", asked_at + DELIVERED_MS))
        if self.opens and (interest := point(who, f"opens:{what}")) < self.opens:
            delay = SOONEST_MS * (LATEST_MS / SOONEST_MS) ** point(who, f"opens after:{what}")
            opened_at = asked_at + DELIVERED_MS + int(delay)
            heard.append(_receipt(message, "opened", opened_at))
            if interest < self.clicks:
                heard.append(_receipt(message, "clicked", opened_at + CLICKED_MS))
        return heard


def _receipt(
    message: Message, status: ReceiptStatus, at: int, answer: Mapping[str, Any] = NOTHING
) -> tuple[int, Receipt]:
    return at, Receipt(message.id, status, at, message.channel, answer=dict(answer))
