"""How the body of a request is read: whole, within a size, as UTF-8.

The size is that of the body as it is after decompression, which happens chunk by chunk: a bomb is let go when it has
grown past the limit, not when it has unfolded. Any content type is taken: browsers send JSON as text/plain to be spared
a preflight, and curl calls everything a form.
"""

import asyncio
import codecs
import re
from typing import Final

from aiohttp import web
from aiohttp.client_exceptions import ClientConnectionError, ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError

from agents.ingress.overload import Share
from agents.ingress.refusals import HangUp, Refusal

PATIENCE_SECONDS: Final = 30.0  # for the rest of a body: 500 kB at 17 kB/s, a bad phone connection

_CHARSET = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_UNICODE = {"utf-8", "utf8", "us-ascii", "ascii"}
# Encodings whose text means the same everywhere. Python knows more, some of which are no character sets at all.
_OTHERS = {"iso8859-1", "iso8859-15", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


async def read(request: web.Request, limit: int, share: Share) -> bytes:
    """The body as it was sent, decompressed. Raises a Refusal if it is too large or cannot be read, and Overloaded."""
    too_large = f"the body is larger than {limit:,} bytes"
    try:
        if request.content.is_eof():  # It arrived together with the headers, as almost all do.
            body = request.content.read_nowait()
            share.hold(size=len(body))
        else:
            async with asyncio.timeout(PATIENCE_SECONDS):
                body = await _read_chunks(request, limit, share)
    except TimeoutError:
        raise HangUp("timeout", f"the body did not arrive within {PATIENCE_SECONDS:g} s") from None
    except (web.RequestPayloadError, HttpProcessingError, ClientPayloadError, ClientConnectionError):
        raise HangUp("body", "the body could not be read: it is not compressed as it says, or was cut off") from None
    if len(body) > limit:
        # Of a large body the rest is read and thrown away, or the sender would not see the answer; of a bomb it is not.
        raise (HangUp if "Content-Encoding" in request.headers else Refusal)("too_large", too_large)
    return body


def text(body: bytes, content_type: str | None) -> bytes:
    """The body as UTF-8 without a byte order mark, whatever its charset is. Raises a Refusal if it has none we know.

    What claims to be UTF-8 is not checked here: whoever decodes the JSON finds the one event that is wrong.
    """
    if body[:2] in (b"\xef\xbb", b"\xff\xfe", b"\xfe\xff", b"\0\0"):
        for mark, encoding in _MARKS:
            if body.startswith(mark):
                return body[len(mark) :] if encoding == "utf-8" else _transcode(body, encoding)
    if content_type is None or (found := _CHARSET.search(content_type)) is None:
        return body
    charset = found[1].lower()
    return body if charset in _UNICODE else _transcode(body, charset)


async def _read_chunks(request: web.Request, limit: int, share: Share) -> bytes:
    """The body, or as much of it as shows that it is too large."""
    body = bytearray()
    while len(body) <= limit and (chunk := await request.content.readany()):
        share.hold(size=len(chunk))
        body += chunk
    return bytes(body)


def _transcode(body: bytes, charset: str) -> bytes:
    try:
        name = codecs.lookup(charset).name
        if name not in _OTHERS:
            raise LookupError
        return body.decode(name).encode("utf-8")
    except LookupError:
        raise Refusal("charset", f"the charset {charset!r} is not known here; send UTF-8") from None
    except UnicodeError:
        raise Refusal("charset", f"the body is not {charset}, although it says so; send UTF-8") from None
