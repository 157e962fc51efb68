"""That Segment's calls become our events."""

import asyncio
import base64
import gzip
import json
from typing import Any

import pytest

from agents.ingress.tracking import PATHS
from tests.ingress.conftest import NOW, Client
from tests.ingress.remembering_log import RememberingLog, headers

KEY = {"Authorization": "Bearer shop-key"}
TRACK = {"userId": "ada", "event": "order_placed", "messageId": "m1", "properties": {"total": 99.5}}


def as_json(body: object) -> bytes:
    return json.dumps(body).encode()


async def post(client: Client, path: str, body: object, **headers: str) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else as_json(body)
    async with client.post(path, data=data, headers=KEY | headers) as answer:
        return answer.status, await answer.json()


async def test_a_track_call_is_an_event_of_its_user(client: Client, log: RememberingLog) -> None:
    assert await post(client, "/v1/track", TRACK) == (200, {"success": True})
    [record], [event] = log.records, log.events
    assert (record.topic, record.key, record.partition) == ("events", b"shop:ada", None)
    assert (event.id, event.name, event.occurred_at) == ("m1", "order_placed", NOW)
    assert (event.properties, event.profile) == ({"total": 99.5}, {})
    assert headers(record)["content-type"] == "application/json"
    assert headers(record)["tenant"] == "shop"


async def test_identify_sets_the_profile_and_null_removes(client: Client, log: RememberingLog) -> None:
    await post(client, "/v1/identify", {"userId": "ada", "traits": {"tier": "gold", "phone": None}})
    [event] = log.events
    assert (event.name, event.profile, event.properties) == ("identify", {"tier": "gold", "phone": None}, {})


@pytest.mark.parametrize("kind", ["page", "screen"])
async def test_a_page_has_its_name_among_its_properties(client: Client, log: RememberingLog, kind: str) -> None:
    body = {"userId": "ada", "name": "Cart", "category": "Shop", "properties": {"url": "/cart", "category": "mine"}}
    await post(client, f"/v1/{kind}", body)
    [event] = log.events
    assert event.name == kind
    assert event.properties == {"name": "Cart", "category": "mine", "url": "/cart"}


async def test_a_group_call_has_the_traits_of_the_group_as_properties(client: Client, log: RememberingLog) -> None:
    await post(client, "/v1/group", {"userId": "ada", "groupId": 7, "traits": {"plan": "team"}})
    [event] = log.events
    assert (event.name, event.properties, event.profile) == ("group", {"plan": "team", "groupId": "7"}, {})


async def test_alias_names_the_previous_id_whether_it_was_anonymous_or_not(client: Client, log: RememberingLog) -> None:
    await post(client, "/v1/alias", {"userId": "ada", "previousId": "a-1"})
    assert [record.key for record in log.records] == [b"shop:ada"]
    assert (log.events[0].name, log.events[0].properties) == ("alias", {"previousId": "a-1"})
    assert log.events[0].aliases == ("a-1", "anon:a-1")


async def test_identify_names_the_anonymous_id_and_no_other_call_does(client: Client, log: RememberingLog) -> None:
    ids = {"userId": "ada", "anonymousId": "a-1"}
    await post(client, "/v1/identify", ids)
    await post(client, "/v1/track", {**ids, "event": "seen"})
    await post(client, "/v1/identify", {"anonymousId": "a-1"})
    await post(client, "/v1/identify", {**ids, "anonymousId": "x" * 257})
    await post(client, "/v1/identify", {**ids, "anonymousId": "\N{SNOWMAN}" * 200})
    assert [event.aliases for event in log.events] == [("anon:a-1",), (), (), (), ()]
    assert log.records[2].key == b"shop:anon:a-1"


async def test_an_anonymous_id_is_an_actor_of_its_own(client: Client, log: RememberingLog) -> None:
    await post(client, "/v1/track", {"anonymousId": "a-1", "userId": "", "event": "seen"})
    await post(client, "/v1/track", {"anonymousId": "a-1", "userId": "ada", "event": "seen"})
    assert [record.key for record in log.records] == [b"shop:anon:a-1", b"shop:ada"]


async def test_a_number_as_an_id_is_written_out(client: Client, log: RememberingLog) -> None:
    for user in (42, 42.0, "42"):
        await post(client, "/v1/track", {"userId": user, "event": "seen", "messageId": 1})
    assert {record.key for record in log.records} == {b"shop:42"}
    assert {event.id for event in log.events} == {"1"}


async def test_a_call_without_an_id_gets_a_fresh_one(client: Client, log: RememberingLog) -> None:
    for _ in range(2):
        await post(client, "/v1/track", {"userId": "ada", "event": "seen"})
    assert len({event.id for event in log.events}) == 2


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("version", ["/v1", ""])
@pytest.mark.parametrize("name", [name for names in PATHS.values() for name in names])
async def test_every_path_an_sdk_posts_to(
    client: Client, log: RememberingLog, version: str, name: str, end: str
) -> None:
    call = TRACK | {"type": "track", "groupId": "g", "previousId": "p"}
    body = {"batch": [call]} if name in PATHS["batch"] else call
    assert await post(client, f"{version}/{name}{end}", body) == (200, {"success": True})
    assert len(log.events) == 1


