"""That one bad event never takes its neighbours with it, and that nothing anybody sends breaks the ingress."""

import base64
import gzip
import json
import tracemalloc
from typing import Any

import pytest

from tests.ingress.conftest import Client
from tests.ingress.remembering_log import RememberingLog, headers
from tests.ingress.test_tracking import KEY, TRACK, as_json, post

GOOD = as_json(TRACK | {"type": "track", "event": "good"})


def event(properties: bytes = b"{}", **fields: Any) -> bytes:
    call = as_json({"type": "track", "userId": "ada", "event": "bad", **fields})
    return b'%b,"properties":%b}' % (call[:-1], properties)


BAD = {
    "no user": (as_json({"type": "track", "event": "bad"}), "no_user"),
    "no event": (as_json({"type": "track", "userId": "ada"}), "no_event"),
    "blank event": (event(event="  "), "no_event"),
    "no type": (as_json({"userId": "ada", "event": "bad"}), "kind"),
    "unknown type": (event(type="fly"), "kind"),
    "group without id": (event(type="group"), "no_group"),
    "alias without id": (event(type="alias"), "no_previous"),
    "properties a list": (event(b"[1]"), "type"),
    "event a number": (event(event=5), "type"),
    "user an object": (event(userId={"id": 1}), "type"),
    "user too long": (event(userId="u" * 257), "too_long"),
    "user with a NUL": (event(userId="a\0b"), "control_character"),
    "event too long": (event(event="e" * 257), "too_long"),
    "id too long": (event(messageId="m" * 257), "too_long"),
    "timestamp unreadable": (event(timestamp="yesterday"), "timestamp"),
    "timestamp absurd": (event(timestamp=1e300), "timestamp"),
    "too large": (event(as_json({"text": "x" * (32 << 10)})), "too_large"),
    "not an object": (b"5", "type"),
    "null": (b"null", "type"),
    "nested 100 deep": (event(b'{"a":' * 100 + b"1" + b"}" * 100), "too_deep"),
    "nested 10,000 deep": (event(b'{"a":%b}' % (b"[" * 10_000 + b"]" * 10_000)), "too_deep"),
    "a number beyond 64 bits": (event(b'{"a":[{"b":18446744073709551616}]}'), "number"),
    "a number of 10,000 digits": (event(b'{"a":%b}' % (b"9" * 10_000)), "number"),
    "a number beyond doubles": (event(b'{"a":1e999}'), "number"),
    "NaN": (event(b'{"a":NaN}'), "not_json"),
    "Infinity": (event(b'{"a":-Infinity}'), "not_json"),
    "a lone surrogate": (event(b'{"a":"\\ud800"}'), "not_json"),
    "a lone surrogate as key": (event(b'{"\\udc00":1}'), "not_json"),
    "not UTF-8": (event(b'{"a":"\xff\xfe"}'), "not_json"),
    "a surrogate in UTF-8": (event(b'{"a":"\xed\xa0\x80"}'), "not_json"),
    "a control character": (event(b'{"a":"\x01"}'), "not_json"),
    "a bare word": (event(b'{"a":nope}'), "not_json"),
    "a brace in a string, and NaN": (event(b'{"a":"\\"}],{[","b":NaN}'), "not_json"),
}


def original_of(log: RememberingLog) -> bytes:
    """The bytes that were put aside, however they are kept."""
    [record] = log.invalid
    assert record.value is not None
    kept = json.loads(record.value)
    return base64.b64decode(kept["base64"]) if headers(record).get("invalid-encoding") == "base64" else record.value


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD.keys())
async def test_a_bad_event_is_put_aside_as_it_came_and_its_neighbours_are_kept(
    client: Client, log: RememberingLog, bad: bytes, reason: str
) -> None:
    body = b'{"batch": [%b, %b ,%b], "context": {"batch": [1]}, "sentAt": null}' % (GOOD, bad, GOOD)
    status, answer = await post(client, "/v1/batch", body)
    assert status == 200
    assert [(wrong["index"], wrong["code"]) for wrong in answer["invalid"]] == [(1, reason)]
    assert [event.name for event in log.events] == ["good", "good"]
    assert len(log.appends) == 1
    assert original_of(log) == bad
    assert headers(log.invalid[0])["invalid-reason"] == reason
    assert headers(log.invalid[0])["tenant"] == "shop"


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD.keys())
async def test_in_strict_mode_the_sender_has_it_back_and_the_neighbours_are_kept(
    client: Client, log: RememberingLog, bad: bytes, reason: str
) -> None:
    status, answer = await post(client, "/v1/batch", b'{"batch":[%b,%b]}' % (bad, GOOD), **{"X-Strict-Mode": "1"})
    assert (status, answer["code"], answer["success"]) == (400, reason, False)
    assert answer["message"]
    assert [event.name for event in log.events] == ["good"]
    assert log.invalid == []


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD.keys())
async def test_alone_it_is_put_aside_too_unless_it_is_no_json_at_all(
    client: Client, log: RememberingLog, bad: bytes, reason: str
) -> None:
    status, answer = await post(client, "/v1/track", bad)
    if reason == "kind" or reason in {"no_group", "no_previous"}:  # the path says what it is
        assert (status, len(log.events)) == (200, 1)
    elif reason in {"not_json", "too_deep", "too_large"}:
        assert (status, answer["code"]) == (400, reason)
        assert log.records == []
    else:
        assert (status, answer["invalid"][0]["code"]) == (200, reason)
        assert original_of(log) == bad


