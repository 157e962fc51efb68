"""Webhooks: signed, sent only where they may go, and every answer understood."""

import asyncio
import ipaddress
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from standardwebhooks import Webhook

from agents.channels.addresses import is_public
from agents.channels.webhook import WebhookChannel, checked, retry_after_seconds
from engine.errors import PermanentFailure, TemporaryFailure, UnknownOutcome
from engine.runtime.settings import Endpoint
from schemas.outputs import Message
from tests.channels.stage import HOUR, T0, Stage, command, template, until

SECRET = "whsec_c2l4dGVlbiBieXRlcyBvciBtb3Jl"
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Receiver:
    """An endpoint that keeps requests and answers what it is told to."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.status = 200
        self.headers: dict[str, str] = {}

    async def receive(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((dict(request.headers), await request.read()))
        if self.answer is not None:
            return await self.answer(request)
        return web.Response(status=self.status, text="thanks", headers=self.headers)


class Dns(AbstractResolver):
    """Answers every name with the addresses it is given."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self.addresses
        ]

    async def close(self) -> None: ...


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", receiver.receive)
    server = TestServer(app)
    await server.start_server()
    yield receiver, str(server.make_url("/hook"))
    await server.close()


def channel(url: str, allowed: tuple[str, ...] = ("127.0.0.1",), resolver: AbstractResolver | None = None,
            clock: Callable[[], int] = lambda: T0) -> WebhookChannel:  # fmt: skip
    return WebhookChannel({"shop": Endpoint(url=url, secret=SecretStr(SECRET))}, allowed, clock, resolver)


async def send(webhook: WebhookChannel, message: Message | None = None, content: bytes = b'{"a":1}') -> str:
    await webhook.open()
    try:
        return await webhook.deliver(message or command(channel="webhook"), content)
    finally:
        await webhook.close()


async def test_a_message_is_posted_signed_and_traced(receiver: tuple[Receiver, str]) -> None:
    received, url = receiver
    stage = Stage()
    stage.clock.now = time.time_ns() // 1_000_000  # the library that checks signatures knows one clock only
    body = template(json='{"text": {{ profile.name | json }}, "step": "{{ message.step }}"}')
    await stage.publish(body)
    webhook = channel(url, clock=stage.clock)
    await webhook.open()
    async with stage.delivering(webhook):
        message = command(
            channel="webhook", template=body.key.rpartition("/")[2], profile={"name": 'A "B"'},
            expires_at=stage.clock.now + HOUR,
        )  # fmt: skip
        await stage.ask(message, headers=(("traceparent", TRACEPARENT),))
        await until(stage.receipts)
    await webhook.close()
    await stage.close()
    assert _bodies(received) == [{"text": 'A "B"', "step": "greet"}]
    headers, content = received.requests[0]
    assert Webhook(SECRET).verify(content, headers) == {"text": 'A "B"', "step": "greet"}
    assert headers["webhook-id"] == "r1:1"
    assert headers["traceparent"] == TRACEPARENT.decode()
    assert headers["Content-Type"] == "application/json"


def _bodies(received: Receiver) -> list[Any]:
    return [json.loads(content) for _, content in received.requests]


async def test_without_a_json_part_the_whole_message_is_sent(receiver: tuple[Receiver, str]) -> None:
    received, url = receiver
    webhook = channel(url)
    message = command(channel="webhook", event={"total": 3})
    await send(webhook, message, webhook.render(message, template(subject="Hi", text="Hello {{ profile.name }}")))
    [body] = _bodies(received)
    assert body["type"] == "message"
    assert body["data"]["user"] == "u1"
    assert body["data"]["event"] == {"total": 3}
    assert body["data"]["content"] == {"subject": "Hi", "text": "Hello Ada"}


def test_a_template_that_makes_no_json_is_an_error() -> None:
    with pytest.raises(ValueError, match="not JSON"):
        channel("https://shop.example").render(
            command(profile={"name": '"'}), template(json='{"a": "{{profile.name}}"}')
        )


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_later_is_later_and_the_time_named_is_kept(receiver: tuple[Receiver, str], status: int) -> None:
    received, url = receiver
    received.status, received.headers = status, {"Retry-After": "120"}
    with pytest.raises(TemporaryFailure, match=f"{status} thanks") as failure:
        await send(channel(url))
    assert failure.value.retry_after_seconds == 120


@pytest.mark.parametrize("status", [400, 401, 404, 413])
async def test_no_is_no(receiver: tuple[Receiver, str], status: int) -> None:
    received, url = receiver
    received.status = status
    with pytest.raises(PermanentFailure) as failure:
        await send(channel(url))
    assert not failure.value.gone


