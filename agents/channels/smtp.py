"""How a mail is handed to an SMTP server, over connections that are kept.

What counts is to know, whenever a connection breaks, whether the mail may be on its way. A server takes a mail over
when it has read the line with the single dot that ends it. So the mail is written first, then the dot: what breaks
before the dot is written has not been sent and may be tried again; what breaks after it is unknown until the server's
answer is there (RFC 5321, 4.1.1.4 and 4.5.3.2.6: a server may have taken what it could not confirm).
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import parse_qs, unquote, urlsplit

from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)

from engine.errors import PermanentFailure, TemporaryFailure, UnknownOutcome

CONNECT_SECONDS: Final = 10.0
COMMAND_SECONDS: Final = 15.0
DATA_SECONDS: Final = 60.0  # servers scan a mail between the dot and their answer; the RFC would wait ten minutes
IDLE_SECONDS: Final = 20.0  # servers close an idle connection after a minute or later
MAILS_PER_CONNECTION: Final = 100  # some servers refuse more

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
# RFC 3463 and its registry: 5.1.x are about addresses. Of these, 2 (the domain) may be a resolver's fault.
_NOBODY_THERE: Final = ("5.1.1", "5.1.3", "5.1.6", "5.1.10", "5.2.1")  # unknown, malformed, moved, no mail, closed
_ABOUT_THE_SENDER: Final = ("5.1.7", "5.1.8")  # some servers say so only when they are told the recipient
_ENHANCED = re.compile(r"^([245]\.\d{1,3}\.\d{1,3})(?=\s|$)")


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mails are handed over. `parse` reads it from a URL."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    implicit_tls: bool = False
    start_tls: bool | None = None  # None: if the server offers it

    @classmethod
    def parse(cls, url: str) -> "SmtpServer":
        """Read `smtp://user:password@host:port` or `smtps://...`. `?starttls=require` or `=never` overrides the
        default: to encrypt if the server can, and to insist on it where a password would go over a network.

        Raises ValueError, without the password in it."""
        parts = urlsplit(url)
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("the SMTP URL is written smtp://user:password@host:port or smtps://...")
        try:
            port = parts.port or (465 if parts.scheme == "smtps" else 587 if parts.username else 25)
        except ValueError as error:
            raise ValueError("the port in the SMTP URL is not a number below 65536") from error
        choice = parse_qs(parts.query).get("starttls", ["auto"])[-1]
        if choice not in ("auto", "require", "never"):
            raise ValueError("starttls in the SMTP URL is one of auto, require, never")
        start_tls: bool | None = {"auto": None, "require": True, "never": False}[choice]
        if start_tls is None and parts.username and parts.hostname not in _LOOPBACK:
            start_tls = True
        return cls(
            parts.hostname,
            port,
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password else None,
            parts.scheme == "smtps",
            False if parts.scheme == "smtps" else start_tls,
        )


class _Connection:
    __slots__ = ("client", "mails", "used_at")

    def __init__(self, client: SMTP) -> None:
        self.client = client
        self.mails = 0
        self.used_at = 0.0


class SmtpPool:
    """Connections to one server, at most `size` at once, the last used taken first and the stale ones dropped."""

    def __init__(self, server: SmtpServer, size: int, tls_context: ssl.SSLContext | None = None) -> None:
        self._server = server
        self._tls_context = tls_context
        self._free = asyncio.Semaphore(size)
        self._idle: list[_Connection] = []
        self._local_hostname: str | None = None

    async def send(self, sender: str, recipient: str, mail: bytes) -> str:
        """Hand over one mail (with CRLF at the ends of lines) and return the server's answer.

        Raises TemporaryFailure, PermanentFailure or UnknownOutcome."""
        async with self._free:
            try:
                async with self._connection() as connection:
                    return await self._send(connection.client, sender, recipient, mail)
            except SMTPServerDisconnected as error:
                raise TemporaryFailure(f"{self._server.host}: connection lost before the mail was sent") from error
            except SMTPTimeoutError as error:
                raise TemporaryFailure(f"{self._server.host}: {error}") from error
            except SMTPNotSupported as error:
                raise PermanentFailure(f"{self._server.host}: {error}") from error
            except SMTPResponseException as error:
                raise _failure(error) from error
            except (SMTPException, OSError) as error:
                raise TemporaryFailure(f"{self._server.host}: {error}") from error

    async def close(self) -> None:
        """Take leave of the server; connections in use are closed by whoever uses them."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_quit(connection.client) for connection in idle))

    async def _send(self, client: SMTP, sender: str, recipient: str, mail: bytes) -> str:
        options = []
        encoding = "ascii"
        if not (sender.isascii() and recipient.isascii()):
            if not client.supports_extension("smtputf8"):
                raise SMTPNotSupported("the server does not take addresses with other letters than ASCII's")
            options.append("SMTPUTF8")
            encoding = "utf-8"
        if client.supports_extension("size"):
            options.append(f"SIZE={len(mail)}")
        await client.mail(sender, options=options, encoding=encoding)
        await client.rcpt(recipient, encoding=encoding)
        answer = await client.execute_command(b"DATA")
        if answer.code != 354:
            raise SMTPResponseException(answer.code, answer.message)
        return await self._write(client, mail)

    async def _write(self, client: SMTP, mail: bytes) -> str:
        protocol = client.protocol
        if protocol is None or protocol.transport is None:
            raise SMTPServerDisconnected("connection lost")
        # To drain is then to have written everything, not all but the last 64 kB.
        cast(asyncio.WriteTransport, protocol.transport).set_write_buffer_limits(high=0)
        protocol.write(re.sub(rb"(?m)^\.", b"..", mail))  # raises if the connection is gone
        async with asyncio.timeout(DATA_SECONDS):  # a large mail to a server that reads no more; OSError's kin
            await protocol._drain_helper()  # aiosmtplib keeps StreamWriter's drain and has no public name for it
        protocol.write(b".\r\n" if mail.endswith(b"\r\n") else b"\r\n.\r\n")
        try:
            answer = await protocol.read_response(timeout=DATA_SECONDS)
        except (SMTPException, OSError) as error:
            raise UnknownOutcome(f"{self._server.host}: no answer after the mail was sent: {error}") from error
        if answer.code < 200 or (300 <= answer.code < 400) or answer.code >= 600:
            raise UnknownOutcome(f"{self._server.host}: an answer that says nothing: {answer.code} {answer.message}")
        if answer.code >= 400:
            raise SMTPResponseException(answer.code, answer.message)
        return f"{answer.code} {answer.message}"[:200]

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        """A connection that was greeted and logged in. It is kept, unless it broke or its state is unclear."""
        connection = await self._take() or await self._connect()
        keep = False
        try:
            yield connection
            keep = True
        except SMTPResponseException as error:
            # The server said no, and is still there: take back the envelope. 421 says that it is closing.
            keep = error.code != 421 and await _reset(connection.client)
            raise
        finally:
            connection.mails += 1
            connection.used_at = asyncio.get_running_loop().time()
            if keep and connection.client.is_connected and connection.mails < MAILS_PER_CONNECTION:
                self._idle.append(connection)
            else:
                connection.client.close()

    async def _take(self) -> _Connection | None:
        """The connection used last, if it still answers."""
        while self._idle:
            connection = self._idle.pop()
            age = asyncio.get_running_loop().time() - connection.used_at
            # A server that closed it is found out here, where nothing has been sent yet.
            if age < IDLE_SECONDS and connection.client.is_connected and await _reset(connection.client):
                return connection
            connection.client.close()
        return None

    async def _connect(self) -> _Connection:
        server = self._server
        if self._local_hostname is None:  # asks the resolver, so in a thread, and once
            self._local_hostname = await asyncio.to_thread(socket.getfqdn)
        client = SMTP(
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            use_tls=server.implicit_tls,
            start_tls=server.start_tls,
            tls_context=self._tls_context,
            local_hostname=self._local_hostname,
            timeout=COMMAND_SECONDS,
        )
        try:
            await client.connect(timeout=CONNECT_SECONDS)
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
        except SMTPResponseException as error:
            # A refused login or greeting is the operator's to mend: the mails wait for him.
            client.close()
            raise TemporaryFailure(f"{server.host} refused the connection: {error.code} {error.message}") from error
        except BaseException:
            client.close()
            raise
        return _Connection(client)


