"""That a head is read without aiohttp only where aiohttp would read the same."""

import asyncio

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from hypothesis import example, given
from hypothesis import strategies as st

from agents.ingress import plain

KINDS = {b"/v1/track": "track", b"/v1/batch": "batch"}
NAMES = (
    *("Content-Length", "content-length", "Authorization", "Content-Type", "traceparent", "X-Strict-Mode", "Host"),
    *(
        "Connection",
        "Transfer-Encoding",
        "Content-Encoding",
        "Expect",
        "Upgrade",
        "X",
        "User-Agent",
        "Proxy-Connection",
    ),
)
VALUES = ("7", "0", "1", "keep-alive", "close", "Upgrade", "chunked", "gzip", "100-continue", "Basic a2V5Og==", "a b")
LINES = ("POST /v1/track HTTP/1.1", "POST /v1/batch HTTP/1.1", "GET /v1/track HTTP/1.1", "POST /v1/track HTTP/1.0")

bytes_anywhere = st.sampled_from([b" ", b"\t", b"\r", b"\n", b"\0", b":", b"\xff", b",", b"x", b"\r\n", b"\r\n "])
headers = st.tuples(st.sampled_from(NAMES), st.sampled_from((": ", ":", " : ", ":  ")), st.sampled_from(VALUES))


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    lines = [draw(st.sampled_from(LINES)), *["".join(header) for header in draw(st.lists(headers, max_size=6))]]
    if draw(st.booleans()):
        lines[1:1] = ["Content-Length: 7", "Host: a"]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    for piece in draw(st.lists(bytes_anywhere, max_size=2)):
        at = draw(st.integers(0, len(head)))
        head = head[:at] + piece + head[at:]
    return head


def as_aiohttp_reads(head: bytes) -> RawRequestMessage:
    loop = asyncio.new_event_loop()
    try:
        messages, _, _ = HttpRequestParser(BaseProtocol(loop), loop, 1 << 16).feed_data(head)
        message: RawRequestMessage = messages[0][0]
        return message
    finally:
        loop.close()


@given(heads())
@example(b"POST /v1/track HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\nConnection: keep-alive\r\n\r\n")
@example(b"POST /v1/track HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\nAuthorization:a b\r\ntraceparent: x\r\n\r\n")
def test_what_is_read_is_what_aiohttp_reads(head: bytes) -> None:
    found = plain.read(head, KINDS)
    if found is None:
        return
    message = as_aiohttp_reads(head)
    assert message.method == "POST" and KINDS[message.path.encode()] == found.kind
    assert not (message.chunked or message.upgrade or message.compression or message.should_close)
    assert "Expect" not in message.headers
    assert message.headers.getall("Content-Length") == [message.headers["Content-Length"]]
    assert found.size == int(message.headers["Content-Length"])
    assert found.authorization == message.headers.get("Authorization")
    assert found.content_type == message.headers.get("Content-Type")
    assert found.traceparent == message.headers.get("traceparent")
    assert found.strict == (message.headers.get("X-Strict-Mode") == "1")


def head(*lines: str, first: str = LINES[0], size: str = "Content-Length: 7") -> bytes:
    return "\r\n".join([first, "Host: a:80", *([size] if size else []), *lines]).encode() + b"\r\n\r\n"


def test_what_sdks_send_is_plain() -> None:
    found = plain.read(
        head("User-Agent: x/1 (y; z)", "Accept: */*", "Connection: Keep-Alive", "authorization: Basic eDo="),
        KINDS,
    )
    assert found == plain.Head("track", 7, "Basic eDo=", None, None, False)


def test_what_is_different_in_any_way_is_not() -> None:
    for odd in (
        head(size=""),
        head(size="Content-Length: +7"),
        head(size="Content-Length: 1234567890"),
        head("Content-Length: 7"),
        head("Host: a:80"),
        head().replace(b"Host: a:80\r\n", b""),
        head("Transfer-Encoding: chunked"),
        head("Content-Encoding: gzip"),
        head("Expect: 100-continue"),
        head("Connection: close"),
        head("Upgrade: h2c"),
        head("Authorization: a", "authorization: b"),
        head("X: caf\u00e9"),
        head("X: a\tb"),
        head("X: "),
        head("X : a"),
        head("X: a\r\n b"),
        head(*["X: a"] * plain.MOST_HEADERS),
        head(first="POST /v1/track?x=1 HTTP/1.1"),
        head(first="POST /v1/tracks HTTP/1.1"),
        *(head(first=line) for line in LINES[2:]),
    ):
        assert plain.read(odd, KINDS) is None, odd