async def test_redirects_are_not_followed(receiver: tuple[Receiver, str]) -> None:
    received, url = receiver
    received.status, received.headers = 307, {"Location": url}
    with pytest.raises(PermanentFailure, match="redirects"):
        await send(channel(url))
    assert len(received.requests) == 1


async def test_an_endpoint_that_is_gone_gets_nothing_more(receiver: tuple[Receiver, str], stage: Stage) -> None:
    received, url = receiver
    received.status = 410
    webhook = channel(url)
    await webhook.open()
    async with stage.delivering(webhook):
        await stage.ask(command(channel="webhook"))
        await until(stage.receipts)
    await stage.restart()
    async with stage.delivering(webhook):
        await stage.ask(command(2, channel="webhook"))
        await until(lambda: len(stage.receipts()) == 2)
    await webhook.close()
    assert stage.receipts() == [("r1:1", "failed"), ("r2:1", "dropped")]
    assert len(received.requests) == 1
    [record] = stage.records("suppressions")
    assert record.key == f"shop:webhook:all:{url}".encode()


async def test_a_connection_lost_after_the_request_is_unknown_and_without_one_it_is_later() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    with pytest.raises(UnknownOutcome):
        await send(channel(url))
    server.close()
    await server.wait_closed()
    with pytest.raises(TemporaryFailure):
        await send(channel(url))


async def test_a_silent_endpoint_is_unknown(receiver: tuple[Receiver, str], monkeypatch: pytest.MonkeyPatch) -> None:
    received, url = receiver
    released = asyncio.Event()

    async def silence(request: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    received.answer = silence
    monkeypatch.setattr("agents.channels.webhook.CALL_SECONDS", 0.1)
    with pytest.raises(UnknownOutcome):
        await send(channel(url))
    released.set()


async def test_an_endless_answer_is_not_read(receiver: tuple[Receiver, str]) -> None:
    received, url = receiver

    async def chatter(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except (ConnectionError, asyncio.CancelledError):
            pass
        return response

    received.answer = chatter
    said = await asyncio.wait_for(send(channel(url)), 5)
    assert len(said) < 300


INNER = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "198.18.0.1", "240.0.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1",
    "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
]  # fmt: skip


@pytest.mark.parametrize("address", INNER)
async def test_inner_addresses_are_refused_by_name_and_by_number(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(ValueError, match="not a public address"):
        checked(f"https://{host}/hook", ())
    with pytest.raises(PermanentFailure, match="not a public address"):
        await send(channel("https://evil.example/", (), Dns(address)))
    with pytest.raises(PermanentFailure, match="not a public address"):
        await send(channel("https://evil.example/", (), Dns("93.184.215.14", address)))


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_public_addresses_are_not(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_wrapping_an_address_changes_nothing(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    assert not (is_public(mapped) and not is_public(address))


async def test_a_name_is_resolved_once_for_a_connection_and_connected_to_where_it_said(
    receiver: tuple[Receiver, str],
) -> None:
    received, url = receiver
    port = url.rpartition(":")[2].partition("/")[0]
    dns = Dns("127.0.0.1")
    await send(channel(f"http://hooks.example:{port}/", ("hooks.example",), dns))
    assert dns.asked == 1
    assert received.requests[0][0]["Host"] == f"hooks.example:{port}"


@pytest.mark.parametrize("url", ["https://127.1/", "https://2130706433/", "https://0x7f.0.0.1/"])
async def test_addresses_in_disguise_are_refused(url: str) -> None:
    with pytest.raises((PermanentFailure, ValueError)):
        await send(channel(url, (), Dns("127.0.0.1")))


def test_endpoints_are_checked_at_the_start() -> None:
    for url in ("http://shop.example/", "ftp://shop.example/", "shop.example", "https://a:b@shop.example/"):
        with pytest.raises(ValueError, match="endpoint of 'shop'"):
            channel(url, ())
    with pytest.raises(ValueError, match="endpoint of 'shop'"):
        WebhookChannel({"shop": Endpoint(url="https://shop.example", secret=SecretStr("!"))}, (), lambda: T0)
    with pytest.raises(PermanentFailure, match="no endpoint"):
        channel("https://shop.example").target(command(tenant="other"))


def test_retry_after_is_understood_in_both_forms() -> None:
    assert retry_after_seconds("120", T0) == 120
    assert retry_after_seconds(formatdate(T0 / 1000 + 90, usegmt=True), T0) == pytest.approx(90, abs=1)
    assert retry_after_seconds(formatdate(T0 / 1000 - 90, usegmt=True), T0) == 0
    assert retry_after_seconds("9" * 400, T0) == 7 * 86400
    for nonsense in (None, "", "soon", "-5", "1e5", "٣"):
        assert retry_after_seconds(nonsense, T0) is None
