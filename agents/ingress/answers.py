"""What a request is answered with: JSON, with `code` and `message` where it failed, as Segment's clients read them."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from aiohttp import web

from agents.ingress.refusals import Refusal

RETRY_UNAVAILABLE_SECONDS: Final = 2.0  # Another broker leads a partition after about that time.
_SHOWN: Final = 10  # refused events named in an answer; all of them are in `events.invalid`
_SUCCESS: Final = b'{"success":true}'

encode = msgspec.json.encode


def success(refused: Sequence[tuple[int, Refusal]] = ()) -> web.Response:
    """200. Events that were put aside are named, so that somebody with curl sees what was wrong."""
    if not refused:
        return _json(200, _SUCCESS)
    return _json(200, encode({"success": True, "invalid": _name(refused)}))


def refused_events(refused: Sequence[tuple[int, Refusal]]) -> web.Response:
    """400, the answer to `X-Strict-Mode: 1` where events were wrong. The good ones of the batch were accepted."""
    first = refused[0][1]
    body = {"success": False, "code": first.reason, "message": first.detail, "invalid": _name(refused)}
    return _json(400, encode(body))


def failure(status: int, code: str, message: str, retry_after_seconds: float | None = None) -> web.Response:
    """An error. Retry-After is given in whole seconds, at least one: clients read nothing else."""
    headers = None if retry_after_seconds is None else {"Retry-After": str(max(1, math.ceil(retry_after_seconds)))}
    return _json(status, encode({"success": False, "code": code, "message": message}), headers)


def document(body: object, status: int = 200) -> web.Response:
    """Anything else that is JSON."""
    return _json(status, encode(body))


def _name(refused: Sequence[tuple[int, Refusal]]) -> list[dict[str, object]]:
    return [{"index": index, "code": why.reason, "message": why.detail} for index, why in refused[:_SHOWN]]


def _json(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
