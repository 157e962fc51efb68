"""How many waiters share one fsync.

A sync takes a good part of a millisecond and costs the same for one record or ten thousand. So one runs at a time, in a
thread; who wants durability while it runs waits for the next one, because only a sync that began after a write covers
it. Under load the group grows by itself, and nobody waits for more than two syncs.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from engine.runtime.host import PartitionStopped


class GroupSync:
    """Syncs a store for whoever waits. `write_pending` brings what is still in memory to the store, before each sync.

    A sync that fails is the last: `on_failure` is told, and every waiter, now and later, gets the error. There is no
    second try, because after a failed fsync the kernel may have dropped the pages and a retry would "succeed".
    """

    def __init__(
        self, write_pending: Callable[[], None], sync: Callable[[], None], on_failure: Callable[[Exception], None]
    ) -> None:
        self._write_pending, self._sync, self._on_failure = write_pending, sync, on_failure
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fsync")
        self._waiting: list[asyncio.Future[None]] = []
        self._covered: list[asyncio.Future[None]] = []  # by the sync that runs
        self._running: asyncio.Future[None] | None = None
        self._begins = False
        self._failure: Exception | None = None

    async def durable(self) -> None:
        """Return when all that was appended or written before the call is on the disk."""
        if self._failure is not None:
            raise self._failure
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiting.append(waiter)
        if self._running is None and not self._begins:
            self._begins = True
            loop.call_soon(self._begin)  # not at once: who else appends in this tick of the loop comes along
        await waiter

    async def close(self) -> None:
        """Sync once more, unless syncing has failed, and let the thread go. Who asks later gets an error."""
        try:
            if self._failure is None:
                await self.durable()
        finally:
            self._thread.shutdown()
            self._failure = self._failure or PartitionStopped("the log is closed")

    def fail(self, error: Exception) -> None:
        """Never confirm anything again."""
        if self._failure is None:
            self._failure = error
            waiting = self._covered + self._waiting
            self._covered, self._waiting = [], []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_exception(error)
            self._on_failure(error)

    def _begin(self) -> None:
        self._begins = False
        if self._failure is not None:
            return
        try:
            self._write_pending()
        except Exception as error:
            self.fail(error)
            return
        self._covered, self._waiting = self._waiting, []
        self._running = asyncio.get_running_loop().run_in_executor(self._thread, self._sync)
        self._running.add_done_callback(self._end)

    def _end(self, done: asyncio.Future[None]) -> None:
        self._running = None
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if error is not None:
            self.fail(error if isinstance(error, Exception) else RuntimeError("the sync was cancelled"))
        covered, self._covered = self._covered, []
        for waiter in covered:
            if not waiter.done():
                waiter.set_result(None)
        if self._waiting:
            self._begin()
