"""That a connection is answered the same whether it is plain or not, in whatever pieces it comes."""

import asyncio
import gzip
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from opentelemetry import trace

from agents.ingress import bodies, doorway, make_app
from agents.ingress.overload import Admission
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Settings
from tests.ingress.conftest import NOW, Serve
from tests.ingress.remembering_log import RememberingLog
from tests.ingress.serving import Doorstep

EVENT = b'{"userId":"ada","event":"seen","messageId":"m"}'
KEY = b"Authorization: Bearer shop-key\r\n"


def request(body: bytes = EVENT, *headers: bytes, path: bytes = b"/v1/track", size: bool = True) -> bytes:
    lines = [b"POST %b HTTP/1.1" % path, b"Host: x", *headers, *([b"Content-Length: %d" % len(body)] if size else [])]
    return b"\r\n".join(lines) + b"\r\n" + KEY + b"\r\n" + body


LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
REQUESTS = {
    "plain": request(),
    "batch": request(b'{"batch":[%b,{"type":"track"}]}' % EVENT.replace(b"{", b'{"type":"track",'), path=b"/v1/batch"),
    "strict": request(b"{}", b"X-Strict-Mode: 1"),
    "no JSON": request(b"{"),
    "empty": request(b""),
    "two keys": request(EVENT, KEY.strip()),
    "no such key": request().replace(b"shop-key", b"no-key"),
    "chunked": request(b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENT), EVENT), b"Transfer-Encoding: chunked", size=False),
    "gzip": request(gzip.compress(EVENT, mtime=0), b"Content-Encoding: gzip"),
    "expecting": request(EVENT, b"Expect: 100-continue"),
    "another route": request(path=b"/v1/nowhere"),
    "with a query": request(path=b"/v1/track?debug=1"),
    "preflight": b"OPTIONS /v1/track HTTP/1.1\r\nHost: x\r\n\r\n",
    "too large": request(b'"%b"' % (b"x" * 33_000)),
}


@asynccontextmanager
async def served(serve: Serve, log: RememberingLog, settings: Settings, admission: Admission) -> AsyncIterator[int]:
    server = serve(make_app(log, settings, metrics=Metrics(), clock=lambda: NOW, admission=admission))
    await server.start_server()
    try:
        assert server.port is not None
        yield server.port
    finally:
        await server.close()


@pytest.fixture
def admission() -> Admission:
    return Admission(Metrics())


@pytest.fixture
async def port(log: RememberingLog, settings: Settings, admission: Admission) -> AsyncIterator[int]:
    async with served(Doorstep, log, settings, admission) as port:
        yield port


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def answers(port: int, pieces: list[bytes]) -> list[tuple[bytes, bytes, dict[bytes, bytes]]]:
    """What the pieces are answered, until the server hangs up: status, body, headers."""
    async with connected(port) as (reader, writer):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)  # each a packet of its own, mostly
        told = await reader.read()
    found = []
    while told:
        head, _, told = told.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        size = int(headers.get(b"content-length", b"0"))
        said = {name: value for name, value in headers.items() if name not in (b"date", b"server", b"connection")}
        found.append((status, told[:size], said))
        told = told[size:]
    return found


def in_pieces(whole: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    return [whole[begin:end] for begin, end in pairwise(at) if end > begin]


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(REQUESTS)) | st.just("plain"), max_size=5),
    cuts=st.lists(st.integers(0, 40_000), max_size=4),
)
async def test_all_that_is_sent_is_answered_as_the_framework_answers_it(
    port: int, log: RememberingLog, settings: Settings, names: list[str], cuts: list[int]
) -> None:
    pieces = in_pieces(b"".join(REQUESTS[name] for name in names) + LAST, cuts)
    log.appends.clear()
    here = await answers(port, pieces)
    kept = log.events
    log.appends.clear()
    async with served(TestServer, log, settings, Admission(Metrics())) as framework:
        there = await answers(framework, pieces)
    assert here == there
    assert kept == log.events


async def test_what_is_no_http_is_400_and_does_not_take_back_what_came_before(port: int, log: RememberingLog) -> None:
    """aiohttp alone refuses all that it reads together with it."""
    (fine, _, _), (wrong, _, _) = await answers(port, [request() + b"\x16\x03\x01\r\n\r\n"])
    assert (fine, wrong) == (b"HTTP/1.1 200 OK", b"HTTP/1.0 400 Bad Request")
    assert len(log.events) == 1


async def test_requests_sent_ahead_are_answered_in_order(port: int, log: RememberingLog) -> None:
    log.gate.clear()
    async with connected(port) as (reader, writer):
        for number in range(3):
            writer.write(request(EVENT.replace(b"seen", b"seen%d" % number)))
        writer.write(LAST)
        await log.until_waiting(1)
        assert log.events == []
        log.gate.set()
        told = await reader.read()
    assert re.findall(rb"HTTP/1.1 (\d+)", told) == [b"200"] * 4
    assert [event.name for event in log.events] == ["seen0", "seen1", "seen2"]


