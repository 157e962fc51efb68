"""A real SMTP server that writes down every mail it took, and takes its time now and then."""

import asyncio
import email
import email.policy
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from aiosmtpd.smtp import SMTP

SLOW_ONE_IN = 5
SLOWEST_SECONDS = 0.04


class MailLedger:
    """What arrived: the subject of each mail, in order. In these tests a subject is the command's id."""

    def __init__(self, chance: Random) -> None:
        self.subjects: list[str] = []
        self._chance = chance

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.subjects)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Once here the mail has arrived, whatever becomes of the answer."""
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.subjects.append(str(mail["Subject"]))
        if self._chance.randrange(SLOW_ONE_IN) == 0:
            await asyncio.sleep(self._chance.random() * SLOWEST_SECONDS)
        return "250 OK"


@asynccontextmanager
async def receiving(ledger: MailLedger) -> AsyncIterator[int]:
    """Take mails over SMTP; yields the port. Connections are cut at the end."""
    loop = asyncio.get_running_loop()
    connections: set[asyncio.BaseTransport] = set()

    class Connection(SMTP):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            connections.add(transport)
            super().connection_made(transport)

        def connection_lost(self, error: Exception | None) -> None:
            connections.discard(self.transport)
            super().connection_lost(error)

    server = await loop.create_server(lambda: Connection(ledger, hostname="ledger.test", loop=loop), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in list(connections):
            transport.close()
        await server.wait_closed()
