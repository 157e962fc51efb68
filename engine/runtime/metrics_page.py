"""How a process without a web server of its own answers `/metrics` and `/healthz`: workers and channels.

A thread answers, not the event loop: a loop that hangs is what one wants to read about. `/healthz` asks the loop for a
sign of life and says 503 if none comes, so that whoever supervises the process can end it; the metrics come anyway.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from engine.runtime.metrics import Metrics

PATIENCE_SECONDS = 5.0  # Half of the shortest sensible session timeout: after that, partitions are about to be lost.


@contextmanager
def serve_metrics(
    metrics: Metrics, host: str, port: int, patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[tuple[str, int]]:
    """Answer as long as the context lasts; yields the address. Call it in the event loop that `/healthz` is about.

    Port 0 takes any free one. Raises OSError if the port is taken.
    """
    server = _Server((host, port), metrics, asyncio.get_running_loop(), patience_seconds)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
    thread.start()
    try:
        yield host, server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # The loop that closes us is the one an answer may be waiting for.

    def __init__(
        self, address: tuple[str, int], metrics: Metrics, loop: asyncio.AbstractEventLoop, patience_seconds: float
    ) -> None:
        super().__init__(address, _Answer)
        self.metrics = metrics
        self.loop = loop
        self.patience_seconds = patience_seconds

    def is_loop_alive(self) -> bool:
        sign = threading.Event()
        try:
            self.loop.call_soon_threadsafe(sign.set)
        except RuntimeError:  # The loop was closed.
            return False
        return sign.wait(self.patience_seconds)


class _Answer(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10  # seconds for a client to finish its request: a thread waits for it
    server_version = "equeengage"
    sys_version = ""

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(200, *self.server.metrics.render())
            case "/healthz" if self.server.is_loop_alive():
                self._answer(200, b"ok\n")
            case "/healthz":
                self._answer(503, b"the event loop does not answer\n")
            case _:
                self._answer(404, b"there are /metrics and /healthz\n")

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape every few seconds is no news."""
