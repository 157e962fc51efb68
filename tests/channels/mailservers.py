"""SMTP servers for the stories: real ones that keep what they get, and scripted ones that break off where they are told."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from agents.channels.smtp import SmtpServer


class Mailbox:
    """Keeps mails; answers what its hooks are told to."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.raw: list[bytes] = []
        self.answer_to_recipient = "250 OK"
        self.answer_to_mail = "250 OK"
        self.connections = 0
        self.recipients: list[str] = []
        self.options: list[str] = []

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.connections += 1
        return responses

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.answer_to_recipient.startswith("2"):
            envelope.rcpt_tos.append(address)
            self.recipients.append(address)
        return self.answer_to_recipient

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.answer_to_mail.startswith("2"):
            content = envelope.original_content or b""
            mail = message_from_bytes(content, policy=policy.default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
            self.raw.append(content)
        return self.answer_to_mail


@asynccontextmanager
async def mail_server(mailbox: Mailbox, **options: Any) -> AsyncIterator[SmtpServer]:
    """An aiosmtpd server; `tls` makes it speak TLS from the start."""
    tls = options.pop("tls", None)
    loop = asyncio.get_running_loop()
    sessions: list[SMTP] = []

    def protocol() -> SMTP:
        session = SMTP(mailbox, hostname="mail.test", loop=loop, enable_SMTPUTF8=True, **options)
        sessions.append(session)
        return session

    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls)
    try:
        yield SmtpServer("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await server.wait_closed()
        for session in sessions:
            if session.transport is not None:
                session.transport.abort()
        handlers = [session._handler_coroutine for session in sessions if session._handler_coroutine is not None]
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted_server(script: Script) -> AsyncIterator[SmtpServer]:
    """A server that greets, then does what the script says, then closes the connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            writer.write(b"220 mail.test ESMTP\r\n")
            await script(reader, writer)
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(talk, "127.0.0.1", 0, limit=2**24)
    try:
        yield SmtpServer("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def envelope(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take what comes before DATA, politely; DATA itself has been read, and is not answered yet."""
    while True:
        line = await reader.readline()
        if not line or line == b"DATA\r\n":
            return
        writer.write(b"250 mail.test\r\n")


class Login:
    """An authenticator that knows one account."""

    def __init__(self, username: bytes, password: bytes) -> None:
        self.account = username, password

    def __call__(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == self.account, handled=False)


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's TLS contexts that trust each other, for 127.0.0.1 and localhost."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} -out {cert} -days 2"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1".split(),
        check=True,
        capture_output=True,
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=str(cert))
