"""That operators and their machines are told the truth, and overload is never a reason for an SDK to give up."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import openapi_pydantic
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from agents.ingress import answers, bodies, contents, make_app, segment
from agents.ingress.overload import Admission
from agents.ingress.tracking import PATHS
from engine.runtime.host import Overloaded, Unavailable
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Settings
from schemas import http
from tests.ingress.conftest import NOW, Client, Serve
from tests.ingress.remembering_log import RememberingLog
from tests.ingress.test_tracking import KEY, TRACK, as_json, post


async def test_a_full_log_is_429_with_retry_after(client: Client, log: RememberingLog) -> None:
    log.failure = Overloaded(retry_after_seconds=2.2)
    for path, body in (("/v1/track", as_json(TRACK)), ("/v1/batch", b'{"batch":[%b]}' % as_json(TRACK))):
        async with client.post(path, data=body, headers=KEY) as answer:
            assert answer.status == 429
            assert answer.headers["Retry-After"] == "3"
            assert (await answer.json())["code"] == "overloaded"


async def test_a_log_out_of_reach_is_503_with_retry_after(client: Client, log: RememberingLog) -> None:
    log.failure = Unavailable("the broker is down")
    async with client.post("/v1/track", data=as_json(TRACK), headers=KEY) as answer:
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1


async def test_our_own_bug_is_500_without_details_and_the_next_request_is_fine(
    client: Client, log: RememberingLog
) -> None:
    log.failure = RuntimeError("write key shop-key of ada")
    async with client.post("/v1/track", data=as_json(TRACK), headers=KEY) as answer:
        assert answer.status == 500
        assert "ada" not in await answer.text()
    log.failure = None
    assert (await post(client, "/v1/track", TRACK))[0] == 200


@pytest.fixture
def small() -> dict[str, int]:
    return {"requests": 3, "events": 10, "size": 10_000}


@pytest.fixture
async def narrow(
    log: RememberingLog, settings: Settings, metrics: Metrics, small: dict[str, int], serve: Serve
) -> AsyncIterator[Client]:
    app = make_app(log, settings, metrics=metrics, clock=lambda: NOW, admission=Admission(metrics, **small))
    async with TestClient(serve(app)) as client:
        yield client


async def test_too_many_requests_at_once_are_429_and_later_fine(narrow: Client, log: RememberingLog) -> None:
    log.gate.clear()
    waiting = [asyncio.create_task(post(narrow, "/v1/track", TRACK)) for _ in range(3)]
    await log.until_waiting(3)
    assert (await post(narrow, "/v1/track", TRACK))[0] == 429
    log.gate.set()
    assert [status for status, _ in await asyncio.gather(*waiting)] == [200] * 3
    assert (await post(narrow, "/v1/track", TRACK))[0] == 200


async def test_too_many_events_or_bytes_at_once_are_429_and_later_fine(
    narrow: Client, log: RememberingLog, metrics: Metrics
) -> None:
    batch = {"batch": [TRACK | {"type": "track"}] * 6}
    large = TRACK | {"properties": {"text": "x" * 6000}}
    for body, path in ((batch, "/v1/batch"), (large, "/v1/track")):
        log.gate.clear()
        first = asyncio.create_task(post(narrow, path, body))
        await log.until_waiting(1)
        assert (await post(narrow, path, body))[0] == 429
        log.gate.set()
        assert (await first)[0] == 200
        assert (await post(narrow, path, body))[0] == 200
    assert metrics.registry.get_sample_value("equeengage_ingress_events_in_flight") == 0
    assert metrics.registry.get_sample_value("equeengage_ingress_events_rejected_total", {"reason": "overloaded"}) == 6


async def test_what_is_counted(client: Client, log: RememberingLog, metrics: Metrics) -> None:
    await post(client, "/v1/t", TRACK)
    await post(client, "/v1/batch", {"batch": [TRACK | {"type": "track"}, {"type": "track"}]})
    async with client.post("/v1/track", data=as_json(TRACK)):
        pass
    async with client.get("/nowhere/at/all") as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "http")
    async with client.get("/metrics") as answer:
        text = await answer.text()
    for line in (
        'equeengage_ingress_requests_total{route="/v1/track",status="200"} 1.0',
        'equeengage_ingress_requests_total{route="/v1/track",status="401"} 1.0',
        'equeengage_ingress_requests_total{route="none",status="404"} 1.0',
        'equeengage_ingress_events_accepted_total{tenant="shop"} 2.0',
        'equeengage_ingress_events_invalid_total{reason="no_user",tenant="shop"} 1.0',
        'equeengage_ingress_request_seconds_count{route="/v1/batch"} 1.0',
    ):
        assert line in text.splitlines()


async def test_a_process_is_alive_at_once_and_ready_when_it_waits_for_nothing(log: RememberingLog) -> None:
    waiting_for = ["partition 3: recovering, 40 % of 9,000 records"]
    app = make_app(log, Settings(), metrics=Metrics(), ready=lambda: waiting_for)
    async with TestClient(TestServer(app)) as client:
        async with client.get("/healthz") as answer:
            assert (answer.status, await answer.json()) == (200, {"alive": True})
        async with client.get("/readyz") as answer:
            assert (answer.status, await answer.json()) == (503, {"ready": False, "waiting_for": waiting_for})
        waiting_for = []
        async with client.get("/readyz") as answer:
            assert (answer.status, await answer.json()) == (200, {"ready": True, "waiting_for": []})


async def test_a_wrong_method_is_told_the_right_one(client: Client) -> None:
    async with client.get("/v1/track") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "OPTIONS,POST"
        assert (await answer.json())["message"] == "method not allowed"


async def test_other_routes_may_be_added_and_keep_their_own_answers(log: RememberingLog) -> None:
    async def link(request: web.Request) -> web.Response:
        raise web.HTTPGone(text="<p>This link has expired.</p>", content_type="text/html")

    app = make_app(log, Settings(), metrics=Metrics())
    app.router.add_get("/l/{token}", link)
    async with TestClient(TestServer(app)) as client, client.get("/l/x") as answer:
        assert (answer.status, answer.content_type) == (410, "text/html")
        assert await answer.text() == "<p>This link has expired.</p>"


def test_one_key_of_two_tenants_is_a_mistake_in_the_settings() -> None:
    settings = Settings(write_keys={"shop": [SecretStr("same")], "bank": [SecretStr("same")]})
    with pytest.raises(ValueError, match="another tenant"):
        make_app(RememberingLog(), settings, metrics=Metrics())


OTHER_NAMES = {
    f"{version}/{name}{end}"
    for kind, names in PATHS.items()
    for name in names
    for version in ("", "/v1")
    for end in ("", "/")
    if f"{version}/{name}{end}" != f"/v1/{kind}"
} | {"/projects/{key}/settings"}


async def test_the_description_is_valid_and_describes_each_path_that_is_served(client: Client) -> None:
    async with client.get("/openapi.json") as answer:
        text = await answer.text()
    document = openapi_pydantic.OpenAPI.model_validate_json(text)
    assert document.openapi.startswith("3.1.")
    paths = json.loads(text)["paths"]
    served = {
        (resource.canonical, route.method.lower())
        for resource in client.app.router.resources()
        for route in resource
        if route.method in {"GET", "POST"} and resource.canonical not in OTHER_NAMES
    }
    described = {(path, method) for path, item in paths.items() for method in item if method in {"get", "post"}}
    assert described == served


CALLS: dict[str, type[BaseModel]] = {
    "track": http.Track,
    "identify": http.Identify,
    "page": http.Page,
    "screen": http.Page,
    "group": http.Group,
    "alias": http.Alias,
}
_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=256).filter(str.strip)
_PROPERTIES = st.dictionaries(_TEXT, st.none() | st.booleans() | st.integers(-(2**63), 2**63) | _TEXT, max_size=4)


@given(data=st.data(), kind=st.sampled_from(sorted(CALLS)))
def test_whatever_the_description_allows_is_taken(data: st.DataObject, kind: str) -> None:
    described = CALLS[kind]
    times = st.datetimes(timezones=st.timezones())
    optional = {
        "anonymous_id": _TEXT, "message_id": _TEXT, "timestamp": times, "sent_at": times,
        "properties": _PROPERTIES, "traits": _PROPERTIES, "name": _TEXT, "category": _TEXT,
    }  # fmt: skip
    required = {"user_id": _TEXT, "event": _TEXT, "group_id": _TEXT, "previous_id": _TEXT}
    fields = data.draw(st.fixed_dictionaries(required, optional=optional))
    fields = {name: value for name, value in fields.items() if name in described.model_fields}
    raw = described.model_validate(fields).model_dump_json(by_alias=True, exclude_unset=True).encode()
    user, event = segment.read(raw, segment.decode(raw), kind, None, NOW)
    assert user == fields["user_id"]
    assert len(event.id) <= contents.LONGEST_ID


def test_retry_after_is_whole_seconds_and_at_least_one() -> None:
    for seconds, written in ((0.0, "1"), (0.2, "1"), (1.01, "2"), (30.0, "30")):
        assert answers.failure(429, "overloaded", "", seconds).retry_after == written


async def until(holds: Callable[[], bool]) -> None:
    """Return when it holds; fail after 10 s."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is asked about tells nobody
            await asyncio.sleep(0.001)


HALF = (
    b"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer shop-key\r\nContent-Length: 1000\r\n\r\n"
    + b'{"userId":'
)


async def test_a_body_that_does_not_come_is_408_which_sdks_repeat(
    client: Client, log: RememberingLog, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PATIENCE_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(HALF)
    async with asyncio.timeout(10):
        answer = await reader.read()  # until it hangs up
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert log.records == []


async def test_a_client_that_goes_away_leaves_nothing_behind(
    log: RememberingLog, settings: Settings, metrics: Metrics, caplog: pytest.LogCaptureFixture, serve: Serve
) -> None:
    admission = Admission(metrics)
    server = serve(make_app(log, settings, metrics=metrics, admission=admission))
    await server.start_server()
    try:
        assert server.port is not None
        _, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(HALF)
        await until(lambda: admission.bytes > 0)
        writer.close()
        await writer.wait_closed()
        await until(lambda: not admission.requests and not admission.bytes)
    finally:
        await server.close()
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []
    assert log.records == []