async def test_a_batch_keeps_its_order_and_is_appended_at_once(client: Client, log: RememberingLog) -> None:
    calls = [{"type": "track", "userId": "ada", "event": f"e{number}"} for number in range(2500)]
    assert await post(client, "/v1/batch", {"batch": calls}) == (200, {"success": True})
    [append] = log.appends
    assert len(append) == 2500
    assert [event.name for event in log.events] == [f"e{number}" for number in range(2500)]


async def test_an_empty_batch_is_fine_and_appends_nothing(client: Client, log: RememberingLog) -> None:
    assert await post(client, "/v1/batch", {"batch": []}) == (200, {"success": True})
    assert log.appends == []


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "x", ""],
)
async def test_any_content_type_is_taken(client: Client, log: RememberingLog, content_type: str) -> None:
    assert (await post(client, "/v1/track", TRACK, **{"Content-Type": content_type}))[0] == 200
    assert len(log.events) == 1


async def test_a_compressed_body_is_unpacked(client: Client, log: RememberingLog) -> None:
    body = gzip.compress(as_json({"batch": [TRACK | {"type": "track"}]}))
    assert (await post(client, "/v1/batch", body, **{"Content-Encoding": "gzip"}))[0] == 200
    assert len(log.events) == 1


async def test_a_wrong_clock_is_corrected_by_when_the_batch_was_sent(client: Client, log: RememberingLog) -> None:
    call = TRACK | {"type": "track", "timestamp": "2031-05-05T10:00:00.000Z"}
    await post(client, "/v1/batch", {"batch": [call], "sentAt": "2031-05-05T10:00:07.500Z"})
    await post(client, "/v1/track", call | {"sentAt": "2031-05-05T11:00:00Z"})
    await post(client, "/v1/track", TRACK | {"timestamp": "2024-12-31T23:59:59Z"})
    assert [event.occurred_at - NOW for event in log.events] == [-7_500, -3_600_000, -1_000]


async def test_the_answer_waits_until_the_event_is_durable(client: Client, log: RememberingLog) -> None:
    log.gate.clear()
    answer = asyncio.create_task(post(client, "/v1/track", TRACK))
    await log.until_waiting(1)
    assert not answer.done()
    log.gate.set()
    assert (await answer)[0] == 200


async def test_a_trace_goes_on_into_the_record_and_else_begins_there(client: Client, log: RememberingLog) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await post(client, "/v1/track", TRACK, traceparent=given)
    await post(client, "/v1/track", TRACK, traceparent="00-nonsense")
    first, second = (headers(record)["traceparent"] for record in log.records)
    assert first == given
    assert len(second) == 55
    assert second != given


async def test_a_browser_may_send_from_any_page(client: Client) -> None:
    asks = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    async with client.options("/v1/t", headers=asks) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    async with client.post("/v1/t", data=as_json(TRACK), headers={"Origin": "https://shop.example"}) as answer:
        assert answer.status == 401
        assert answer.headers["Access-Control-Allow-Origin"] == "*"  # or the page could not read why
    async with client.get("/healthz", headers={"Origin": "https://shop.example"}) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_browser_learns_where_to_send(client: Client) -> None:
    async with client.get("/v1/projects/shop-key/settings") as answer:
        assert answer.status == 200
        segment = (await answer.json())["integrations"]["Segment.io"]
        assert segment == {"apiKey": "shop-key", "apiHost": f"{client.host}:{client.port}/v1", "protocol": "http"}
    async with client.get("/v1/projects/nobody/settings") as answer:
        assert answer.status == 401


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        (basic("bank-key"), {}),
        ({"Authorization": "Bearer bank-key"}, {}),
        ({}, {"writeKey": "bank-key"}),
        (basic("bank-key"), {"writeKey": "shop-key", "tenant": "shop"}),
    ],
    ids=["basic", "bearer", "in the body", "the header counts"],
)
@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch"])
async def test_the_tenant_is_the_keys(
    client: Client, log: RememberingLog, path: str, headers: dict[str, str], fields: dict[str, str]
) -> None:
    call = TRACK | {"type": "track"}
    body = ({"batch": [call]} if path == "/v1/batch" else call) | fields
    async with client.post(path, data=as_json(body), headers=headers) as answer:
        assert answer.status == 200
    assert log.records[0].key == b"bank:ada"


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {}),
        ({}, {"writeKey": "nobody"}),
        ({}, {"writeKey": ["shop-key"]}),
        ({}, {"writeKey": "k" * 5000}),
        (basic("nobody"), {"writeKey": "shop-key"}),
        (basic(""), {}),
        ({"Authorization": "Basic !!"}, {}),
        ({"Authorization": "Bearer"}, {}),
        ({"Authorization": "Digest shop-key"}, {}),
    ],
)
async def test_without_a_right_key_nothing_is_taken(
    client: Client, log: RememberingLog, headers: dict[str, str], fields: dict[str, object]
) -> None:
    for path, body in (("/v1/track", TRACK), ("/v1/batch", {"batch": [TRACK]})):
        async with client.post(path, data=as_json(body | fields), headers=headers) as answer:
            assert answer.status == 401
            assert (await answer.json())["code"] == "write_key"
    assert log.records == []
