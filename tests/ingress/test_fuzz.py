"""That whatever is sent, the answer is never our fault, and good neighbours are kept."""

import json
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from aiohttp.test_utils import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.ingress import batches, make_app
from agents.ingress.refusals import Refusal
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Settings
from tests.ingress.conftest import NOW, Client
from tests.ingress.remembering_log import RememberingLog
from tests.ingress.serving import Doorstep
from tests.ingress.test_batches import BAD, GOOD
from tests.ingress.test_tracking import KEY

CALL = (
    "type userId anonymousId event messageId properties traits timestamp sentAt groupId previousId name writeKey batch"
)
FIELDS = [*CALL.split(), "context"]
KINDS = ["track", "identify", "page", "screen", "group", "alias", "batch"]

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from(KINDS)
names = st.text(max_size=4) | st.sampled_from(FIELDS)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
calls = st.dictionaries(st.sampled_from(FIELDS), values, max_size=8)
almost_json = (
    calls.map(lambda value: json.dumps(value).encode())  # with NaN, and lone surrogates as escapes
    | values.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    | st.sampled_from([bad for bad, _ in BAD.values() if len(bad) < 20_000])
)


@st.composite
def cut_and_spliced(draw: st.DrawFn) -> bytes:
    """JSON with bytes taken out or put in anywhere."""
    whole = draw(almost_json)
    at = draw(st.integers(0, len(whole)))
    until = draw(st.integers(at, min(len(whole), at + 5)))
    return whole[:at] + draw(st.binary(max_size=4)) + whole[until:]


bodies = st.binary(max_size=50) | almost_json | cut_and_spliced()


@pytest.fixture
async def fuzzed(log: RememberingLog) -> AsyncIterator[Client]:
    keys = Settings.model_validate({"write_keys": {"shop": ["shop-key"]}})
    async with TestClient(Doorstep(make_app(log, keys, metrics=Metrics(), clock=lambda: NOW))) as client:
        yield client


HARD = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


async def answered(client: Client, path: str, body: bytes, **headers: str) -> int:
    async with client.post(path, data=body, headers=KEY | headers) as answer:
        told = await answer.json()
        assert (answer.status, told["success"]) in {(200, True), (400, False)}
        assert told["success"] or (told["code"] and told["message"])
        return answer.status


def assert_engine_can_read(log: RememberingLog) -> None:
    """Every record is what the engine, and any other strict reader of JSON, takes."""
    for event, record in zip(log.events, [r for r in log.records if r.topic == "events"], strict=True):
        assert event.id and event.name and record.value and record.key and record.key.startswith(b"shop:")
        assert json.loads(record.value)["id"] == event.id
    for record in log.invalid:
        assert record.value is not None
        msgspec.json.decode(record.value)


@HARD
@given(kind=st.sampled_from(KINDS), body=bodies)
async def test_no_body_is_answered_5xx_or_poisons_the_log(
    fuzzed: Client, log: RememberingLog, kind: str, body: bytes
) -> None:
    log.appends.clear()
    status = await answered(fuzzed, f"/v1/{kind}", body)
    assert_engine_can_read(log)
    assert status == 200 or not log.records


@HARD
@given(before=st.lists(almost_json, max_size=2), after=st.lists(almost_json, max_size=2))
async def test_good_neighbours_of_any_json_are_kept(
    fuzzed: Client, log: RememberingLog, before: list[bytes], after: list[bytes]
) -> None:
    log.appends.clear()
    events = [*before, GOOD, *after, GOOD]
    assert await answered(fuzzed, "/v1/batch", b'{"batch":[%b]}' % b",".join(events)) == 200
    assert len(log.records) == len(events)
    assert [event.name for event in log.events].count("good") >= 2
    assert_engine_can_read(log)


CLOUD_EVENTS = "application/cloudevents"
content_types = st.sampled_from(
    [f"{CLOUD_EVENTS}+json", f"{CLOUD_EVENTS}-batch+json", "application/json", "text/plain; charset=utf-16", "x/y", ""]
)
attributes_in_headers = st.dictionaries(
    st.sampled_from(["ce-id", "ce-source", "ce-type", "ce-specversion", "ce-subject", "ce-time"]),
    st.sampled_from(["1.0", "x", "%ff", "%00", "%", "2025-01-01T00:00:00Z"]),
)


@HARD
@given(body=bodies, content_type=content_types, attributes=attributes_in_headers)
async def test_no_cloud_event_is_answered_5xx_or_poisons_the_log(
    fuzzed: Client, log: RememberingLog, body: bytes, content_type: str, attributes: dict[str, str]
) -> None:
    log.appends.clear()
    await answered(fuzzed, "/v1/cloudevents", body, **attributes, **{"Content-Type": content_type})
    assert_engine_can_read(log)


@given(events=st.lists(values.map(json.dumps), max_size=5), around=values.map(json.dumps))
def test_taking_a_batch_apart_by_its_brackets_finds_what_strict_decoding_finds(events: list[str], around: str) -> None:
    split: Callable[..., tuple[list[bytes], bytes]] = batches._split
    body = f'{{"context": {around}, "batch" : [{" , ".join(events)}], "sentAt": "x"}}'.encode()
    found, envelope = split(body, ValueError())
    assert found == [event.encode() for event in events]
    assert json.loads(envelope) == {"context": json.loads(around), "batch": [], "sentAt": "x"} or "NaN" in around
    try:
        strict = batches.read(body)
    except Refusal:  # what is around the events is no strict JSON
        return
    assert [bytes(event) for event in strict.batch] == found
