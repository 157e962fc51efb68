"""How other commands on this machine reach the log of a running server: its own small HTTP door.

RocksDB lets one process in, so while `serve` owns the data folder, `publish`, `send` and `resume` append through it. The
door listens on 127.0.0.1 only, on a port of the system's choosing; address and token are in `admin.json` in the data
folder, which only its owner can read. It takes records, never code: journeys are loaded by the command, not the server.
"""

import hmac
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web

from agents.keys import write_private
from engine.runtime.host import Definitions, Log, Overloaded, Unavailable
from schemas.definitions import Definition
from schemas.records import NewRecord, Record

FILE = "admin.json"
LARGEST = 64 << 20  # bytes: all journeys and templates of a large company at once
PATIENCE = aiohttp.ClientTimeout(total=60, connect=2)

_records = msgspec.json.Decoder(list[NewRecord])
_definitions = msgspec.json.Decoder(list[Definition])


class _Address(msgspec.Struct):
    url: str
    token: str
    pid: int


@asynccontextmanager
async def open_door(data: Path, log: Log, definitions: Definitions) -> AsyncIterator[str]:
    """Let other processes of the same user append to the log as long as the context lasts; yields the address."""
    token = secrets.token_urlsafe(24)
    runner = web.AppRunner(_make_app(log, definitions, token), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        address = _Address(f"http://{host}:{port}", token, os.getpid())
        write_private(data / FILE, msgspec.json.encode(address).decode())
        try:
            yield address.url
        finally:
            (data / FILE).unlink(missing_ok=True)
    finally:
        await runner.cleanup()


def _make_app(log: Log, definitions: Definitions, token: str) -> web.Application:
    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {token}".encode()):
            raise web.HTTPUnauthorized(text="the token is in admin.json in the data folder\n")
        try:
            return await handler(request)
        except Overloaded as error:
            raise web.HTTPTooManyRequests(text=str(error)) from None
        except Unavailable as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from None

    async def append(request: web.Request) -> web.Response:
        try:
            records = _records.decode(await request.read())
        except msgspec.DecodeError as error:
            raise web.HTTPBadRequest(text=f"these are not records: {error}") from None
        if request.query.get("atomically"):
            await log.append_atomically(records)
        else:
            await log.append(records)
        return web.Response(status=204)

    async def partitions(request: web.Request) -> web.Response:
        return web.json_response(log.partitions(request.query.get("topic", "events")))

    async def list_definitions(request: web.Request) -> web.Response:
        body = msgspec.json.encode(list(definitions.all()))
        return web.Response(body=body, content_type="application/json")

    app = web.Application(middlewares=[guard], client_max_size=LARGEST)
    app.add_routes(
        [
            web.post("/append", append),
            web.get("/partitions", partitions),
            web.get("/definitions", list_definitions),
        ]
    )
    return app


class ServersLog:
    """The log of a running server, through its door. Definitions are those it had when the connection was made."""

    def __init__(self, session: aiohttp.ClientSession, partitions: int, known: Sequence[Definition]) -> None:
        self._session = session
        self._partitions = partitions
        self._known = {definition.key: definition for definition in known}

    async def append(self, records: Sequence[NewRecord]) -> None:
        await self._post("/append", records)

    async def append_atomically(self, records: Sequence[NewRecord]) -> None:
        await self._post("/append?atomically=1", records)

    def partitions(self, topic: str) -> int:
        return self._partitions

    def read(self, topic: str, key: bytes) -> Iterable[Record]:
        raise NotImplementedError("reading needs no server: the data folder can be opened read-only beside it")

    def find(self, key: str) -> Definition | None:
        return self._known.get(key)

    async def wait(self, key: str) -> Definition:
        found = self.find(key)
        if found is None:
            raise Unavailable(f"the server has no definition {key}")
        return found

    def all(self) -> Iterable[Definition]:
        return self._known.values()

    async def _post(self, path: str, records: Sequence[NewRecord]) -> None:
        try:
            async with self._session.post(path, data=msgspec.json.encode(records)) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"the server did not answer ({error or type(error).__name__}); is it stopping?") from None
        if response.status == 429:
            raise Overloaded
        if response.status != 204:
            raise Unavailable(f"the server answered {response.status}: {text.strip()}")


@asynccontextmanager
async def servers_log(data: Path) -> AsyncIterator[ServersLog | None]:
    """Yield the log of the server that owns the data folder, or None if no server runs there."""
    try:
        address = msgspec.json.decode((data / FILE).read_bytes(), type=_Address)
    except (FileNotFoundError, msgspec.DecodeError):
        yield None
        return
    headers = {"Authorization": f"Bearer {address.token}"}
    async with aiohttp.ClientSession(address.url, headers=headers, timeout=PATIENCE) as session:
        try:
            partitions, known = await _greet(session)
        except aiohttp.ClientConnectionError:
            yield None  # left behind by a server that was killed
            return
        yield ServersLog(session, partitions, known)


async def _greet(session: aiohttp.ClientSession) -> tuple[int, list[Definition]]:
    async with session.get("/partitions") as response:
        if response.status != 200:  # another process has the port of a server that was killed
            raise aiohttp.ClientConnectionError
        partitions = int(await response.text())
    async with session.get("/definitions") as response:
        return partitions, _definitions.decode(await response.read())