def _failure(error: SMTPResponseException) -> TemporaryFailure | PermanentFailure:
    """What the server's no means: 4xx is "later"; of 5xx, some say that the address does not work.

    Nothing more goes to an address of which the server has said in so many words (RFC 3463) that nobody is there. A plain
    550 bounces this mail only: a server of ours that is set up wrongly says it too, and would cost every address it is
    asked about.
    """
    reason = f"{error.code} {error.message}"[:500]
    if not 500 <= error.code < 600:
        return TemporaryFailure(reason)
    enhanced = _ENHANCED.match(error.message)
    if enhanced is None:
        return PermanentFailure(reason, isinstance(error, SMTPRecipientRefused) and error.code in (550, 551, 553))
    code, of_sender = enhanced[1], isinstance(error, SMTPSenderRefused) or enhanced[1] in _ABOUT_THE_SENDER
    bounced = not of_sender and (code.startswith("5.1.") or code == "5.2.1")
    return PermanentFailure(reason, bounced, gone=not of_sender and code in _NOBODY_THERE)


async def _reset(client: SMTP) -> bool:
    """Begin anew on a connection; False if it can't be used any more."""
    try:
        await client.rset()
    except (SMTPException, OSError):
        return False
    return True


async def _quit(client: SMTP) -> None:
    try:
        await client.quit(timeout=2.0)
    except (SMTPException, OSError):
        pass
    finally:
        client.close()
