"""How workers and channels are asked for their metrics, also when their event loop hangs."""

import http.client
import threading
import time

import aiohttp
import pytest

from engine.runtime.metrics import Metrics
from engine.runtime.metrics_page import serve_metrics


async def ask(address: tuple[str, int], path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://{address[0]}:{address[1]}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_a_worker_answers_for_its_metrics_and_its_health() -> None:
    metrics = Metrics()
    metrics.commits.labels("events", "3").inc()
    with serve_metrics(metrics, "127.0.0.1", 0) as address:
        status, body = await ask(address, "/metrics")
        assert status == 200
        assert 'equeengage_commits_total{partition="3",topic="events"} 1.0' in body
        assert await ask(address, "/healthz") == (200, "ok\n")
        assert (await ask(address, "/"))[0] == 404


async def test_a_loop_that_hangs_is_said_to_be_ill_and_still_tells_its_metrics() -> None:
    answers: list[tuple[int, str]] = []

    def look(address: tuple[str, int]) -> None:
        for path in ("/healthz", "/metrics"):
            client = http.client.HTTPConnection(*address, timeout=10)
            client.request("GET", path)
            answer = client.getresponse()
            answers.append((answer.status, answer.read().decode()))
            client.close()

    with serve_metrics(Metrics(), "127.0.0.1", 0, patience_seconds=0.05) as address:
        outside = threading.Thread(target=look, args=(address,))
        outside.start()
        deadline = time.monotonic() + 10
        while outside.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)  # noqa: ASYNC251 - this is the hanging loop
        outside.join()
    assert answers[0] == (503, "the event loop does not answer\n")
    assert answers[1][0] == 200
    assert "equeengage_build_info" in answers[1][1]


async def test_the_port_is_free_again_afterwards() -> None:
    with serve_metrics(Metrics(), "127.0.0.1", 0) as (host, port):
        pass
    with serve_metrics(Metrics(), host, port) as address:
        assert (await ask(address, "/healthz"))[0] == 200


async def test_a_taken_port_is_an_error_at_once() -> None:
    with (
        serve_metrics(Metrics(), "127.0.0.1", 0) as (host, port),
        pytest.raises(OSError, match="in use"),
        serve_metrics(Metrics(), host, port),
    ):
        pass
