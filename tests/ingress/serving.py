"""The application as the servers serve it, for aiohttp's test client."""

import asyncio
import contextlib
from typing import Any

from aiohttp.test_utils import TestServer
from aiohttp.web import Application
from yarl import URL

from agents.listening import answering, take_port, url_of


class Doorstep(TestServer):
    """A test server whose connections begin at a doorway. `TestServer` itself leaves all to the framework."""

    __test__ = False

    def __init__(self, app: Application) -> None:
        super().__init__(app)
        self._stack = contextlib.AsyncExitStack()

    async def start_server(self, loop: asyncio.AbstractEventLoop | None = None, **kwargs: Any) -> None:
        if self._root is not None:
            return
        port = self._stack.enter_context(contextlib.closing(take_port("127.0.0.1", 0)))
        await self._stack.enter_async_context(answering(self.app, port))
        self._root = URL(url_of(port))
        self.port = self._root.port

    async def close(self) -> None:
        await self._stack.aclose()
