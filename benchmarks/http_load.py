"""Load for the HTTP ingress from a process of its own: `python -m benchmarks.http_load --help`.

The bodies are made before the clock starts, and HTTP is spoken by hand on bare protocols, so that the client costs the two
shared cores as little as possible. Closed loop (as fast as answers come) for throughput; open loop (requests are due at
fixed times, and their latency counts from then, answered or not) for latency, so that a stall isn't hidden by the client
waiting for it.
"""

import argparse
import asyncio
import json
import random
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import uvloop

NAMES = ("page_viewed", "page_viewed", "product_viewed", "product_viewed", "searched", "cart_updated")


@dataclass
class Load:
    """What was sent and how it was answered. `latencies` and `cpu` in seconds."""

    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    cpu: float = 0.0  # of the load itself
    latencies: list[float] = field(default_factory=list)


def make_requests(count: int, batch: int, key: str, users: int, seed: int) -> list[bytes]:
    """Return the bytes of `count` requests with `batch` events each; one event in six enters the benchmark's journey."""
    dice = random.Random(seed)
    authorization = b64encode(f"{key}:".encode()).decode()
    requests = []
    for _ in range(count):
        events = [_event(dice, users) for _ in range(batch)]
        body = json.dumps({"batch": events} if batch > 1 else events[0], separators=(",", ":")).encode()
        path = "/v1/batch" if batch > 1 else "/v1/track"
        head = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic {authorization}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


def _event(dice: random.Random, users: int) -> dict[str, object]:
    number = dice.randrange(1 << 48)
    return {
        "type": "track",
        "messageId": f"bench-{number:024x}",
        "userId": f"user-{dice.randrange(users):07d}",
        "event": dice.choice(NAMES),
        "properties": {
            "cart_id": f"cart-{number:x}",
            "items": 1 + number % 5,
            "total": number % 20_000 / 100,
            "url": f"https://shop.example.com/products/{number % 5000}",
        },
    }


class _Connection(asyncio.Protocol):
    """One connection, with one request on it at a time. `answered(connection, ok)` is called for each."""

    def __init__(self, answered: "Callable[[_Connection, bool], None]") -> None:
        self._answered = answered
        self._transport: asyncio.Transport
        self._received = b""
        self._usual = 0  # the size of a whole answer 200; they are all alike
        self.due = 0.0  # of the request under way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._received or len(data) != self._usual:
            data = self._received = self._received + data
            head, end, body = data.partition(b"\r\n\r\n")
            if not end or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
                return
            self._received = b""
        ok = data.startswith(b"HTTP/1.1 200")
        if ok:
            self._usual = len(data)
        self._answered(self, ok)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.due:
            raise SystemExit("the server has closed a connection with a request under way")

    def close(self) -> None:
        self.due = 0.0
        self._transport.close()


async def closed(port: int, requests: list[bytes], connections: int, batch: int) -> Load:
    """Send each request as soon as a connection is free."""
    load = Load()
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    queue = iter(requests)
    clock = time.perf_counter

    def answered(connection: _Connection, ok: bool) -> None:
        now = clock()
        load.latencies.append(now - connection.due)
        if ok:
            load.accepted += batch
        else:
            load.refused += batch
        request = next(queue, None)
        if request is not None:
            connection.send(request, now)
        elif len(load.latencies) == len(requests):
            done.set_result(None)

    opened = await _open(port, min(connections, len(requests)), answered)
    began, spent = clock(), time.process_time()
    for connection in opened:
        connection.send(next(queue), clock())
    await done
    load.seconds, load.cpu = clock() - began, time.process_time() - spent
    for connection in opened:
        connection.close()
    return load


async def paced(port: int, requests: list[bytes], connections: int, batch: int, per_second: float) -> Load:
    """Send request n at n / per_second, whatever became of those before; it waits where no connection is free."""
    load = Load()
    done = asyncio.get_running_loop().create_future()
    waiting: deque[tuple[float, bytes]] = deque()
    free: list[_Connection] = []

    def answered(connection: _Connection, ok: bool) -> None:
        load.latencies.append(time.perf_counter() - connection.due)
        if ok:
            load.accepted += batch
        else:
            load.refused += batch
        if waiting:
            due, request = waiting.popleft()
            connection.send(request, due)
        else:
            free.append(connection)
        if len(load.latencies) == len(requests):
            done.set_result(None)

    opened = await _open(port, connections, answered)
    free += opened
    began, spent = time.perf_counter(), time.process_time()
    for number, request in enumerate(requests):
        due = began + number / per_second
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        if free:
            free.pop().send(request, due)
        else:
            waiting.append((due, request))
    await done
    load.seconds, load.cpu = time.perf_counter() - began, time.process_time() - spent
    for connection in opened:
        connection.close()
    return load


async def _open(port: int, count: int, answered: Callable[[_Connection, bool], None]) -> list[_Connection]:
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: _Connection(answered), "127.0.0.1", port) for _ in range(count)]
    return [connection for _, connection in made]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True, help="the write key")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=100, help="events in a request")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument(
        "--per-second", type=float, default=0, help="requests per second; 0: as fast as they are answered"
    )
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    requests = make_requests(arguments.requests, arguments.batch, arguments.key, arguments.users, arguments.seed)
    if arguments.per_second:
        load = uvloop.run(paced(arguments.port, requests, arguments.connections, arguments.batch, arguments.per_second))
    else:
        load = uvloop.run(closed(arguments.port, requests, arguments.connections, arguments.batch))
    with open(
        1, "w", closefd=False
    ) as whole:  # not `print`: with PYTHONUNBUFFERED it may write a part, and say nothing
        json.dump(vars(load), whole)


if __name__ == "__main__":
    main()
