"""Calls of other systems: made where they may go, under one id, and what is answered goes back to the run."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from standardwebhooks import Webhook

from agents.channels.call import READ_BYTES, CallChannel
from agents.channels.deliveries import Accepted
from agents.channels.delivery import EMPTY
from engine.errors import PermanentFailure, TemporaryFailure, UnknownOutcome
from engine.events import MAX_ANSWER_BYTES
from engine.profiles import encoded_size
from schemas.outputs import Message
from tests.channels.stage import HOUR, T0, Stage, command, until
from tests.channels.test_webhook import SECRET, Dns, Receiver

TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", receiver.receive)
    server = TestServer(app)
    await server.start_server()
    yield receiver, str(server.make_url("/score"))
    await server.close()


def a_call(url: str, number: int = 1, method: str = "POST", body: dict[str, Any] | None = None, **more: Any) -> Message:
    return command(
        number, channel="call", address=url, template="", topic="call", transactional=True, profile={},
        call={"method": method, "url": url, "body": body or {"id": f"r{number}:1"}}, **more,
    )  # fmt: skip


def channel(*allowed: str, resolver: Dns | None = None) -> CallChannel:
    return CallChannel({}, allowed or ("127.0.0.1",), lambda: T0, resolver)


async def call(calls: CallChannel, message: Message) -> Accepted:
    await calls.open()
    try:
        return await calls.deliver(message, calls.render(message, EMPTY))
    finally:
        await calls.close()


def answering(receiver: Receiver, body: bytes, status: int = 200, **headers: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    receiver.answer = answer


async def test_a_call_needs_no_template_and_its_answer_comes_back_with_the_receipt(
    receiver: tuple[Receiver, str],
) -> None:
    received, url = receiver
    answering(received, b'{"score": 7, "tags": ["a"]}')
    stage = Stage()
    calls = channel()
    await calls.open()
    async with stage.delivering(calls):
        await stage.ask(a_call(url, body={"id": "r1:1", "who": "Ada"}), headers=(("traceparent", TRACEPARENT),))
        await until(stage.receipts)
    await calls.close()
    [receipt] = stage.full_receipts()
    assert (receipt.message, receipt.status, receipt.channel) == ("r1:1", "accepted", "call")
    assert (receipt.detail, receipt.answer) == ("200", {"score": 7, "tags": ["a"]})
    [(headers, content)] = received.requests
    assert json.loads(content) == {"id": "r1:1", "who": "Ada"}
    assert (headers["webhook-id"], headers["Content-Type"]) == ("r1:1", "application/json")
    assert headers["traceparent"] == TRACEPARENT.decode()
    await stage.close()


async def test_with_a_secret_calls_are_signed_for_the_tenants_it_is_set_for(receiver: tuple[Receiver, str]) -> None:
    received, url = receiver
    now = time.time_ns() // 1_000_000  # the library that checks signatures knows one clock only
    calls = CallChannel({"shop": SecretStr(SECRET)}, ("127.0.0.1",), lambda: now)
    await call(calls, a_call(url))
    await call(calls, msgspec.structs.replace(a_call(url, 2), tenant="bank"))
    (signed, content), (unsigned, _) = received.requests
    assert Webhook(SECRET).verify(content, signed) == {"id": "r1:1"}
    assert "webhook-signature" not in unsigned
    with pytest.raises(ValueError, match="the call secret of 'shop' can't be used"):
        CallChannel({"shop": SecretStr("whsec_not base64!")}, (), lambda: now)


async def test_later_is_tried_again_under_the_same_id(receiver: tuple[Receiver, str]) -> None:
    received, url = receiver
    received.status = 503
    stage = Stage()
    calls = channel()
    await calls.open()
    async with stage.delivering(calls):
        await stage.ask(a_call(url))
        await until(lambda: ("r1:1", "retry") in stage.journal())
        received.status = 200
        stage.clock.now += HOUR // 2
        await until(stage.receipts)
    await calls.close()
    assert stage.receipts() == [("r1:1", "accepted")]
    assert [headers["webhook-id"] for headers, _ in received.requests] == ["r1:1", "r1:1"]
    await stage.close()


async def test_a_call_cut_off_by_a_crash_is_made_again_and_the_answer_still_comes(
    receiver: tuple[Receiver, str],
) -> None:
    received, url = receiver
    never = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        await never.wait()
        raise AssertionError

    received.answer = hang
    stage = Stage()
    calls = channel()
    await calls.open()
    partition = stage.partition(calls)
    task = asyncio.create_task(partition.run())
    await stage.ask(a_call(url))
    await until(lambda: received.requests)
    await stage.crash()  # The old process is as good as dead: what it commits goes nowhere.
    answering(received, b'{"score": 7}')
    async with stage.delivering(calls):
        await until(lambda: stage.receipts())
        stage.clock.now += HOUR // 2
        await until(lambda: len(stage.receipts()) == 2)
    assert stage.receipts() == [("r1:1", "unknown"), ("r1:1", "accepted")]
    assert stage.full_receipts()[1].answer == {"score": 7}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await calls.close()
    never.set()
    await stage.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_the_method_is_the_steps(receiver: tuple[Receiver, str], method: str) -> None:
    received, url = receiver
    seen: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.method)
        return web.Response(status=204)

    received.answer = answer
    assert await call(channel(), a_call(url, method=method)) == Accepted("204", {})
    assert seen == [method]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"thanks", "it is not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"a": NaN}', "it is not JSON"),
        (b'{"a": "\xff"}', "it is not JSON"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "nested too deep"),
        (b'{"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", "it is not JSON"),
        (b'{"a": "' + b"x" * READ_BYTES + b'"}', "larger than 64 KiB"),
    ],
    ids=["text", "list", "nan", "no utf-8", "deep", "abyss", "large"],
)
async def test_what_is_no_json_object_is_not_kept_and_the_receipt_says_so(
    receiver: tuple[Receiver, str], body: bytes, reason: str
) -> None:
    received, url = receiver
    answering(received, body)
    accepted = await call(channel(), a_call(url))
    assert accepted.answer == {}
    assert accepted.detail.startswith("200; nothing of the answer is kept: ")
    assert reason in accepted.detail


async def test_of_a_large_answer_what_fits_is_kept_in_its_order(receiver: tuple[Receiver, str]) -> None:
    received, url = receiver
    answer = {"first": 1, "big": "x" * 5000, "half": "y" * 3000, "other_half": "z" * 3000, "last": 2, "huge": 1 << 70}
    answering(received, json.dumps(answer).encode())
    accepted = await call(channel(), a_call(url))
    assert accepted.answer == {"first": 1, "half": "y" * 3000, "last": 2}
    assert (encoded_size(accepted.answer) or 0) <= MAX_ANSWER_BYTES
    assert accepted.detail == "200; not kept of the answer: big, other_half, huge"
    msgspec.json.encode(accepted)


async def test_a_packed_answer_is_not_unpacked(receiver: tuple[Receiver, str]) -> None:
    received, url = receiver
    answering(received, b"\x1f\x8b\x08\x00", 200, **{"Content-Encoding": "gzip"})
    assert (await call(channel(), a_call(url))).answer == {}
    assert received.requests[0][0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_the_time_that_a_receiver_names_is_kept(receiver: tuple[Receiver, str], status: int) -> None:
    received, url = receiver
    answering(received, b"busy", status, **{"Retry-After": "120"})
    with pytest.raises(TemporaryFailure, match=f"{status} busy") as failure:
        await call(channel(), a_call(url))
    assert failure.value.retry_after_seconds == 120


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
async def test_a_refusal_is_final_and_stops_no_other_calls(receiver: tuple[Receiver, str], status: int) -> None:
    received, url = receiver
    answering(received, b"no such customer", status)
    with pytest.raises(PermanentFailure, match=f"{status} no such customer") as failure:
        await call(channel(), a_call(url))
    assert not failure.value.gone


async def test_redirects_are_not_followed(receiver: tuple[Receiver, str]) -> None:
    received, url = receiver
    answering(received, b"", 307, Location="http://169.254.169.254/")
    with pytest.raises(PermanentFailure, match="redirects are not followed"):
        await call(channel(), a_call(url))
    assert len(received.requests) == 1


async def test_an_answer_that_breaks_off_is_unknown(receiver: tuple[Receiver, str]) -> None:
    received, url = receiver

    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"score": ')
        assert request.transport is not None
        request.transport.abort()
        return response

    received.answer = break_off
    with pytest.raises(UnknownOutcome, match="no answer"):
        await call(channel(), a_call(url))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://crm.example/x", "not https, and crm.example is not among the allowed webhook hosts"),
        ("https://10.0.0.1/x", "10.0.0.1 is not a public address"),
        ("https://[::1]/x", "::1 is not a public address"),
        ("https://user:pw@crm.example/x", "a URL with a user name in it"),
        ("https://:80/", "host is required"),
    ],
)
async def test_where_a_call_may_not_go_it_fails_before_anything_is_sent(url: str, reason: str) -> None:
    with pytest.raises(PermanentFailure, match="the URL can't be called") as failure:
        channel("allowed.example").target(a_call(url))
    assert reason in str(failure.value)


async def test_a_name_that_stands_for_an_inner_address_is_refused_once_resolved() -> None:
    dns = Dns("93.184.216.34", "10.0.0.7")
    with pytest.raises(PermanentFailure, match=r"crm\.example is 10\.0\.0\.7, which is not a public address"):
        await call(channel("other.example", resolver=dns), a_call("https://crm.example/x"))
    assert dns.asked == 1


async def test_nobody_there_is_later() -> None:
    server = TestServer(web.Application())
    await server.start_server()
    url = str(server.make_url("/x"))
    await server.close()
    with pytest.raises(TemporaryFailure, match="no connection"):
        await call(channel(), a_call(url))


def test_each_system_has_a_lane_of_its_own() -> None:
    calls = channel()
    lanes = [calls.lane(a_call(url)) for url in ("https://a.example/1", "https://a.example/2", "https://b.example/1")]
    assert lanes[0] == lanes[1] != lanes[2]


async def test_a_url_that_is_none_fails_its_own_message_only(receiver: tuple[Receiver, str]) -> None:
    _, url = receiver
    stage = Stage()
    calls = channel()
    await calls.open()
    async with stage.delivering(calls):
        await stage.ask(a_call("https://:80/", 1), a_call(url, 2))
        await until(lambda: len(stage.receipts()) == 2)
    await calls.close()
    assert dict(stage.receipts()) == {"r1:1": "failed", "r2:1": "accepted"}
    await stage.close()
