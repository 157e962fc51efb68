"""That webhooks are believed for their signature, found by their paths, and count once."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook as StandardWebhook

from agents.ingress import make_app
from agents.ingress.webhooks import find
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Settings, Webhook
from tests.ingress.conftest import NOW, STANDARD_SECRET, Client
from tests.ingress.remembering_log import RememberingLog, headers

PAYMENT = {"id": "evt_1", "type": "failed", "data": {"customer": {"id": 7}, "amount": 990}}


def signed(body: bytes, secret: bytes = b"s3cret") -> str:
    return hmac.new(secret, body, hashlib.sha256).hexdigest()


async def post(client: Client, source: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    async with client.post(f"/v1/webhooks/{source}", data=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_a_signed_webhook_becomes_the_event_the_settings_describe(client: Client, log: RememberingLog) -> None:
    body = json.dumps(PAYMENT).encode()
    assert await post(client, "payments", body, {"X-Payments-Signature": signed(body)}) == (200, {"success": True})
    [record], [event] = log.records, log.events
    assert record.key == b"bank:7"
    assert (event.id, event.name, event.occurred_at) == ("payments evt_1", "payment_failed", NOW)
    assert event.properties == PAYMENT["data"]


@pytest.mark.parametrize(
    "write",
    [
        lambda digest: digest.hex().upper(),
        lambda digest: "sha256=" + digest.hex(),
        lambda digest: base64.b64encode(digest).decode(),
        lambda digest: "sha256=" + base64.b64encode(digest).decode(),
    ],
    ids=["HEX", "sha256=hex", "base64", "sha256=base64"],
)
async def test_the_ways_a_signature_is_written(client: Client, log: RememberingLog, write: Any) -> None:
    body = json.dumps(PAYMENT).encode()
    signature = write(hmac.new(b"s3cret", body, hashlib.sha256).digest())
    assert (await post(client, "payments", body, {"X-Payments-Signature": signature}))[0] == 200
    assert len(log.events) == 1


@pytest.mark.parametrize(
    "signature", [None, "", "sha256=", "0" * 64, "é", signed(b"another body"), signed(b"{}", b"x")]
)
async def test_without_a_right_signature_nothing_is_believed(
    client: Client, log: RememberingLog, signature: str | None
) -> None:
    given = {} if signature is None else {"X-Payments-Signature": signature}
    status, answer = await post(client, "payments", json.dumps(PAYMENT).encode(), given)
    assert (status, answer["code"]) == (401, "signature")
    assert log.records == []


async def test_a_webhook_without_an_id_counts_once_for_its_body(client: Client, log: RememberingLog) -> None:
    for amount in (1, 1, 2):
        body = json.dumps({"type": "paid", "data": {"customer": {"id": "ada"}, "amount": amount}}).encode()
        await post(client, "payments", body, {"X-Payments-Signature": signed(body)})
    first, again, other = (event.id for event in log.events)
    assert first == again != other


async def test_what_is_not_where_the_settings_say_is_put_aside(client: Client, log: RememberingLog) -> None:
    for content, reason in (({"type": "paid"}, "no_user"), ({"data": {"customer": {"id": "ada"}}}, "no_event")):
        body = json.dumps(content).encode()
        status, answer = await post(client, "payments", body, {"X-Payments-Signature": signed(body)})
        assert (status, answer["invalid"][0]["code"]) == (200, reason)
    assert [headers(record)["invalid-reason"] for record in log.invalid] == ["no_user", "no_event"]
    assert [record.key for record in log.invalid] == [b"bank:", b"bank:ada"]


async def test_what_is_signed_but_no_json_is_a_clear_error(client: Client, log: RememberingLog) -> None:
    for body in (b"", b"{", b"a=1"):
        status, answer = await post(client, "payments", body, {"X-Payments-Signature": signed(body)})
        assert (status, answer["code"]) == (400, "not_json")


async def test_properties_that_are_too_large_are_put_aside_but_the_body_may_be_larger(
    client: Client, log: RememberingLog
) -> None:
    for part in ("data", "rest"):
        content: dict[str, Any] = {"id": part, "type": "paid", "data": {"customer": {"id": "ada"}}, "rest": {}}
        content[part]["lines"] = ["x" * 1000] * 40
        body = json.dumps(content).encode()
        assert (await post(client, "payments", body, {"X-Payments-Signature": signed(body)}))[0] == 200
    assert [event.id for event in log.events] == ["payments rest"]
    assert headers(log.invalid[0])["invalid-reason"] == "too_large"


def standard(body: bytes, id: str = "msg_1", age: timedelta = timedelta(0)) -> dict[str, str]:
    at = datetime.now(UTC) - age
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": StandardWebhook(STANDARD_SECRET).sign(id, at, body.decode()),
    }


async def test_standard_webhooks_are_checked_and_named_by_their_id(client: Client, log: RememberingLog) -> None:
    body = b'{"type": "contact.updated", "user_id": "ada", "id": "not this"}'
    assert (await post(client, "crm", body, standard(body)))[0] == 200
    [event] = log.events
    assert (event.id, event.name) == ("crm msg_1", "contact.updated")
    assert log.records[0].key == b"shop:ada"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda given: given | {"webhook-id": "msg_2"},
        lambda given: given | {"webhook-timestamp": str(int(given["webhook-timestamp"]) + 1)},
        lambda given: given | {"webhook-timestamp": "NaN"},
        lambda given: given | {"webhook-signature": "v1,AAAA"},
        lambda given: given | {"webhook-signature": "v1"},
        lambda given: given | {"webhook-signature": "v1,A"},
        lambda given: given | {"webhook-signature": "é"},
        lambda given: {},
    ],
)
async def test_a_spoiled_standard_webhook_is_not_believed(client: Client, log: RememberingLog, spoil: Any) -> None:
    body = b'{"type": "contact.updated", "user_id": "ada"}'
    status, answer = await post(client, "crm", body, spoil(standard(body)))
    assert (status, answer["code"]) == (401, "signature")
    assert log.records == []


@pytest.mark.parametrize("age", [timedelta(minutes=6), timedelta(minutes=-6)])
async def test_an_old_standard_webhook_is_a_replay(client: Client, log: RememberingLog, age: timedelta) -> None:
    body = b'{"type": "contact.updated", "user_id": "ada"}'
    assert (await post(client, "crm", body, standard(body, age=age)))[0] == 401
    assert log.records == []


async def test_a_signed_body_that_is_not_utf_8_breaks_nothing(client: Client, log: RememberingLog) -> None:
    assert (await post(client, "crm", b'{"a": "\xff"}', standard(b"{}")))[0] == 401
    body = b'{"type": "\xff"}'
    assert (await post(client, "payments", body, {"X-Payments-Signature": signed(body)}))[0] == 400


async def test_an_unknown_source_is_not_found(client: Client) -> None:
    status, answer = await post(client, "nobody", b"{}", {})
    assert (status, answer["code"]) == (404, "unknown")


@pytest.mark.parametrize(
    ("webhook", "says"),
    [
        (Webhook(tenant="shop", secret=SecretStr("")), "empty"),
        (Webhook(tenant="Shop!", secret=SecretStr("x")), "tenant"),
        (Webhook(tenant="shop", secret=SecretStr("whsec_é"), scheme="standard-webhooks"), "base64"),
        (Webhook(tenant="shop", secret=SecretStr("whsec_"), scheme="standard-webhooks"), "base64"),
    ],
)
def test_a_server_whose_webhooks_cannot_work_does_not_start(webhook: Webhook, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_app(RememberingLog(), Settings(webhooks={"crm": webhook}), metrics=Metrics())


def test_a_path_leads_through_objects_and_lists() -> None:
    content = {"a": {"b": [{"c": 1}, {"c": 2}]}, "": 3}
    assert find(content, "a.b.1.c") == 2
    assert find(content, "") == content
    for path in ("a.x", "a.b.2.c", "a.b.-1", "a.b.c", "a.b.0.c.d", "a..b"):
        assert find(content, path) is None
