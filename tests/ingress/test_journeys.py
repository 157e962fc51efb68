"""That another system can let a user enter a journey, and hears at once what is wrong with its asking."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.ingress import journeys
from engine.runtime.host import Overloaded, Unavailable
from schemas import http
from schemas.inputs import Entered
from tests.ingress.conftest import Client
from tests.ingress.remembering_log import RememberingLog, headers
from tests.ingress.test_fuzz import HARD, bodies, values
from tests.ingress.test_operations import _PROPERTIES, _TEXT
from tests.ingress.test_tracking import KEY

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def enter(client: Client, body: Any, journey: str = "welcome", **more: str) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client.post(f"/v1/journeys/{journey}/enter", data=data, headers=KEY | more) as answer:
        return answer.status, await answer.json()


def entries(log: RememberingLog) -> list[Entered]:
    return [msgspec.json.decode(record.value or b"", type=Entered) for record in log.records]


async def test_an_entry_is_an_input_of_its_user(client: Client, log: RememberingLog) -> None:
    body = {"userId": "ada", "id": "o-1", "properties": {"order": 7}}
    assert await enter(client, body, traceparent=TRACEPARENT) == (200, {"success": True, "id": "o-1"})
    [record] = log.records
    assert (record.topic, record.key) == ("events", b"shop:ada")
    assert headers(record)["tenant"] == "shop"
    assert headers(record)["traceparent"].split("-")[1] == TRACEPARENT.split("-")[1]
    assert entries(log) == [Entered("welcome:o-1", "welcome", "api", {"order": 7})]


async def test_without_an_id_each_asking_is_a_new_one_and_the_answer_names_it(
    client: Client, log: RememberingLog
) -> None:
    ids = [(await enter(client, {"userId": 7}))[1]["id"] for _ in range(2)]
    assert len(set(ids)) == 2
    assert [entered.id for entered in entries(log)] == [f"welcome:{id}" for id in ids]
    assert log.records[0].key == b"shop:7"


async def test_one_id_may_be_an_entry_into_two_journeys(client: Client, log: RememberingLog) -> None:
    for journey in ("welcome", "win_back"):
        await enter(client, {"userId": "ada", "id": "o-1"}, journey)
    assert len({entered.id for entered in entries(log)}) == 2


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ({}, "no_user", "userId is required"),
        ({"userId": ""}, "no_user", "userId is required"),
        ({"userId": "ada", "propertes": {}}, "type", "unknown field `propertes`"),
        ({"userId": "ada", "properties": []}, "type", "Expected `object`"),
        ({"userId": "u" * 257}, "too_long", "userId is longer than 256 characters"),
        ({"userId": "ada", "id": "a\0"}, "control_character", "id contains a control character"),
        ({"userId": "ada", "properties": {"n": 1 << 65}}, "number", "64 bits"),
        (b'{"userId": "ada", "properties": {"n": NaN}}', "not_json", ""),
        (b'{"userId": "ada", "properties": {"n": ' + b"[" * 65 + b"]" * 65 + b"}}", "too_deep", "64 deep"),
        (b'{"userId": "ada", "properties": {"n": "' + b"x" * 33_000 + b'"}}', "too_large", "32,768 bytes"),
        (b"", "not_json", ""),
        (b"\xff", "not_json", ""),
    ],
    ids=[
        "empty", "no user", "misspelt", "list", "long", "control", "number", "nan", "deep", "large", "none", "no utf-8",
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_and_nothing_is_taken(
    client: Client, log: RememberingLog, body: Any, code: str, told: str
) -> None:
    status, answer = await enter(client, body)
    assert (status, answer["success"], answer["code"]) == (400, False, code)
    assert told in answer["message"]
    assert log.records == []


async def test_only_the_write_key_in_the_header_opens_it(client: Client, log: RememberingLog) -> None:
    for given_key in ({}, {"Authorization": "Bearer wrong"}):
        async with client.post(
            "/v1/journeys/welcome/enter", json={"userId": "ada", "writeKey": "shop-key"}, headers=given_key
        ) as answer:
            assert answer.status == 401
    assert log.records == []


@pytest.mark.parametrize("journey", ["Welcome", "a-b", "9lives", "x" * 65, "a%00b"])
async def test_what_no_journey_can_be_called_is_404(client: Client, log: RememberingLog, journey: str) -> None:
    status, answer = await enter(client, {"userId": "ada"}, journey)
    assert (status, answer["code"]) == (404, "unknown")
    assert log.records == []


async def test_a_log_that_takes_nothing_is_told_as_such(client: Client, log: RememberingLog) -> None:
    for failure, expected in ((Overloaded(), 429), (Unavailable("no broker"), 503)):
        log.failure = failure
        assert (await enter(client, {"userId": "ada"}))[0] == expected


@HARD
@given(body=bodies | values.map(lambda value: json.dumps({"userId": "ada", "properties": {"a": value}}).encode()))
async def test_no_body_is_answered_5xx_or_poisons_the_log(client: Client, log: RememberingLog, body: bytes) -> None:
    log.appends.clear()
    status, answer = await enter(client, body)
    assert (status, answer["success"]) in {(200, True), (400, False)}
    assert len(entries(log)) == (status == 200)
    for record in log.records:
        json.loads(record.value or b"")


@given(_TEXT, st.none() | _TEXT, _PROPERTIES)
def test_whatever_the_description_allows_is_taken(user: str, id: str | None, properties: dict[str, Any]) -> None:
    entry = http.Entry(user_id=user, id=id, properties=properties)
    taken, taken_id, entered = journeys.read(entry.model_dump_json(by_alias=True).encode(), "welcome")
    assert (taken, entered.properties) == (user, properties)
    assert taken_id == id or id is None
