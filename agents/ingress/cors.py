"""Who may send from a web page: anybody. The write key says whose events they are, and it is public in any page anyway.

No credentials are allowed, so `*` gives nothing away that the request did not carry itself.
"""

from typing import Final

from aiohttp import web

ORIGIN: Final = {"Access-Control-Allow-Origin": "*"}
# What Segment's browser SDK sends beyond what needs no permission.
_ALLOWED: Final = "Authorization, Content-Type, Content-Encoding, X-Retry-Count, X-Strict-Mode, Traceparent, Tracestate"
_PREFLIGHT: Final = {
    **ORIGIN,
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": _ALLOWED,
    "Access-Control-Max-Age": "86400",
}


async def preflight(request: web.Request) -> web.StreamResponse:
    """What a browser asks before it posts JSON."""
    return web.Response(status=204, headers=_PREFLIGHT)
