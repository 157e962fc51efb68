"""How the parts of the ingress become one aiohttp application, and what happens around every request.

Around each request: a span that continues the sender's `traceparent` or begins a trace; errors turned into answers; the
counting. Nothing that was raised gets past here, and nothing of a body or a key gets into the log.

What a sender must put right is 4xx, what is our state is 429 or 503 with Retry-After, and our bugs are 500: Segment's
SDKs give up on the first and repeat the others.
"""

import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from agents.ingress import answers, cloudevents, cors, journeys, openapi, operations, tracking, webhooks
from agents.ingress.cloudevents import CloudEvents
from agents.ingress.counting import Counting
from agents.ingress.credentials import WriteKeys
from agents.ingress.doorway import HOUSE, House
from agents.ingress.journeys import JourneyEntries
from agents.ingress.overload import Admission
from agents.ingress.refusals import HangUp
from agents.ingress.submissions import TRACEPARENT, Intake
from agents.ingress.tracking import Tracking
from agents.ingress.webhooks import Webhooks
from engine.runtime import tracing
from engine.runtime.host import Log
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def wall_clock() -> int:
    """Now, ms."""
    return time.time_ns() // 1_000_000


def check(settings: Settings) -> None:
    """Raise ValueError, naming the setting, if the API can't work with these settings; `make_app` would do so later."""
    try:
        WriteKeys(settings.write_keys)
    except ValueError as error:
        raise ValueError(f"EQUEENGAGE_WRITE_KEYS: {error}") from None
    webhooks.check(settings.webhooks)


def make_app(
    log: Log,
    settings: Settings,
    *,
    metrics: Metrics,
    ready: Callable[[], list[str]] = list,
    clock: Callable[[], int] = wall_clock,
    admission: Admission | None = None,
) -> web.Application:
    """The HTTP API over a log; the caller serves it, and may add routes before.

    `ready` returns what the process still waits for, in words, for `/readyz`. Serve it with `access_log=None`: requests
    are counted here, and an access log would keep the write keys that are in paths.
    """
    admission = admission or Admission(metrics)
    keys = WriteKeys(settings.write_keys)
    intake = Intake(log, metrics)
    segment = Tracking(keys, intake, admission, settings.public_url, clock)
    posts = segment.routes()
    from_pages = {*posts, "/v1/projects/{key}/settings", "/projects/{key}/settings"}
    labels = {path: _label(path) for path in from_pages}

    counting = Counting(metrics)
    app = web.Application(middlewares=[_surround(counting, labels, from_pages)])
    app[HOUSE] = House(segment, admission, counting, tracking.paths(), clock)
    for path, handler in posts.items():
        app.router.add_post(path, handler)
    for path in sorted(from_pages - posts.keys()):
        app.router.add_get(path, segment.settings)
    for path in sorted(from_pages):
        app.router.add_options(path, cors.preflight)
    app.router.add_post(cloudevents.PATH, CloudEvents(keys, intake, admission, clock).receive)
    app.router.add_post(journeys.PATH, JourneyEntries(keys, intake, admission).receive)
    app.router.add_post(webhooks.PATH, Webhooks(settings.webhooks, intake, admission, clock).receive)
    app.add_routes(operations.routes(metrics, ready))
    app.add_routes([openapi.route()])
    return app


def _surround(
    counting: Counting, labels: dict[str, str], from_pages: set[str]
) -> Callable[..., Awaitable[web.StreamResponse]]:
    @web.middleware
    async def surround(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.perf_counter()
        resource = request.match_info.route.resource
        path = "none" if resource is None else resource.canonical
        route = labels.get(path, path)
        if tracing.is_recorded():
            with tracing.span(f"{request.method} {route}", request.headers, tracing.SERVER) as traceparent:
                request[TRACEPARENT] = traceparent
                response = await _answer(request, handler)
        else:
            request[TRACEPARENT] = tracing.continued(request.headers.get(tracing.HEADER))
            response = await _answer(request, handler)
        if path in from_pages:
            response.headers.update(cors.ORIGIN)
        counting.count(route, response.status, time.perf_counter() - began)
        return response

    return surround


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except HangUp as why:
        return await _hang_up(request, answers.failure(why.status, why.reason, why.detail).response())
    except web.HTTPException as error:
        return _as_json(error)
    except Exception as error:  # The edge: whatever it is, the sender gets an answer and tries again.
        return answers.explain(error, request.method, request[TRACEPARENT]).response()


async def _hang_up(request: web.Request, response: web.Response) -> web.Response:
    """Answer and close the connection: aiohttp would go on to read, and unpack, what is left of the body."""
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    request.protocol.force_close()
    return response


def _as_json(error: web.HTTPException) -> web.StreamResponse:
    """An error of aiohttp's own, such as 404 or 405, in our form; what a handler has written itself stays."""
    if error.status < 400 or error.text != f"{error.status}: {error.reason}":
        return web.Response(status=error.status, reason=error.reason, headers=error.headers, body=error.body)
    response = answers.failure(error.status, "http", f"{error.reason}".lower()).response()
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def _label(path: str) -> str:
    """One name for all the paths of a call."""
    name = path.removeprefix("/v1").strip("/")
    for kind, names in tracking.PATHS.items():
        if name in names:
            return f"/v1/{kind}"
    return f"/v1/{name}"
