"""What a request is answered with: JSON, with `code` and `message` where it failed, as Segment's clients read them."""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog
from aiohttp import web
from msgspec import Struct

from agents.ingress.refusals import Refusal
from engine.runtime import tracing
from engine.runtime.host import Overloaded, Unavailable

RETRY_UNAVAILABLE_SECONDS: Final = 2.0  # Another broker leads a partition after about that time.
_SHOWN: Final = 10  # refused events named in an answer; all of them are in `events.invalid`

encode = msgspec.json.encode
_logger = structlog.stdlib.get_logger(__name__)


class Answer(Struct, frozen=True):
    """What is said, whoever writes it to the connection."""

    status: int
    body: bytes
    retry_after: str | None = None  # seconds

    def response(self) -> web.Response:
        """The answer as aiohttp takes it."""
        headers = None if self.retry_after is None else {"Retry-After": self.retry_after}
        return web.Response(status=self.status, body=self.body, content_type="application/json", headers=headers)


SUCCESS: Final = Answer(200, b'{"success":true}')


def success(refused: Sequence[tuple[int, Refusal]] = ()) -> Answer:
    """200. Events that were put aside are named, so that somebody with curl sees what was wrong."""
    if not refused:
        return SUCCESS
    return Answer(200, encode({"success": True, "invalid": _name(refused)}))


def refused_events(refused: Sequence[tuple[int, Refusal]]) -> Answer:
    """400, the answer to `X-Strict-Mode: 1` where events were wrong. The good ones of the batch were accepted."""
    first = refused[0][1]
    body = {"success": False, "code": first.reason, "message": first.detail, "invalid": _name(refused)}
    return Answer(400, encode(body))


def failure(status: int, code: str, message: str, retry_after_seconds: float | None = None) -> Answer:
    """An error. Retry-After is given in whole seconds, at least one: clients read nothing else."""
    body = encode({"success": False, "code": code, "message": message})
    return Answer(status, body, None if retry_after_seconds is None else str(max(1, math.ceil(retry_after_seconds))))


def explain(error: Exception, method: str, traceparent: str) -> Answer:
    """The answer to a request that failed. What is our fault is logged; nothing of a body or a key gets into the log."""
    match error:
        case Refusal():
            return failure(error.status, error.reason, error.detail)
        case Overloaded():
            return failure(429, "overloaded", str(error), error.retry_after_seconds)
        case Unavailable():
            return failure(503, "unavailable", str(error), RETRY_UNAVAILABLE_SECONDS)
    with tracing.span("request_failed", {tracing.HEADER: traceparent}):  # for its ids in the log line
        _logger.error("request_failed", method=method, error=type(error).__name__, exc_info=error)
    return failure(500, "internal", "this is our fault; it is logged, and you may try again")


def document(body: object, status: int = 200) -> web.Response:
    """Anything else that is JSON."""
    return Answer(status, encode(body)).response()


def _name(refused: Sequence[tuple[int, Refusal]]) -> list[dict[str, object]]:
    return [{"index": index, "code": why.reason, "message": why.detail} for index, why in refused[:_SHOWN]]
