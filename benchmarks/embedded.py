"""The embedded server end to end: HTTP to command, with a valid key, the journal on, durable before the 2xx.

The server is `equeengage serve` as anybody runs it; the load comes from another process on the same two cores. One event in
six enters a journey that asks for one message on a channel without a worker, so that no provider is measured. After the run
the log is read: the commands must be exactly those that the accepted events ask for, each once, or there are no figures.
"""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from benchmarks.figures import Figure, cpu_seconds, quantile, resident_bytes
from benchmarks.http_load import NAMES
from engine.runtime.embedded import layout
from engine.runtime.embedded.host import EmbeddedHost
from schemas.outputs import Message

KEY = "bench-key"
JOURNEY = """
from engine import Exit, Journey, Send, always, on

journey = Journey(
    name="bench", version=1, entry=on("cart_updated"), reentry=always, start="ask",
    steps={"ask": Send("bench", template="cart", then="done"), "done": Exit()},
)
"""


def measure(seconds: float, repeats: int) -> list[Figure]:
    """Return throughput in batches of 100 and one by one, latencies at half of that, CPU per event and memory."""
    rates, rates_alone, cpu, cpu_alone, memory = [], [], [], [], []
    latencies: dict[str, list[float]] = {"p50": [], "p99": [], "alone p50": [], "alone p99": []}
    commands: dict[str, list[float]] = {"p50": [], "p99": []}
    for _ in range(repeats):
        with _server() as (process, port, folder):
            batches, spent = _load(process, port, int(seconds * 300), 100, connections=8)
            rates.append(batches["accepted"] / batches["seconds"])
            cpu.append(spent * 1e6 / batches["accepted"])
            singles, spent = _load(process, port, int(seconds * 5000), 1, connections=64, seed=2)
            rates_alone.append(singles["accepted"] / singles["seconds"])
            cpu_alone.append(spent * 1e6 / singles["accepted"])
            half = rates[-1] / 2 / 100
            paced, _ = _load(process, port, int(seconds * half), 100, connections=16, per_second=half, seed=3)
            latencies["p50"].append(quantile(paced["latencies"], 0.5) * 1000)
            latencies["p99"].append(quantile(paced["latencies"], 0.99) * 1000)
            half = rates_alone[-1] / 2
            alone, _ = _load(process, port, int(seconds * half), 1, connections=64, per_second=half, seed=4)
            latencies["alone p50"].append(quantile(alone["latencies"], 0.5) * 1000)
            latencies["alone p99"].append(quantile(alone["latencies"], 0.99) * 1000)
            memory.append(resident_bytes(process.pid) / 1e6)
            accepted = sum(load["accepted"] for load in (batches, singles, paced, alone))
            _stop(process)
            waits = _verified_waits(folder, accepted, len(paced["latencies"]) * 100 + len(alone["latencies"]))
            commands["p50"].append(quantile(waits, 0.5))
            commands["p99"].append(quantile(waits, 0.99))
    return [
        Figure("events a second in batches of 100", "ev/s", rates, 25_000, lower=False),
        Figure("single-event requests a second", "req/s", rates_alone, 5_000, lower=False),
        Figure("CPU of the server per event, in batches of 100", "us", cpu),
        Figure("CPU of the server per single-event request", "us", cpu_alone),
        Figure("answer at half load, batches of 100, p50", "ms", latencies["p50"]),
        Figure("answer at half load, batches of 100, p99", "ms", latencies["p99"], 50),
        Figure("answer at half load, single events, p50", "ms", latencies["alone p50"]),
        Figure("answer at half load, single events, p99", "ms", latencies["alone p99"], 50),
        Figure("event to command at half load, p50", "ms", commands["p50"]),
        Figure("event to command at half load, p99", "ms", commands["p99"], 50),
        Figure("resident memory of the server", "MB", memory, 250),
    ]


@contextmanager
def _server() -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    with TemporaryDirectory(prefix="equeengage-bench-") as folder:
        journeys = Path(folder, "journeys")
        (journeys / "templates").mkdir(parents=True)
        (journeys / "bench.py").write_text(JOURNEY)
        (journeys / "templates" / "cart.html").write_text("<p>{{ event.items }}</p>")
        data = Path(folder, "data")
        port = _free_port()
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("equeengage")), "serve", "--data", str(data), "--port", str(port),
             "--journeys", str(journeys)],
            env={"EQUEENGAGE_WRITE_KEYS": f"bench:{KEY}", "PATH": "/usr/bin:/bin"},
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _wait_until_ready(process, port)
            yield process, port, data
        finally:
            if process.poll() is None:
                _stop(process)


def _free_port() -> int:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        number: int = port.getsockname()[1]
        return number


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise SystemExit("the server did not start")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not become ready within 20 s")


def _load(
    process: subprocess.Popen[bytes],
    port: int,
    requests: int,
    batch: int,
    connections: int,
    per_second: float = 0,
    seed: int = 1,
) -> tuple[dict[str, Any], float]:
    """Run the load in a process of its own; return what it says and the CPU seconds the server spent meanwhile."""
    before = cpu_seconds(process.pid)
    load = subprocess.run(
        [sys.executable, "-m", "benchmarks.http_load", "--port", str(port), "--key", KEY, "--requests", str(requests),
         "--batch", str(batch), "--connections", str(connections), "--per-second", str(per_second),
         "--seed", str(seed)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(load.stdout)
    if result["refused"]:
        print(f"{result['refused']} events were refused", file=sys.stderr)
    return result, cpu_seconds(process.pid) - before


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)


def _verified_waits(data: Path, accepted: int, last_events: int) -> list[float]:
    """Return how long the commands of the last events waited, in ms, having checked that all are there, each once."""
    asked_by: Counter[str] = Counter()
    expected = 0
    waits: list[tuple[int, float]] = []
    host = EmbeddedHost.open(data)
    try:
        events = 0
        for number in range(host.partitions("events")):
            for records in layout.read_groups(host._store, layout.partition_prefix("events", number), 0):
                for record in records:
                    if record.key is not None and b'"event"' in (record.value or b"")[:20]:
                        events += 1
                        expected += b'"name":"cart_updated"' in (record.value or b"")
            for records in layout.read_groups(host._store, layout.partition_prefix("messages.bench", number), 0):
                for record in records:
                    message = msgspec.json.decode(record.value or b"", type=Message)
                    asked_by[message.id] += 1
                    waits.append((message.requested_at, record.timestamp - message.requested_at))
    finally:
        host._store.close()
    if events != accepted or len(asked_by) != expected or max(asked_by.values()) != 1:
        raise SystemExit(
            f"wrong: {accepted} events accepted, {events} in the log; {expected} commands expected, {len(asked_by)} found,"
            f" {sum(asked_by.values()) - len(asked_by)} doubled"
        )
    share = NAMES.count("cart_updated") / len(NAMES)
    return [wait for _, wait in sorted(waits)[-int(last_events * share) :]]
