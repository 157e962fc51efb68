"""The signed links in messages: how they are made and read.

A link's token is `1`, then base64url of a MAC and what was signed. It says whose message it stands in and, for a click,
where to go: so nobody can make a link that redirects to a place we did not write, or unsubscribe somebody else.
"""

import base64
import binascii
import hashlib
import hmac
import html
import re
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from engine.errors import InvalidInput
from schemas.outputs import Message

SECRET_BYTES: Final = 16  # at least
TOKEN_CHARACTERS: Final = 6000  # aiohttp takes request lines of 8190 bytes
URL_BYTES: Final = 2048  # longer ones are left as they are: no browser promises more

_VERSION: Final = "1"
_MAC_BYTES: Final = 16
_CONTEXT: Final = b"equeengage link 1:"  # the secret may sign other things too

Kind = Literal["o", "c", "u"]

_encode = msgspec.json.Encoder().encode


class Link(Struct, frozen=True, array_like=True):
    """What a link says. `url` is where a click leads; `topic` is what an unsubscribe ends."""

    kind: Kind
    message: str
    tenant: str
    user: str
    channel: str
    address: str = ""
    topic: str = ""
    url: str = ""


_decode = msgspec.json.Decoder(Link).decode


class Links:
    """Makes the links of messages. `public_url` is where `link_routes` are served, without a slash at its end."""

    def __init__(self, public_url: str, secret: bytes) -> None:
        """Raises ValueError, naming the setting, for what can't begin a link or sign one."""
        check_public_url(public_url)
        self.public_url = public_url.rstrip("/")
        self._secret = checked(secret)

    def open(self, message: Message) -> str:
        return self._url(Link("o", message.id, message.tenant, message.user, message.channel))

    def click(self, message: Message, url: str) -> str:
        return self._url(Link("c", message.id, message.tenant, message.user, message.channel, url=url))

    def unsubscribe(self, message: Message, address: str) -> str:
        """`address` is the channel's target, as suppressions name it."""
        return self._url(
            Link("u", message.id, message.tenant, message.user, message.channel, address, topic=message.topic)
        )

    def track(self, message: Message, source: str) -> str:
        """Lead all http links of an HTML text through us, and add the open pixel. All else stays as it is written."""
        pixel = f'<img src="{self.open(message)}" width="1" height="1" alt="" style="border:0">'
        tracked = _TAG.sub(lambda tag: self._track_tag(message, tag), source)
        end = tracked.lower().rfind("</body")
        return tracked + pixel if end < 0 else tracked[:end] + pixel + tracked[end:]

    def _track_tag(self, message: Message, tag: re.Match[str]) -> str:
        return _ATTRIBUTE.sub(lambda attribute: self._track_attribute(message, attribute), tag[0])

    def _track_attribute(self, message: Message, attribute: re.Match[str]) -> str:
        if attribute["name"].lower() != "href":
            return attribute[0]
        url = html.unescape(attribute["value"].strip("\"'")).strip()
        if not is_http(url) or len(url.encode()) > URL_BYTES or url.startswith(f"{self.public_url}/u/"):
            return attribute[0]
        return f'{attribute["name"]}="{self.click(message, url)}"'

    def _url(self, link: Link) -> str:
        return f"{self.public_url}/{link.kind}/{sign(self._secret, link)}"


# In conditional comments too, where Outlook finds its buttons. The atomic groups keep unclosed quotes from costing
# quadratic time.
_TAG = re.compile(r"<(?:a|area|v:[a-z]+)(?=[\s/])(?>[^<>\"']+|\"[^\"]*\"|'[^']*')*>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"(?P<name>[^\s\"'<>/=]+)(?:\s*=\s*(?P<value>\"[^\"]*\"|'[^']*'|[^\s\"'<>]+))", re.IGNORECASE)


def sign(secret: bytes, link: Link) -> str:
    """The token of a link."""
    signed = _encode(link)
    return _VERSION + base64.urlsafe_b64encode(_mac(secret, signed) + signed).rstrip(b"=").decode("ascii")


def read(secret: bytes, token: str) -> Link:
    """What a token says. Raises InvalidInput if we did not write it."""
    if not token.startswith(_VERSION) or len(token) > TOKEN_CHARACTERS:
        raise InvalidInput("not one of our links")
    try:
        raw = base64.b64decode(token[1:] + "=" * (-len(token[1:]) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("not one of our links") from error
    mac, signed = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(secret, signed)):
        raise InvalidInput("not one of our links, or the link secret was changed")
    try:
        return _decode(signed)
    except msgspec.MsgspecError as error:
        raise InvalidInput("a link of another version") from error


def is_http(url: str) -> bool:
    """May a click lead there? Nothing that a browser runs (`javascript:`) or that can't stand in a header."""
    if any(ord(character) < 33 or ord(character) == 127 for character in url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def check_public_url(url: str) -> None:
    """Raise ValueError if links can't begin with it."""
    if not is_http(url) or "?" in url or "#" in url:
        raise ValueError(f"EQUEENGAGE_PUBLIC_URL: links can't begin with {url!r}; write it as https://go.example.com")


def checked(secret: bytes) -> bytes:
    """The secret, if it is long enough to be one."""
    if len(secret) < SECRET_BYTES:
        raise ValueError(f"the link secret must have at least {SECRET_BYTES} bytes: set EQUEENGAGE_LINK_SECRET")
    return secret


def _mac(secret: bytes, signed: bytes) -> bytes:
    return hmac.digest(secret, _CONTEXT + signed, hashlib.sha256)[:_MAC_BYTES]
