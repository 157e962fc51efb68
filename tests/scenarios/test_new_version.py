"""A restart with a new version of a journey while runs wait in the old one: they finish where they began, others begin anew."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import aiohttp
import msgspec
import pytest

from schemas.outputs import Message
from tests.scenarios.embedded_server import ServerProcess, free_port, read_remains
from tests.scenarios.mail_ledger import MailLedger, receiving
from tests.scenarios.tale import AUTHORIZED, NOTE, PATIENCE_MS, write_journeys


class Shop:
    """A server, a mailbox and a folder of journeys, over several starts of the server."""

    def __init__(self, folder: Path, smtp_port: int, ledger: MailLedger) -> None:
        self.data, self.journeys = folder / "data", write_journeys(folder / "journeys")
        self.ledger = ledger
        self._folder, self._smtp_port = folder, smtp_port
        self._port = free_port()
        self.server = self._process()

    def start(self) -> None:
        self.server = self._process()

    async def sign_up(self, user: str) -> None:
        await self.server.until_ready()
        batch = [
            {"type": "identify", "userId": user, "messageId": f"{user}-1", "traits": {"email": f"{user}@shop.test"}},
            {"type": "track", "userId": user, "messageId": f"{user}-2", "event": "signed_up"},
        ]
        async with (
            aiohttp.ClientSession(headers=AUTHORIZED) as session,
            session.post(f"{self.server.url}/v1/batch", json={"batch": batch}) as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, self.server.said()
            await asyncio.sleep(0.05)

    def sent(self) -> dict[str, list[tuple[str, int]]]:
        """User -> (template, version of the journey) of each message, in order."""
        found: dict[str, list[tuple[str, int]]] = {}
        for records in read_remains(self.data, "messages.email").topics["messages.email"].values():
            for message in (msgspec.json.decode(record.value or b"", type=Message) for record in records):
                found.setdefault(message.user, []).append((message.template.partition("@")[0], message.version))
        return found

    def _process(self) -> ServerProcess:
        return ServerProcess(self.data, self.journeys, self._port, self._smtp_port, self._folder / "server.log")


@pytest.mark.parametrize("gently", [True, False], ids=["stopped", "killed"])
async def test_runs_finish_in_the_version_they_began_with(tmp_path: Path, gently: bool) -> None:
    ledger = MailLedger(Random(1))
    async with receiving(ledger) as smtp_port:
        shop = Shop(tmp_path, smtp_port, ledger)
        try:
            await shop.sign_up("ada")
            await shop.until(lambda: len(ledger.subjects) == 1)
            if gently:
                assert await shop.server.stop() == 0
            else:
                shop.server.kill()
            new = NOTE.replace("version=1", "version=2").replace('template="reminder"', 'template="nudge"')
            (shop.journeys / "note.py").write_text(new.replace('template="welcome"', 'template="hello"'))
            for name in ("hello", "nudge"):
                (shop.journeys / "templates" / f"{name}.subject.txt").write_text("{{ message.id }}")
                (shop.journeys / "templates" / f"{name}.txt").write_text(name)
            for part in ("subject.txt", "txt"):
                (shop.journeys / "templates" / f"reminder.{part}").unlink()  # what was published needs its file no more
            shop.start()
            await shop.sign_up("ben")
            assert "note v2 replaces v1; runs in v1 finish there" in shop.server.said()
            await shop.until(lambda: len(ledger.subjects) == 4)
            assert await shop.server.stop() == 0
        finally:
            shop.server.close()
    assert shop.sent() == {
        "ada": [("welcome", 1), ("reminder", 1)],
        "ben": [("hello", 2), ("nudge", 2)],
    }
    assert {subject.rpartition(":")[0].split(".")[1] for subject in ledger.subjects} == {"1", "2"}


async def test_a_published_version_that_was_edited_keeps_the_server_from_starting_and_says_what_to_do(
    tmp_path: Path,
) -> None:
    ledger = MailLedger(Random(1))
    async with receiving(ledger) as smtp_port:
        shop = Shop(tmp_path, smtp_port, ledger)
        try:
            await shop.server.until_ready()
            assert await shop.server.stop() == 0
            (shop.journeys / "note.py").write_text(NOTE.replace(str(PATIENCE_MS / 1000), "60"))
            shop.start()
            with pytest.raises(AssertionError, match="the server ended"):
                await shop.server.until_ready()
            said = " ".join(shop.server.said().split())
            assert "note v1 is published already and has changed since (the step 'patience')" in said
            assert "give the journey version=2" in said
            assert "Traceback" not in said
        finally:
            shop.server.close()
