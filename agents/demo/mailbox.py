"""The mailbox of the demo: a real SMTP server that keeps what it is given.

Each mail is one `.eml` file, written before the sender is told 250, so that a restarted demo still has its mails. The
newest 1,000 are kept; in memory stays a line about each.
"""

import asyncio
import email
import email.policy
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import inscriptis
from aiosmtpd.smtp import SMTP
from msgspec import Struct

KEPT = 1000  # enough to scroll through for a good while; about 10 MB on disk
LARGEST = 1 << 20  # bytes of one mail: ten times what Gmail shows before it clips
PREVIEW = 140  # characters, about two lines of the list


class Mail(Struct, frozen=True):
    """What the list shows of a mail."""

    number: int
    received_at: int
    sender: str
    recipient: str
    subject: str
    preview: str
    message_id: str


class Mailbox:
    """Keeps mails in a folder. `on_mail` is called with each new one, after it was kept."""

    def __init__(self, folder: Path, on_mail: Callable[[Mail], None] = lambda mail: None) -> None:
        self.folder = folder
        self.on_mail = on_mail
        self.mails: deque[Mail] = deque()
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.eml")):
            self.mails.append(_summarize(int(path.stem), _written_at(path), "", _parse(path.read_bytes())))
        self._number = self.mails[-1].number if self.mails else 0
        self._forget_the_oldest()

    def keep(self, content: bytes, recipient: str) -> Mail:
        """Write a mail to the folder and return what the list shows of it."""
        self._number += 1
        path = self._path(self._number)
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(content)
        unfinished.replace(path)
        mail = _summarize(self._number, _written_at(path), recipient, _parse(content))
        self.mails.append(mail)
        self._forget_the_oldest()
        self.on_mail(mail)
        return mail

    def open(self, number: int) -> EmailMessage | None:
        """Return the whole mail, or None if it is not here (any more)."""
        try:
            return _parse(self._path(number).read_bytes())
        except FileNotFoundError:
            return None

    def find(self, number: int) -> Mail | None:
        return next((mail for mail in self.mails if mail.number == number), None)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08}.eml"

    def _forget_the_oldest(self) -> None:
        while len(self.mails) > KEPT:
            self._path(self.mails.popleft().number).unlink(missing_ok=True)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Keep the mail once for each recipient, as a provider delivers it to each."""
        for recipient in envelope.rcpt_tos:
            self.keep(envelope.original_content, recipient)
        return "250 OK kept"


@asynccontextmanager
async def receiving(mailbox: Mailbox, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Take mails for the mailbox over SMTP; yields the port. Open connections are cut at the end."""
    loop = asyncio.get_running_loop()
    connections: set[asyncio.BaseTransport] = set()

    class Connection(SMTP):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            connections.add(transport)
            super().connection_made(transport)

        def connection_lost(self, error: Exception | None) -> None:
            connections.discard(self.transport)
            super().connection_lost(error)

    server = await loop.create_server(
        lambda: Connection(mailbox, data_size_limit=LARGEST, hostname="mailbox.demo", enable_SMTPUTF8=True, loop=loop),
        host,
        port,
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in list(connections):
            transport.close()
        await server.wait_closed()


def html_of(message: EmailMessage) -> str | None:
    part = message.get_body(("html",))
    return None if part is None else str(part.get_content())


def text_of(message: EmailMessage) -> str:
    """Return the plain part, or what a reader would see of the html if there is none."""
    part = message.get_body(("plain",))
    if part is not None:
        return str(part.get_content())
    return str(inscriptis.get_text(html_of(message) or ""))


def links_in(message: EmailMessage) -> list[str]:
    """Return the addresses of the links of a mail, in the order in which they are written."""
    return [link.replace("&amp;", "&") for link in re.findall(r'<a\b[^>]*?\bhref="([^"]+)"', html_of(message) or "")]


def _parse(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def _summarize(number: int, received_at: int, recipient: str, message: EmailMessage) -> Mail:
    try:
        preview = " ".join(text_of(message).split())[:PREVIEW]
    except (LookupError, ValueError, KeyError):  # an unknown charset or a broken part: the mail is kept all the same
        preview = ""
    return Mail(
        number,
        received_at,
        str(message["From"] or ""),
        recipient or str(message["To"] or ""),
        " ".join(str(message["Subject"] or "(no subject)").split()),
        preview,
        str(message["Message-ID"] or "").strip(),
    )


def _written_at(path: Path) -> int:
    return path.stat().st_mtime_ns // 1_000_000
