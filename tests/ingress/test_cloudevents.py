"""That CloudEvents as their official library makes them become our events, in all three modes."""

import asyncio
import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings import http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from tests.ingress.conftest import Client
from tests.ingress.remembering_log import RememberingLog, headers

KEY = {"Authorization": "Bearer shop-key"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
ATTRIBUTES = {
    "id": "42",
    "source": "/shop/orders",
    "type": "order.placed",
    "subject": "ada",
    "time": datetime(2024, 12, 31, 12, tzinfo=UTC),
}


def cloud_event(data: object = None, **attributes: object) -> Any:
    return CloudEvent(ATTRIBUTES | {"datacontenttype": "application/json"} | attributes, data)


async def send(client: Client, message: Any, **more: str) -> tuple[int, dict[str, Any]]:
    async with client.post("/v1/cloudevents", data=message.body, headers=message.headers | KEY | more) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("convert", [http.to_binary_event, http.to_structured_event], ids=["binary", "structured"])
async def test_an_event_of_the_official_library(client: Client, log: RememberingLog, convert: Any) -> None:
    assert await send(client, convert(cloud_event({"total": 9.5, "text": "Grüße"}))) == (200, {"success": True})
    [record], [event] = log.records, log.events
    assert record.key == b"shop:ada"
    assert (event.id, event.name) == ("/shop/orders 42", "order.placed")
    assert event.occurred_at == 1_735_646_400_000
    assert event.properties == {"total": 9.5, "text": "Grüße"}


@pytest.mark.parametrize("convert", [http.to_binary_event, http.to_structured_event], ids=["binary", "structured"])
async def test_identify_sets_the_profile(client: Client, log: RememberingLog, convert: Any) -> None:
    await send(client, convert(cloud_event({"tier": "gold"}, type="identify")))
    [event] = log.events
    assert (event.name, event.profile, event.properties) == ("identify", {"tier": "gold"}, {})


async def test_a_user_in_an_extension_wins_over_the_subject(client: Client, log: RememberingLog) -> None:
    await send(client, http.to_binary_event(cloud_event({}, userid="Zoë")))
    assert log.records[0].key == "shop:Zoë".encode()


@pytest.mark.parametrize(
    ("content_type", "data", "properties"),
    [
        ("application/json", [1, 2], {"data": [1, 2]}),
        ("text/plain", "hello", {"data": "hello"}),
        ("image/png", b"\x89PNG", {"data_base64": base64.b64encode(b"\x89PNG").decode()}),
    ],
)
@pytest.mark.parametrize("convert", [http.to_binary_event, http.to_structured_event], ids=["binary", "structured"])
async def test_data_that_is_no_object_is_a_property(
    client: Client, log: RememberingLog, convert: Any, content_type: str, data: object, properties: dict[str, object]
) -> None:
    assert (await send(client, convert(cloud_event(data, datacontenttype=content_type))))[0] == 200
    assert log.events[0].properties == properties


async def test_a_batch_keeps_its_good_events(client: Client, log: RememberingLog) -> None:
    good = [JSONFormat().write(cloud_event({"n": number}, id=str(number))) for number in range(3)]
    body = b"[%b]" % b", ".join([*good[:2], b'{"specversion":"1.0","id":"x"}', b'{"data": NaN}', good[2]])
    async with client.post("/v1/cloudevents", data=body, headers=KEY | BATCH) as answer:
        assert answer.status == 200
        assert [wrong["index"] for wrong in (await answer.json())["invalid"]] == [2, 3]
    assert [event.properties["n"] for event in log.events] == [0, 1, 2]
    assert [headers(record)["invalid-reason"] for record in log.invalid] == ["type", "not_json"]


@pytest.mark.parametrize("missing", ["id", "source", "type", "subject"])
async def test_what_is_missing_is_named(client: Client, log: RememberingLog, missing: str) -> None:
    content = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "ada"}
    del content[missing]
    sent = {"Content-Type": "application/cloudevents+json", "X-Strict-Mode": "1"}
    async with client.post("/v1/cloudevents", data=json.dumps(content), headers=KEY | sent) as answer:
        assert answer.status == 400
        assert missing in (await answer.json())["message"]


async def test_long_sources_and_ids_stay_distinct(client: Client, log: RememberingLog) -> None:
    for number in range(2):
        await send(client, http.to_structured_event(cloud_event({}, source="/" + "s" * 400, id=str(number))))
    first, second = (event.id for event in log.events)
    assert first != second
    assert len(first) <= 256


@pytest.mark.parametrize("body", [b"", b"{", b"[NaN", b"5"])
@pytest.mark.parametrize("kind", ["application/cloudevents+json", "application/cloudevents-batch+json", "text/plain"])
async def test_what_is_no_cloud_event_is_never_an_event(
    client: Client, log: RememberingLog, body: bytes, kind: str
) -> None:
    async with client.post("/v1/cloudevents", data=body, headers=KEY | {"Content-Type": kind}) as answer:
        assert answer.status in (200, 400)
        told = await answer.json()
        assert told.get("message") or told["invalid"][0]["message"]
    assert log.events == []


async def test_the_key_must_be_in_the_header(client: Client, log: RememberingLog) -> None:
    message = http.to_binary_event(cloud_event({}))
    async with client.post("/v1/cloudevents", data=message.body, headers=message.headers) as answer:
        assert answer.status == 401
    assert log.records == []


async def test_a_header_that_is_not_utf_8_is_put_aside(client: Client, log: RememberingLog) -> None:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(
        b"POST /v1/cloudevents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer shop-key\r\nConnection: close\r\n"
        b"ce-id: 1\r\nce-source: s\r\nce-type: t\r\nce-specversion: 1.0\r\nce-subject: \xff\xfe\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert (log.events, len(log.invalid)) == ([], 1)
