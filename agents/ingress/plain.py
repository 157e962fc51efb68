"""Which requests are so plain that they need no web framework, and what their heads say.

Almost all tracking calls are: `POST`, one of the paths, some headers, a Content-Length, and the body as it is. Whatever is
different in any way (chunked, compressed, an `Expect`, a query, a header twice, a byte that is seldom there) is not read
here at all; aiohttp gets it. So what is read here must mean exactly what it means to aiohttp: a test gives both the same.
"""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

LONGEST_HEAD: Final = 8 << 10  # bytes; aiohttp takes a single header of that size, SDKs send 300 in all
MOST_HEADERS: Final = 100  # aiohttp takes 128

_WORDS: Final = rb"[\x21-\x7e]++(?: [\x21-\x7e]++)*+"  # no tabs, no space at the end: parsers differ there
_HEAD = re.compile(rb"POST (/[a-z0-9/]{1,40}) HTTP/1\.1\r\n((?:[A-Za-z0-9-]++: ?" + _WORDS + rb"\r\n)++)\r\n")
_HEADER = re.compile(rb"([^:]++): ?([^\r]++)\r\n")
# Each makes a body or a connection something other than plain.
_ODD: Final = frozenset({b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"proxy-connection"})


class Head(Struct, frozen=True):
    """The head of a plain request."""

    kind: str  # of the call: "track" ... "batch"
    size: int  # of the body, bytes
    authorization: str | None
    content_type: str | None
    traceparent: str | None
    strict: bool


def read(head: bytes, kinds: Mapping[bytes, str]) -> Head | None:
    """Return what a head says, the empty line included; None if it isn't plain. `kinds` has the paths there are."""
    found = _HEAD.fullmatch(head)
    if found is None or (kind := kinds.get(found[1])) is None:
        return None
    lines = _HEADER.findall(found[2])
    headers = {name.lower(): value for name, value in lines}
    size = headers.get(b"content-length", b"")
    if (
        len(headers) < len(lines)  # one is there twice
        or len(headers) > MOST_HEADERS
        or not headers.keys().isdisjoint(_ODD)
        or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive"
        or b"host" not in headers
        or not size.isdigit()
        or len(size) > 9
    ):
        return None
    return Head(
        kind,
        int(size),
        _text(headers.get(b"authorization")),
        _text(headers.get(b"content-type")),
        _text(headers.get(b"traceparent")),
        headers.get(b"x-strict-mode") == b"1",
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("ascii")
