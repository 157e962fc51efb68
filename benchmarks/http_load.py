"""Load for the HTTP ingress from a process of its own: `python -m benchmarks.http_load --help`.

The bodies are made before the clock starts, and HTTP is spoken by hand, so that the client costs the two shared cores as
little as possible. Closed loop (as fast as answers come) for throughput; open loop (requests are due at fixed times, and
their latency counts from then, answered or not) for latency, so that a stall isn't hidden by the client waiting for it.
"""

import argparse
import asyncio
import json
import random
import time
from base64 import b64encode
from dataclasses import dataclass, field

NAMES = ("page_viewed", "page_viewed", "product_viewed", "product_viewed", "searched", "cart_updated")


@dataclass
class Load:
    """What was sent and how it was answered. `latencies` in seconds."""

    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
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


async def closed(port: int, requests: list[bytes], connections: int, batch: int) -> Load:
    """Send each request as soon as a connection is free."""
    load = Load()
    queue = iter(requests)
    began = time.perf_counter()

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in queue:
            sent = time.perf_counter()
            await _ask(reader, writer, request, load, batch)
            load.latencies.append(time.perf_counter() - sent)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(work() for _ in range(connections)))
    load.seconds = time.perf_counter() - began
    return load


async def paced(port: int, requests: list[bytes], connections: int, batch: int, per_second: float) -> Load:
    """Send request n at n / per_second, whatever became of those before."""
    load = Load()
    queue: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
    began = time.perf_counter()

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (item := await queue.get()) is not None:
            await _ask(reader, writer, item[1], load, batch)
            load.latencies.append(time.perf_counter() - item[0])
        writer.close()
        await writer.wait_closed()

    workers = [asyncio.create_task(work()) for _ in range(connections)]
    for number, request in enumerate(requests):
        due = began + number / per_second
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        queue.put_nowait((due, request))
    for _ in workers:
        queue.put_nowait(None)
    await asyncio.gather(*workers)
    load.seconds = time.perf_counter() - began
    return load


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, load: Load, batch: int
) -> None:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    if length:
        await reader.readexactly(length)
    if head.startswith(b"HTTP/1.1 200"):
        load.accepted += batch
    else:
        load.refused += batch


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
        load = asyncio.run(
            paced(arguments.port, requests, arguments.connections, arguments.batch, arguments.per_second)
        )
    else:
        load = asyncio.run(closed(arguments.port, requests, arguments.connections, arguments.batch))
    print(json.dumps(vars(load)))


if __name__ == "__main__":
    main()
