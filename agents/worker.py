"""The processes that own partitions on Kafka: of users (`worker`) and of a channel's messages (`channel`).

One process uses one core. `run_worker(processes=N)` keeps N of them running: each is a process of its own with a static id
in the group, kept beside its stores, so that after a restart it gets its partitions back without a rebalance. One that
dies is started again, later each time; the others go on. SIGINT and SIGTERM stop all of them cleanly: loops end where they
wait, commits end, nothing is handed back half done.
"""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType

import structlog
import uvloop

from agents.collecting import spare_what_is_there
from engine.runtime import logs
from engine.runtime.host import PartitionHost
from engine.runtime.kafka.partitions import Work
from engine.runtime.kafka.process import Tables, owning_partitions
from engine.runtime.metrics import Metrics
from engine.runtime.metrics_page import serve_metrics
from engine.runtime.settings import Settings

Address = tuple[str, int]  # where /metrics and /healthz are answered; port 0: any free one
Loop = Callable[[PartitionHost], Awaitable[None]]
OpenLoop = Callable[[Tables, Metrics], AbstractAsyncContextManager[Loop]]
# Works as long as the context lasts; what it yields fails when the work cannot go on.
Working = Callable[[Metrics], AbstractAsyncContextManager["asyncio.Future[None]"]]

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
RUNS_WELL_AFTER_SECONDS = 60.0  # one that lived that long is started again at once
STOPS_WITHIN_SECONDS = 25.0  # supervisors kill after 30 (Kubernetes) or 90 (systemd)
LOOKS_EVERY_SECONDS = 0.2
ORPHANED_AFTER_SECONDS = 1.0

_log = structlog.get_logger(__name__)


def run_worker(settings: Settings, processes: int = 1, metrics_at: Address | None = None) -> None:
    """Own partitions of users until SIGINT or SIGTERM.

    With several processes, the one numbered i answers for its metrics at the given port + i. Raises what keeps a single
    process from starting or going on; several are started again instead.
    """
    if processes == 1:
        _run(_users(settings, 0), metrics_at)
    else:
        _supervise(settings, processes, metrics_at)


def run_channel(settings: Settings, channel: str, open_loop: OpenLoop, metrics_at: Address | None = None) -> None:
    """Own partitions of `messages.<channel>` until SIGINT or SIGTERM, and run the loop on each.

    `open_loop` opens what the channel needs for as long. Raises what keeps the process from starting or going on.
    """

    @asynccontextmanager
    async def working(metrics: Metrics) -> AsyncIterator["asyncio.Future[None]"]:
        @asynccontextmanager
        async def open_work(tables: Tables) -> AsyncIterator[Work]:
            async with open_loop(tables, metrics) as loop:
                yield Work(f"messages.{channel}", channel, loop)

        metrics.watch_disk(settings.data)
        directory = settings.data / f"channel-{channel}"
        async with owning_partitions(settings.kafka, open_work, metrics, directory, reads_suppressions=True) as owned:
            yield owned.failed

    _run(working, metrics_at)


def _users(settings: Settings, number: int) -> Working:
    """The Faust app of one worker process, as long as the context lasts."""

    @asynccontextmanager
    async def working(metrics: Metrics) -> AsyncIterator["asyncio.Future[None]"]:
        from agents.app import make_app  # Faust takes half a second to import, and channels do without

        metrics.watch_disk(settings.data)
        app = make_app(settings, metrics, number)
        try:
            await app.start()
            yield app.owner.failed
        finally:
            await app.stop()

    return working


def _run(working: Working, metrics_at: Address | None) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work_until_stopped(working, metrics_at))


