"""The signed links in messages: what they carry, and what following one does.

A link's token is `1`, then base64url of a MAC and what was signed. It says whose message it stands in and, for a click,
where to go: so nobody can make a link that redirects to a place we did not write, or unsubscribe somebody else.

- `GET /o/...` (the open pixel) and `GET /c/...` (a click) answer at once, whether or not the receipt could be appended:
  a reader must get to the page, whatever the state of our log.
- `GET /u/...` only shows a button: mail scanners follow every link, and must not unsubscribe anybody.
- `POST /u/...` (RFC 8058, and the button) answers 200 only when the suppression is durable. Twice is like once.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import html
import math
import re
from collections.abc import Callable, Iterable
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec
import structlog
from aiohttp import web
from msgspec import Struct
from yarl import URL

from engine.errors import InvalidInput
from engine.runtime import tracing
from engine.runtime.host import Log, Overloaded, Unavailable
from engine.runtime.metrics import Metrics
from schemas.inputs import Receipt, ReceiptStatus
from schemas.outputs import Message, Suppression
from schemas.records import Headers, NewRecord

SECRET_BYTES: Final = 16  # at least
TOKEN_CHARACTERS: Final = 6000  # aiohttp takes request lines of 8190 bytes
URL_CHARACTERS: Final = 2048  # longer ones are left as they are: no browser promises more
RECEIPT_SECONDS: Final = 1.0  # how long a reader waits for our log at most
UNSUBSCRIBE_SECONDS: Final = 5.0

_VERSION: Final = "1"
_MAC_BYTES: Final = 16
_CONTEXT: Final = b"equeengage link 1:"  # the secret may sign other things too
_PIXEL: Final = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")

Kind = Literal["o", "c", "u"]
_WORDS: Final = {"o": "open", "c": "click", "u": "unsubscribe"}  # for the metrics' readers

_log = structlog.get_logger(__name__)
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
        if not is_http(url) or len(url) > URL_CHARACTERS or url.startswith(f"{self.public_url}/u/"):
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


def checked(secret: bytes) -> bytes:
    """The secret, if it is long enough to be one."""
    if len(secret) < SECRET_BYTES:
        raise ValueError(f"the link secret must have at least {SECRET_BYTES} bytes: set EQUEENGAGE_LINK_SECRET")
    return secret


def _mac(secret: bytes, signed: bytes) -> bytes:
    return hmac.digest(secret, _CONTEXT + signed, hashlib.sha256)[:_MAC_BYTES]


def link_routes(log: Log, secret: bytes, metrics: Metrics, clock: Callable[[], int]) -> list[web.RouteDef]:
    """The routes that answer links. `clock` tells milliseconds since the epoch."""
    server = _LinkServer(log, checked(secret), metrics, clock)
    return [
        web.get("/o/{token}", server.open),
        web.get("/c/{token}", server.click),
        web.get("/u/{token}", server.ask, allow_head=False),
        web.post("/u/{token}", server.unsubscribe),
    ]


class _LinkServer:
    def __init__(self, log: Log, secret: bytes, metrics: Metrics, clock: Callable[[], int]) -> None:
        self._log = log
        self._secret = secret
        self._metrics = metrics
        self._clock = clock

    async def open(self, request: web.Request) -> web.Response:
        link = self._read(request, "o")
        if link is not None:
            await self._note(request, link, "opened")
        # An unknown token gets the pixel too: a broken picture in a mail helps nobody.
        return web.Response(body=_PIXEL, content_type="image/gif", headers=_PRIVATE)

    async def click(self, request: web.Request) -> web.Response:
        link = self._read(request, "c")
        if link is None or not is_http(link.url):
            return _page(404, "This link does not work", "It may have been cut off on its way to you.")
        await self._note(request, link, "clicked", link.url)
        target = link.url if link.url.isascii() else str(URL(link.url))
        return web.Response(status=302, headers={**_PRIVATE, "Location": target})

    async def ask(self, request: web.Request) -> web.Response:
        link = self._read(request, "u")
        if link is None:
            return _page(404, "This link does not work", "It may have been cut off on its way to you.")
        return _page(
            200,
            "Unsubscribe?",
            f"{link.address} will get no more messages of this kind.",
            '<form method="post"><button type="submit">Yes, unsubscribe me</button></form>',
        )

    async def unsubscribe(self, request: web.Request) -> web.Response:
        link = self._read(request, "u")
        if link is None:
            return _page(404, "This link does not work", "It may have been cut off on its way to you.")
        at = self._clock()
        key = f"{link.tenant}:{link.channel}:{link.topic}:{link.address}".encode()
        headers = _record_headers(link)
        suppression = NewRecord("suppressions", key, _encode(Suppression(link.topic, at, "unsubscribed")), headers)
        try:
            async with asyncio.timeout(UNSUBSCRIBE_SECONDS):
                await self._log.append([suppression, self._receipt(link, "unsubscribed", at)])
        except Overloaded as overloaded:
            return _try_again(429, overloaded.retry_after_seconds)
        except (Unavailable, TimeoutError):
            return _try_again(503, UNSUBSCRIBE_SECONDS)
        return _page(200, "You are unsubscribed", f"{link.address} will get no more messages of this kind.")

    def _read(self, request: web.Request, kind: Kind) -> Link | None:
        try:
            link = read(self._secret, request.match_info["token"])
        except InvalidInput:
            self._metrics.links_refused.labels(_WORDS[kind]).inc()
            return None
        if link.kind != kind:
            self._metrics.links_refused.labels(_WORDS[kind]).inc()
            return None
        self._metrics.links_followed.labels(link.tenant, _WORDS[kind]).inc()
        return link

    async def _note(self, request: web.Request, link: Link, status: ReceiptStatus, detail: str = "") -> None:
        """Append the receipt if the log takes it soon."""
        if request.method == "HEAD":  # link checkers; nobody has seen anything
            return
        try:
            async with asyncio.timeout(RECEIPT_SECONDS):
                await self._log.append([self._receipt(link, status, self._clock(), detail)])
        except (Overloaded, Unavailable, TimeoutError) as error:
            self._metrics.link_receipts_lost.labels(_WORDS[link.kind]).inc()
            _log.warning("the receipt of a followed link is lost", status=status, tenant=link.tenant, why=repr(error))

    def _receipt(self, link: Link, status: ReceiptStatus, at: int, detail: str = "") -> NewRecord:
        receipt = Receipt(link.message, status, at, link.channel, detail)
        return NewRecord("events", f"{link.tenant}:{link.user}".encode(), _encode(receipt), _record_headers(link))


_PRIVATE: Final = {
    "Cache-Control": "no-store, private",
    "Referrer-Policy": "no-referrer",  # the token stands in the URL
    "X-Robots-Tag": "noindex, nofollow",
}


def _record_headers(link: Link) -> Headers:
    traceparent = tracing.current()
    traced: Iterable[tuple[str, bytes]] = (tracing.record_header(traceparent),) if traceparent else ()
    return (("content-type", b"application/json"), ("tenant", link.tenant.encode()), *traced)


def _try_again(status: int, seconds: float) -> web.Response:
    response = _page(status, "Please try again in a moment", "We could not write this down. Nothing has changed yet.")
    response.headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    return response


def _page(status: int, title: str, text: str, form: str = "") -> web.Response:
    body = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title>
<style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem;text-align:center}}
button{{font:inherit;padding:.6rem 1.4rem;border:0;border-radius:.4rem;background:#222;color:#fff;cursor:pointer}}</style>
<h1>{html.escape(title)}</h1>
<p>{html.escape(text)}</p>
{form}
</html>
"""
    headers = {
        **_PRIVATE,
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
    return web.Response(status=status, text=body, content_type="text/html", headers=headers)
