"""What following a link in a message does.

- `GET /o/...` (the open pixel) and `GET /c/...` (a click) answer at once, whether or not the receipt could be appended:
  a reader must get to the page, whatever the state of our log.
- `GET /u/...` only shows a button: mail scanners follow every link, and must not unsubscribe anybody.
- `POST /u/...` (RFC 8058, and the button) answers 200 only when the suppression is durable. Twice is like once.
"""

import asyncio
import base64
import html
import math
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from aiohttp import web
from yarl import URL

from agents.channels.links import Kind, Link, checked, is_http, read
from engine.errors import InvalidInput
from engine.runtime import tracing
from engine.runtime.host import Log, Overloaded, Unavailable
from engine.runtime.metrics import Metrics
from schemas.inputs import Receipt, ReceiptStatus
from schemas.outputs import Suppression
from schemas.records import JSON_TYPE, Headers, NewRecord

RECEIPT_SECONDS: Final = 1.0  # how long a reader waits for our log at most
UNSUBSCRIBE_SECONDS: Final = 5.0

_PIXEL: Final = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
_WORDS: Final = {"o": "open", "c": "click", "u": "unsubscribe"}  # for the metrics' readers
_PRIVATE: Final = {
    "Cache-Control": "no-store, private",
    "Referrer-Policy": "no-referrer",  # the token stands in the URL
    "X-Robots-Tag": "noindex, nofollow",
}

_log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode


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


def _record_headers(link: Link) -> Headers:
    traceparent = tracing.current()
    headers = (JSON_TYPE, ("tenant", link.tenant.encode()))
    return (*headers, tracing.record_header(traceparent)) if traceparent else headers


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
