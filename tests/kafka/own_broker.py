"""A broker that a test may kill, stop and start again, on a port and a folder of its own."""

import contextlib
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.kafka.broker import STARTER


class OwnBroker:
    """A broker of the test's own, which may be killed."""

    def __init__(self, directory: Path, heap: str = "256m") -> None:
        self._port = free_port()
        self._directory = directory
        self._heap = heap
        self.log = directory / "broker.log"
        self.bootstrap = f"127.0.0.1:{self._port}"

    def start(self) -> None:
        options = ["--port", str(self._port), "--data", str(self._directory / "data"), "--heap", self._heap]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(STARTER), *options, "--end-with-parent"], stdout=log, stderr=log
            )

    def kill(self) -> None:
        """As the kernel does: nothing is flushed, nobody is told."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """As an operator does."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


def free_port() -> int:
    """A port nobody listens on, nor on the one after it, which is the controller's."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port