async def test_a_bad_event_is_kept_beside_its_user(client: Client, log: RememberingLog) -> None:
    await post(client, "/v1/batch", {"batch": [{"type": "track", "userId": "ada"}, {"type": "track", "event": "x"}]})
    assert [record.key for record in log.invalid] == [b"shop:ada", b"shop:"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b"\xff",
        b'"batch"',
        b'{"batch": 5}',
        b'{"batch": {"a": 1}}',
        b'{"events": []}',
        b'{"batch": [{"type": "track"',
        b'{"batch": [{"type": "track"]}',
        b'{"batch": [NaN]} trailing',
        b'{"batch": [NaN], "context": NaN}',
        b'{"batch": [NaN], "context": "\\ud800"}',
        b'{"batch": [NaN], "sentAt": "unterminated}',
        b'{"x": {"batch": [NaN]}}',
        b'{"x": "\\"batch": [NaN]}',
        b"[" * 100_000,
        b'{"batch":' * 10_000,
        b'{"batch":[' + b"[]," * 150_000 + b"NaN]}",
    ],
)
async def test_what_is_no_batch_is_a_clear_error(client: Client, log: RememberingLog, body: bytes) -> None:
    status, answer = await post(client, "/v1/batch", body)
    assert status == 400
    assert answer["code"] in {"not_json", "type", "too_deep"}
    assert answer["message"]
    assert log.records == []


async def test_what_is_over_the_number_of_a_batch_is_put_aside_as_one(client: Client, log: RememberingLog) -> None:
    body = b'{"batch":[%b]}' % b",".join([b'{"type":"track","userId":"u","event":"e"}'] * 2502)
    status, answer = await post(client, "/v1/batch", body)
    assert (status, answer["invalid"][0]["code"]) == (200, "too_many")
    assert len(log.events) == 2500
    assert len(json.loads(original_of(log))) == 2


async def test_a_number_of_64_bits_arrives_unchanged(client: Client, log: RememberingLog) -> None:
    numbers = {"unsigned": 2**64 - 1, "signed": -(2**63), "double": 1e308, "text": "1" * 30}
    await post(client, "/v1/track", TRACK | {"properties": numbers})
    assert log.events[0].properties == numbers


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\xef\xbb\xbf%b", "application/json"),
        ("\ufeff%s", "utf-16-le"),
        ("\ufeff%s", "utf-32-be"),
        ("%s", "text/plain; charset=utf-16-be"),
        ("%s", "application/json; charset=ISO-8859-1"),
        ("%s", 'application/json; charset="windows-1252"'),
        ("%s", "application/json; charset=UTF-8"),
    ],
)
async def test_a_text_is_read_in_the_charset_it_has(
    client: Client, log: RememberingLog, body: str | bytes, content_type: str
) -> None:
    written = json.dumps(TRACK | {"userId": "Zoë"}, ensure_ascii=False)
    if isinstance(body, bytes):
        data = body % written.encode()
    else:
        charset = content_type.partition("charset=")[2].strip('"') or content_type
        data = (body % written).encode(charset)
    assert (await post(client, "/v1/track", data, **{"Content-Type": content_type}))[0] == 200
    assert log.records[0].key == "shop:Zoë".encode()


@pytest.mark.parametrize("charset", ["klingon", "rot13", "base64", "idna", "utf-7", "unicode_escape", "utf-16"])
async def test_a_charset_that_is_not_known_or_not_true_is_a_clear_error(client: Client, charset: str) -> None:
    status, answer = await post(client, "/v1/track", b'{"a"}', **{"Content-Type": f"text/plain; charset={charset}"})
    assert (status, answer["code"]) == (400, "charset")


@pytest.mark.parametrize(("path", "limit"), [("/v1/track", 32 << 10), ("/v1/batch", 500_000)])
async def test_a_body_may_be_as_large_as_the_limit_and_no_larger(
    client: Client, log: RememberingLog, path: str, limit: int
) -> None:
    body = as_json(TRACK) if path == "/v1/track" else b'{"batch":[%b]}' % GOOD
    assert (await post(client, path, body.ljust(limit)))[0] == 200
    status, answer = await post(client, path, body.ljust(limit + 1))
    assert (status, answer["code"]) == (400, "too_large")
    assert len(log.events) == 1


@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch", "/v1/cloudevents"])
async def test_a_gzip_bomb_is_let_go_before_it_unfolds(client: Client, log: RememberingLog, path: str) -> None:
    bomb = gzip.compress(bytes(200 << 20))
    tracemalloc.start()
    try:
        status, answer = await post(client, path, bomb, **{"Content-Encoding": "gzip"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (status, answer["code"]) == (400, "too_large")
    assert peak < 8 << 20
    assert log.records == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_what_is_not_compressed_although_it_says_so_is_a_clear_error(client: Client, encoding: str) -> None:
    async with client.post("/v1/track", data=as_json(TRACK), headers=KEY | {"Content-Encoding": encoding}) as answer:
        assert answer.status == 400


async def test_a_truncated_gzip_is_a_clear_error(client: Client, log: RememberingLog) -> None:
    body = gzip.compress(as_json({"batch": [TRACK | {"type": "track"}] * 50}))[:-20]
    async with client.post("/v1/batch", data=body, headers=KEY | {"Content-Encoding": "gzip"}) as answer:
        assert answer.status == 400
    assert log.records == []
