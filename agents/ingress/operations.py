"""What operators and their machines ask of a process: is it alive, may it get work, what does it count.

`/healthz` says that the process runs: restart it when it does not answer. `/readyz` says whether it may be sent work,
and what it waits for if not. `/metrics` is for Prometheus, `/openapi.json` describes the HTTP API.
"""

from collections.abc import Callable

from aiohttp import web

from agents.ingress import answers
from engine.runtime.metrics import Metrics


def routes(metrics: Metrics, ready: Callable[[], list[str]]) -> list[web.RouteDef]:
    """`ready` returns what the process waits for, in words; an empty list if it may be sent work."""

    async def healthz(request: web.Request) -> web.Response:
        return answers.document({"alive": True})

    async def readyz(request: web.Request) -> web.Response:
        waiting_for = ready()
        return answers.document(
            {"ready": not waiting_for, "waiting_for": waiting_for}, status=503 if waiting_for else 200
        )

    async def render_metrics(request: web.Request) -> web.Response:
        body, content_type = metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    return [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", render_metrics)]
