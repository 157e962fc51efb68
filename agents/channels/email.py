"""How a message becomes a mail."""

import hashlib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, formataddr, parseaddr
from typing import Final
from urllib.parse import quote

from email_validator import EmailNotValidError, validate_email
from inscriptis import get_text
from inscriptis.model.config import ParserConfig

from agents.channels.links import Links
from agents.channels.mime import compose, one_line
from agents.channels.rendering import Templates, variables
from agents.channels.smtp import SmtpPool, SmtpServer
from engine.errors import PermanentFailure
from schemas.definitions import Definition
from schemas.outputs import Message

SUBJECT_CHARACTERS: Final = 250  # mail programs show about 70
CONNECTIONS: Final = 20

_AS_TEXT = ParserConfig(display_links=True, display_anchors=True)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail, ready to be handed over."""

    recipient: str
    content: bytes


class EmailChannel:
    """Mails over SMTP. A server does not know a mail that comes twice, so an unknown outcome stays unknown."""

    name = "email"
    idempotent = False
    needs_template = True

    def __init__(
        self,
        server: SmtpServer,
        sender: str,
        links: Links,
        connections: int = CONNECTIONS,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        """`sender` is what stands in From: `Shop <hello@example.com>`. Raises ValueError if it can't."""
        name, address = parseaddr(sender)
        try:
            self._sender = _validated(address)
        except EmailNotValidError as error:
            raise ValueError(f"mails can't be sent from {sender!r}: {error}") from error
        self._from = formataddr((one_line(name), self._sender))
        self.concurrency = connections
        self._links = links
        self._templates = Templates()
        self._pool = SmtpPool(server, connections, tls_context)

    def target(self, message: Message) -> str:
        try:
            return _validated(message.address).lower()
        except EmailNotValidError as error:
            raise PermanentFailure(f"not an address for mail: {error}", bounced=True) from error

    def lane(self, message: Message) -> str | None:
        return None

    def render(self, message: Message, template: Definition) -> Mail:
        recipient = _validated(message.address)
        unsubscribe = "" if message.transactional else self._links.unsubscribe(message, self.target(message))
        parts = self._templates.render(template, variables(message, unsubscribe))
        if not parts.keys() & {"html", "text"}:
            raise ValueError(f"{template.name}: a mail needs an html or a text part")
        headers = {
            "From": self._from,
            "To": recipient,
            "Subject": one_line(parts.get("subject", ""))[:SUBJECT_CHARACTERS],
            "Date": format_datetime(datetime.fromtimestamp(message.requested_at / 1000, UTC)),
            "Message-ID": message_id(message, self._sender.rpartition("@")[2]),
        }
        if unsubscribe:
            headers["List-Unsubscribe"] = f"<{unsubscribe}>"
            headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        html = parts.get("html")
        text = parts["text"] if "text" in parts else get_text(parts["html"], _AS_TEXT)
        return Mail(recipient, compose(headers, text, None if html is None else self._links.track(message, html)))

    async def deliver(self, message: Message, content: Mail) -> str:
        return await self._pool.send(self._sender, content.recipient, content.content)

    async def open(self) -> None:
        """Nothing to do: connections are made when they are needed."""

    async def close(self) -> None:
        await self._pool.close()


def message_id(message: Message, domain: str) -> str:
    """The Message-ID of a command: the same at each attempt, so that a mail that came twice can be recognised."""
    name = quote(f"{message.id}.{message.tenant}", safe="")
    # A dot-atom has no empty parts, and lines end somewhere.
    if len(name) > 150 or ".." in name or name.startswith("."):
        name = hashlib.sha256(f"{message.tenant}/{message.id}".encode()).hexdigest()
    return f"<{name}@{domain}>"


def _validated(address: str) -> str:
    """The address, normalized. `.test` is allowed: it is for trying things out."""
    valid = validate_email(address, check_deliverability=False, test_environment=True)
    return valid.ascii_email or valid.normalized
