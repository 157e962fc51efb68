"""The embedded server is killed again and again under load, and nobody can tell from what arrived.

What must have come of it is computed from the accepted records alone (`expectation.py`), and once more from the journey's
description. The mails are counted where they arrive: at an SMTP server in this process, which survives.
"""

import asyncio
import time
from collections import Counter
from pathlib import Path
from random import Random

import msgspec
import pytest

from schemas.inputs import Receipt
from schemas.outputs import Message
from schemas.records import Record
from tests.scenarios.embedded_server import Remains, ServerProcess, free_port, read_remains, read_users
from tests.scenarios.expectation import Expectation, expect, welcome_notes
from tests.scenarios.mail_ledger import MailLedger, receiving
from tests.scenarios.tale import PATIENCE_MS, Sender, seed, write_journeys

KILLS = 20
LONGEST_LIFE_SECONDS = 1.5
SENDERS = 3
CONNECTIONS = 32  # more mails cannot be in flight at a kill
SETTLES_WITHIN_SECONDS = 40.0
TOPICS = ("events", "journal", "messages.email")


@pytest.mark.chaos
async def test_twenty_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    chance = Random(seed())
    data, journeys = tmp_path / "data", write_journeys(tmp_path / "journeys")
    ledger = MailLedger(chance)
    port = free_port()
    senders = [Sender(f"s{number}", f"http://127.0.0.1:{port}", Random(chance.random())) for number in range(SENDERS)]
    stop = asyncio.Event()

    async with receiving(ledger) as smtp_port:

        def start() -> ServerProcess:
            return ServerProcess(data, journeys, port, smtp_port, tmp_path / "server.log")

        sending = [asyncio.create_task(sender.run(stop)) for sender in senders]
        server = start()
        try:
            for _ in range(KILLS):
                if chance.random() < 0.8:
                    await server.until_ready()  # the others are killed while they start
                await asyncio.sleep(chance.random() * LONGEST_LIFE_SECONDS)
                server.kill()
                server = start()
            await server.until_ready()
            stop.set()
            await asyncio.wait_for(asyncio.gather(*sending), 30)
            await until_settled(data, server)
            assert await server.stop() == 0, server.said()
        finally:
            server.close()
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)

    remains = read_remains(data, *TOPICS)
    expectation = expect(remains.definitions, remains.events, remains.partition_for)
    acknowledged = [id for sender in senders for id in sender.acknowledged]
    assert len(acknowledged) > 500, "too little was sent for this test to mean anything"
    check_acknowledged(acknowledged, remains)
    check_outcome(remains, expectation)
    assert await asyncio.to_thread(read_users, data) == expectation.users
    unknown = check_mails(ledger, remains, expectation)
    print(
        f"{len(acknowledged)} events acknowledged, {sum(sender.repeated for sender in senders)} batches repeated,"
        f" {len(expectation.messages)} messages, of which {len(unknown)} unknown"
    )


def check_acknowledged(acknowledged: list[str], remains: Remains) -> None:
    """Every acknowledged event is in the log, every ping among them was entered once, every device came over once."""
    logged: Counter[str] = Counter()
    pings: set[str] = set()
    devices: set[str] = set()
    for record in all_records(remains, "events"):
        event = msgspec.json.decode(record.value or b"")
        if event["type"] == "event":
            logged[event["id"]] += 1
            if event["name"] == "pinged":
                pings.add(event["id"])
            devices.update(event.get("aliases", ()))
    assert not [id for id in acknowledged if id not in logged]
    entered = Counter(
        entry.cause for entry in remains.journal() if entry.kind == "entered" and entry.journey == "pulse"
    )
    assert entered == Counter({f"event pinged #{id}": 1 for id in pings})
    absorbed = Counter(entry.detail["alias"] for entry in remains.journal() if entry.kind == "absorbed")
    assert absorbed == Counter(dict.fromkeys(devices, 1))
    assert len(devices) > 50, "too few logged in for this test to mean anything"


def check_outcome(remains: Remains, expectation: Expectation) -> None:
    """The commands and the journal are what the independent fold says, in the same order."""
    messages = [
        msgspec.json.decode(record.value or b"", type=Message) for record in all_records(remains, "messages.email")
    ]
    assert messages == expectation.messages
    assert remains.journal() == expectation.journal
    described: Counter[tuple[str, str]] = Counter()
    for records in remains.events.values():
        described += welcome_notes(records, PATIENCE_MS)
    assert Counter((message.user, message.template.partition("@")[0]) for message in messages) == described


def check_mails(ledger: MailLedger, remains: Remains, expectation: Expectation) -> set[str]:
    """Every expected mail has arrived once; one that was in flight at a kill may be missing, and is then reported as
    unknown. Returns the unknown ones."""
    expected = expectation.message_ids()
    arrived = ledger.counts
    statuses = receipts_of(remains)
    unknown = {id for id, seen in statuses.items() if "unknown" in seen}
    assert set(expected.values()) <= {1}
    assert not [id for id in arrived if id not in expected], "mails nobody asked for"
    assert not [id for id, times in arrived.items() if times > 1], "mails that came twice"
    assert [id for id in expected if id not in arrived and id not in unknown] == [], "mails that were lost"
    assert {id for id in expected if statuses.get(id) != {"accepted"}} == unknown
    assert len(unknown) <= KILLS * CONNECTIONS
    told = {entry.message for entry in remains.journal() if entry.kind == "receipt" and entry.reason == "unknown"}
    assert told == unknown, "the journal says which messages are unknown"
    return unknown


def receipts_of(remains: Remains) -> dict[str, set[str]]:
    statuses: dict[str, set[str]] = {}
    for record in all_records(remains, "events"):
        if b'"type":"receipt"' in (record.value or b""):
            receipt = msgspec.json.decode(record.value or b"", type=Receipt)
            statuses.setdefault(receipt.message, set()).add(receipt.status)
    return statuses


def all_records(remains: Remains, topic: str) -> list[Record]:
    return [record for _, records in sorted(remains.topics[topic].items()) for record in records]


async def until_settled(data: Path, server: ServerProcess) -> None:
    """Wait until every command has its receipt and nobody waits for anything any more."""
    deadline = time.monotonic() + SETTLES_WITHIN_SECONDS
    while time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        if await asyncio.to_thread(_is_settled, data):
            return
    raise AssertionError(f"the server did not come to rest: {server.said()}")


def _is_settled(data: Path) -> bool:
    remains = read_remains(data, *TOPICS)
    expectation = expect(remains.definitions, remains.events, remains.partition_for)
    if any(user.runs for user in expectation.users.values()):
        return False
    receipts = receipts_of(remains)
    told = {entry.message for entry in remains.journal() if entry.kind == "receipt"}
    return all(message.id in receipts and message.id in told for message in expectation.messages)