async def _work_until_stopped(working: Working, metrics_at: Address | None) -> None:
    metrics = Metrics()
    loop = asyncio.get_running_loop()
    stopped = loop.create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, stopped)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see _ctrl_c_waits
    watching = asyncio.create_task(_stop_if_orphaned(stopped))
    try:
        with serve_metrics(metrics, *metrics_at) if metrics_at is not None else contextlib.nullcontext():
            async with asyncio.timeout(None) as stopping, working(metrics) as failed:
                spare_what_is_there()
                await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
                stopping.reschedule(loop.time() + STOPS_WITHIN_SECONDS)
                if failed.done():
                    failed.result()
    finally:
        watching.cancel()


def _stop(stopped: "asyncio.Future[None]") -> None:
    if not stopped.done():
        stopped.set_result(None)


async def _stop_if_orphaned(stopped: "asyncio.Future[None]") -> None:
    """A supervisor that was killed cannot stop us: without it we would work on unseen, beside its successor's."""
    parent = multiprocessing.parent_process()
    while parent is not None and not stopped.done():
        await asyncio.sleep(ORPHANED_AFTER_SECONDS)
        if os.getppid() != parent.pid:
            _log.warning("the supervisor is gone; stopping")
            _stop(stopped)


class _Child:
    """One of the processes of a supervisor, over all its starts."""

    def __init__(self, settings: Settings, number: int, metrics_at: Address | None) -> None:
        self._arguments = (settings, number, metrics_at and (metrics_at[0], metrics_at[1] and metrics_at[1] + number))
        self._number = number
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._start_at = 0.0
        self._started_at = 0.0
        self.process: BaseProcess | None = None

    def look_after(self) -> None:
        """Start it if it does not run and its pause is over."""
        now = time.monotonic()
        if self.process is not None and self.process.exitcode is not None:
            if now - self._started_at > RUNS_WELL_AFTER_SECONDS:
                self._pause_seconds = FIRST_PAUSE_SECONDS
            _log.error(
                "a worker process ended",
                number=self._number, exit_code=self.process.exitcode, again_in_seconds=self._pause_seconds,
            )  # fmt: skip
            self.process.close()
            self.process = None
            self._start_at = now + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
        if self.process is None and now >= self._start_at:
            # spawn: a forked child would share the parent's threads' locks, and RocksDB's and uvloop's threads
            self.process = multiprocessing.get_context("spawn").Process(target=_run_child, args=self._arguments)
            with _ctrl_c_waits():
                self.process.start()
            self._started_at = now

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def end(self, within_seconds: float) -> None:
        """Wait until it has ended; kill it after the time. Nothing is lost: it is as after a crash."""
        if self.process is not None:
            self.process.join(max(0.0, within_seconds))
            if self.process.exitcode is None:
                _log.error("a worker process did not stop in time and is killed", number=self._number)
                self.process.kill()
                self.process.join()


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Let processes that are started meanwhile hear of a Ctrl-C only once they are ready to: while they still import, it
    would end each of them with a traceback. Nothing is missed: it stays pending, here and there."""
    resource_tracker.ensure_running()  # when it starts, it lets SIGINT through again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _supervise(settings: Settings, processes: int, metrics_at: Address | None) -> None:
    """Keep the processes running until SIGINT or SIGTERM, then stop them all."""
    is_stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_stopping
        is_stopping = True

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    children = [_Child(settings, number, metrics_at) for number in range(processes)]
    try:
        while not is_stopping:
            for child in children:
                child.look_after()
            time.sleep(LOOKS_EVERY_SECONDS)
    finally:
        for child in children:
            child.stop()
        deadline = time.monotonic() + STOPS_WITHIN_SECONDS
        for child in children:
            child.end(deadline - time.monotonic())
        for number, handler in previous.items():
            signal.signal(number, handler)


def _run_child(settings: Settings, number: int, metrics_at: Address | None) -> None:
    logs.configure(settings.log_level)
    try:
        _run(_users(settings, number), metrics_at)
    except Exception as error:
        _log.error("a worker process cannot go on", number=number, reason=str(error) or repr(error))
        raise SystemExit(1) from None
