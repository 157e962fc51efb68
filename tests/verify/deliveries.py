"""What a provider says it took, beside the commands and the receipts."""

from collections import Counter

import msgspec

from schemas.inputs import Receipt
from tests.scenarios.expectation import Expectation
from tests.verify.evidence import Evidence
from tests.verify.rows import Row

KEPT_BACK = {"dropped", "failed", "bounced"}  # with one of these a message need not have arrived
UNCERTAIN = "unknown"  # the answer was lost: it may have arrived, and may have been sent again


def deliveries_row(channel: str, evidence: Evidence, expectation: Expectation) -> Row:
    """Every command must have arrived once, unless its channel says why it has not."""
    row = Row(f"ledger {channel}")
    asked = {
        message.id: cause.at
        for message, cause in zip(expectation.messages, expectation.causes, strict=True)
        if message.channel == channel
    }
    said = _receipts(evidence)
    arrived = Counter(delivery.id for delivery in evidence.ledgers[channel])
    row.expected, row.found = len(asked), arrived.total()
    for id in sorted(asked):
        if id not in arrived and not said.get(id, set()) & {*KEPT_BACK, UNCERTAIN}:
            row.note("lost", id)
    for id, times in arrived.items():
        if id not in asked:
            row.note("phantom", id, times)
        elif times > 1 and UNCERTAIN not in said.get(id, set()):
            row.note("duplicated", id, times - 1)
    for delivery in evidence.ledgers[channel]:
        if delivery.id in asked and delivery.at < asked[delivery.id]:
            row.note("early", f"{delivery.id} by {asked[delivery.id] - delivery.at} ms")
    return row


def _receipts(evidence: Evidence) -> dict[str, set[str]]:
    """Return what channels and providers have said about each message."""
    said: dict[str, set[str]] = {}
    for records in evidence.events.values():
        for record in records:
            if record.value is not None and record.value.startswith(b'{"type":"receipt"'):
                try:
                    receipt = msgspec.json.decode(record.value, type=Receipt)
                except msgspec.MsgspecError:
                    continue
                said.setdefault(receipt.message, set()).add(receipt.status)
    return said
