"""How a process takes a port and answers HTTP on it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from aiohttp import web

from agents.ingress.doorway import HOUSE, Doorways

ANSWERS_WITHIN_SECONDS = 5.0  # at the end, for requests under way
WAITING_CONNECTIONS = 1024  # not yet accepted; what Linux allows by default is 4096


def take_port(host: str, number: int) -> socket.socket:
    """Take a port, before anything else: a second process on the same port must not get further. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    port = socket.socket(family, socket.SOCK_STREAM)
    try:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind((host, number))
    except OSError as error:
        port.close()
        raise OSError(error.errno, error.strerror, f"{host}:{number}") from None
    return port


def url_of(port: socket.socket) -> str:
    """Return where the port is reached from this machine."""
    host, number = port.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - recognised, not bound
    return f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}"


@contextlib.asynccontextmanager
async def answering(app: web.Application, port: socket.socket) -> AsyncIterator[None]:
    """Answer on the port as long as the context lasts. At the end requests under way are answered, new ones refused."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=ANSWERS_WITHIN_SECONDS)
    await runner.setup()
    assert runner.server is not None
    doorways = Doorways(app[HOUSE], runner.server)
    try:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(doorways.open, sock=port, backlog=WAITING_CONNECTIONS)
        try:
            yield
        finally:
            server.close()
            await doorways.close(ANSWERS_WITHIN_SECONDS)
    finally:
        await runner.cleanup()