async def test_who_sends_far_ahead_is_stopped_not_kept_in_memory(port: int, log: RememberingLog) -> None:
    log.gate.clear()
    large = request(EVENT.replace(b"seen", b"x" * 30_000))  # refused, but kept
    count = 1_000
    async with connected(port) as (reader, writer):
        writer.write(large * count + LAST)
        sending = asyncio.create_task(writer.drain())
        await log.until_waiting(1)
        await turns(port)
        assert not sending.done()
        log.gate.set()
        told = await reader.read()
        await sending
    assert told.count(b"HTTP/1.1 200") == count + 1
    assert len(log.invalid) == count


async def test_who_does_not_read_is_not_read_from(port: int, log: RememberingLog) -> None:
    count = 5_000
    wrong = request(b'{"batch":[%b]}' % b",".join([b"{}"] * 10), path=b"/v1/batch")  # answered with a kilobyte
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=narrow, limit=4096)
    try:
        writer.write(wrong * count + LAST)
        await writer.drain()
        before = -1
        while before < len(log.appends):
            before = len(log.appends)
            await turns(port)
        assert before < count
        told = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    assert told.count(b"HTTP/1.1 200") == count + 1
    assert len(log.appends) == count


async def turns(port: int) -> None:
    """Let the server have twenty turns: enough to go on with whatever it would go on with."""
    async with connected(port) as (reader, writer):
        for _ in range(20):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"}")


async def test_a_body_that_stops_coming_is_refused_and_leaves_nothing_behind(
    port: int, admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PATIENCE_SECONDS", 0.05)
    async with connected(port) as (reader, writer):
        writer.write(request() + request()[:-10])
        told = await reader.read()
    assert re.findall(rb"HTTP/1.1 (\d+)", told) == [b"200", b"408"]
    assert (admission.requests, admission.bytes) == (0, 0)


async def test_who_has_no_key_is_told_before_the_body_is_there(port: int, admission: Admission) -> None:
    async with connected(port) as (reader, writer):
        writer.write(request()[:-10].replace(b"shop-key", b"no-key"))
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 401")
    assert (admission.requests, admission.bytes) == (0, 0)


async def test_a_body_that_comes_while_there_is_no_room_is_429(
    log: RememberingLog, settings: Settings, metrics: Metrics
) -> None:
    narrow = Admission(metrics, size=100)
    large = request(EVENT.replace(b"seen", b"x" * 200))
    async with served(Doorstep, log, settings, narrow) as port:
        for pieces in ([large], [large[:-200], large[-200:]]):
            (status, _, headers), (fine, _, _), _ = await answers(port, [*pieces, request(), LAST])
            assert (status[:12], headers[b"retry-after"]) == (b"HTTP/1.1 429", b"1")
            assert fine == b"HTTP/1.1 200 OK"
    assert (narrow.requests, narrow.bytes) == (0, 0)


async def test_a_connection_that_asks_nothing_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PATIENCE_SECONDS", 0.01)
    async with connected(port) as (reader, writer):
        writer.write(request())
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
    assert doorway.QUIET_LOOKS * 30 > 240  # longer than load balancers wait


class RememberingTracer(trace.NoOpTracer):
    """An SDK's tracer, as far as it concerns us: it is asked for spans."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
        return self

    def start_span(self, name: str, *arguments: Any, **named: Any) -> trace.Span:
        self.asked.append(name)
        return super().start_span(name, *arguments, **named)


async def test_where_spans_are_recorded_each_call_has_one(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = RememberingTracer()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracer)
    assert [status for status, _, _ in await answers(port, [request(), LAST])] == [b"HTTP/1.1 200 OK"] * 2
    assert tracer.asked == ["POST /v1/track", "GET /healthz"]


async def test_at_the_end_what_is_under_way_is_answered_and_the_rest_hung_up(
    log: RememberingLog, settings: Settings
) -> None:
    log.gate.clear()
    server = Doorstep(make_app(log, settings, metrics=Metrics()))
    await server.start_server()
    assert server.port is not None
    port = server.port
    async with connected(port) as (idle, _), connected(port) as (half, arriving), connected(port) as (reader, writer):
        writer.write(request() + request())
        arriving.write(request()[:-10])
        await log.until_waiting(1)
        closing = asyncio.create_task(server.close())
        assert await idle.read() == b"" and await half.read() == b""
        log.gate.set()
        told = await reader.read()
        await closing
    assert told.count(b"HTTP/1.1 200") == len(log.events) == 1
