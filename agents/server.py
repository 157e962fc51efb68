"""The embedded server: everything in one process, put together here, started and stopped in order.

    start:  take the port -> open the data folder -> publish what changed -> run the loops -> answer HTTP
    stop:   answer no more -> fold what was accepted -> let calls under way end -> everything on the disk -> let go

Whatever cannot start stops the start, with the reason. A disk that fails ends the process: nothing could be promised any
more. A partition that stands still until an operator has looked does not: the others go on, its events are kept, and
`/readyz` says what stands still and why. Stopping takes no longer than 20 seconds; what is not done by then (deliveries
that wait, events not folded) is in the log and goes on at the next start.
"""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import uvloop
from aiohttp import web

from agents import admin
from agents.channels.delivery import ChannelPartition
from agents.channels.email import EmailChannel
from agents.channels.links import Links, link_routes
from agents.channels.pacing import Pace
from agents.channels.smtp import SmtpServer
from agents.folder import Folder, read_folder
from agents.ingress.application import make_app
from agents.keys import kept_secret, with_kept_secrets
from engine.journey import Journey
from engine.runtime.embedded.host import EmbeddedHost, Loop
from engine.runtime.host import PartitionHost
from engine.runtime.metrics import Metrics
from engine.runtime.partition import UserPartition
from engine.runtime.publish import Publication, plan
from engine.runtime.settings import Settings

STOPS_WITHIN_SECONDS = 20.0  # supervisors kill after 30 (Kubernetes) or 90 (systemd)
FOLDS_WITHIN_SECONDS = 3.0
ANSWERS_WITHIN_SECONDS = 5.0

Say = Callable[[str], None]
Hurry = Callable[[Journey], Journey]


class ServerFailed(Exception):  # noqa: N818 - says what is the case
    """The server had to stop by itself. The text says why and what to do."""


@dataclass
class Server:
    """A running server."""

    settings: Settings  # with the secrets and the public URL that were settled at the start
    url: str
    host: EmbeddedHost
    metrics: Metrics
    publication: Publication | None = None
    phase: str = "it is starting"  # what it waits for; empty when it is ready

    def waits_for(self) -> list[str]:
        """Return why the server isn't ready, in words; nothing if it is."""
        reasons = [self.phase] if self.phase else []
        if self.host.log.failure is not None:
            reasons.append(str(self.host.log.failure))
        return reasons + [
            f"partition {number} of {topic} stands still: {why}" for (topic, number), why in self.host.stopped.items()
        ]

    async def until(self, stop: asyncio.Event) -> None:
        """Return when asked to stop. Raises ServerFailed if the server can't go on before that."""
        asked, failed = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self.host.failed())
        try:
            await asyncio.wait((asked, failed), return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                raise ServerFailed(f"the server stopped itself: {failed.result()}")
        finally:
            for waiting in (asked, failed):
                waiting.cancel()
            await asyncio.gather(asked, failed, return_exceptions=True)


def run(settings: Settings, say: Say, *, accept_clock: bool = False) -> None:
    """Serve until SIGINT or SIGTERM; a second one stops at once. Raises what keeps the server from starting or going on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, say, accept_clock))


async def _serve(settings: Settings, say: Say, accept_clock: bool) -> None:
    with stop_signals() as stop:
        async with running(settings, say, accept_clock=accept_clock) as server:
            say("ready; Ctrl-C stops")
            await server.until(stop)
            say("stopping: what was accepted is folded, deliveries under way end")
    say("stopped; everything is on the disk")


@contextlib.contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """Yield an event that SIGINT and SIGTERM set. The second signal interrupts."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None

    def ask() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    say: Say,
    *,
    hurry: Hurry | None = None,
    loops: Mapping[str, Loop] | None = None,
    accept_clock: bool = False,
) -> AsyncIterator[Server]:
    """Run a server as long as the context lasts.

    `hurry` changes journeys before they are published, and `loops` run on further topics: for the demo.
    """
    folder = _read_journeys(settings, say)
    stack = contextlib.AsyncExitStack()
    try:
        # What is entered first is left last.
        port = stack.enter_context(contextlib.closing(_take_port(settings)))
        settings = _settle(settings, _url(port))
        metrics = Metrics()
        metrics.watch_disk(settings.data)
        channels = make_channels(settings)
        for channel in channels:
            await channel.open()
            stack.push_async_callback(channel.close)
        host = EmbeddedHost.open(
            settings.data,
            settings.partitions,
            retention=timedelta(days=settings.retention_days),
            metrics=metrics,
            accept_clock=accept_clock,
        )
        stack.push_async_callback(host.close)
        server = Server(settings, _url(port), host, metrics)
        if folder is not None:
            server.publication = await _publish(folder, server, hurry)
            for change in server.publication.changes:
                say(f"journey   {change}")
        host.start({**_loops(server, channels), **(loops or {})})
        stack.push_async_callback(_fold_the_rest, host)
        await stack.enter_async_context(admin.open_door(settings.data, host.log, host.definitions))
        await stack.enter_async_context(_answering(server, port))
        server.phase = ""
        _introduce(server, say)
        yield server
        server.phase = "it is stopping"
    finally:
        try:
            async with asyncio.timeout(STOPS_WITHIN_SECONDS):
                await stack.aclose()
        except TimeoutError:
            raise ServerFailed(
                f"stopping took longer than {STOPS_WITHIN_SECONDS:g} s and was cut off; nothing acknowledged is lost, the"
                " next start goes on from the log"
            ) from None


def make_channels(settings: Settings) -> list[EmailChannel]:
    """Return the channels a server has. Raises ValueError where a setting is wrong."""
    links = Links(settings.public_url, settings.link_secret.get_secret_value().encode())
    return [EmailChannel(SmtpServer.parse(settings.smtp_url.get_secret_value()), settings.email_from, links)]


def _read_journeys(settings: Settings, say: Say) -> Folder | None:
    """Return the journeys to publish, or None where the default folder isn't there. Raises JourneyError."""
    if not settings.journeys.is_dir() and "journeys" not in settings.model_fields_set:
        say(f"journey   there is no folder {settings.journeys}; name yours with --journeys DIR, or publish later")
        return None
    return read_folder(settings.journeys)


def _take_port(settings: Settings) -> socket.socket:
    """Take the port before anything else: a second server on the same port must not touch the data."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    port = socket.socket(family, socket.SOCK_STREAM)
    try:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind((settings.host, settings.port))
    except OSError:
        port.close()
        raise
    return port


def _url(port: socket.socket) -> str:
    """Return where the server is reached from this machine."""
    host, number = port.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - recognised, not bound
    return f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}"


def _settle(settings: Settings, url: str) -> Settings:
    """Return the settings with what is only known now: the secrets in the data folder, and the address."""
    settings.data.mkdir(parents=True, exist_ok=True)
    settings = with_kept_secrets(settings)
    return settings.model_copy(update={"public_url": settings.public_url or url})


async def _publish(folder: Folder, server: Server, hurry: Hurry | None) -> Publication:
    """Publish what changed in the folder, before any loop runs. Raises JourneyError."""
    journeys = [hurry(journey) for journey in folder.journeys] if hurry else folder.journeys
    host = server.host
    publication = plan(server.settings.write_keys, journeys, folder.templates, host.definitions)
    if publication.activations:
        await host.log.append_atomically(publication.records(host.partitions("events")))
    return publication


def _loops(server: Server, channels: Sequence[EmailChannel]) -> dict[str, Loop]:
    """Return which loop runs on which topic."""
    host, metrics, settings = server.host, server.metrics, server.settings

    async def users(partition: PartitionHost) -> None:
        await UserPartition(partition, host.definitions, metrics).run()

    def deliver(channel: EmailChannel) -> Loop:
        pace = Pace(channel.concurrency, settings.email_per_second)

        async def run_channel(partition: PartitionHost) -> None:
            await ChannelPartition(
                partition,
                channel,
                host.definitions,
                host.suppressions,
                metrics,
                pace,
                wall_clock,
                retention=timedelta(days=settings.retention_days),
            ).run()

        return run_channel

    return {"events": users} | {f"messages.{channel.name}": deliver(channel) for channel in channels}


@contextlib.asynccontextmanager
async def _answering(server: Server, port: socket.socket) -> AsyncIterator[None]:
    """Answer HTTP on the port. At the end requests under way are answered, and new ones refused."""
    settings, host = server.settings, server.host
    app = make_app(host.log, settings, metrics=server.metrics, ready=server.waits_for, clock=wall_clock)
    secret = settings.link_secret.get_secret_value().encode()
    app.add_routes(link_routes(host.log, secret, server.metrics, wall_clock))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=ANSWERS_WITHIN_SECONDS)
    await runner.setup()
    try:
        await web.SockSite(runner, port, backlog=1024).start()
        yield
    finally:
        await runner.cleanup()


async def _fold_the_rest(host: EmbeddedHost) -> None:
    """Wait, within bounds, until the users' partitions have folded what was accepted."""
    until = time.monotonic() + FOLDS_WITHIN_SECONDS
    partitions = [host.log.partition("events", number) for number in range(host.partitions("events"))]
    while any(partition.unfolded_records() for partition in partitions) and time.monotonic() < until:
        if host.log.failure is not None:
            return
        await asyncio.sleep(0.01)


def _introduce(server: Server, say: Say) -> None:
    """Say where everything is."""
    settings = server.settings
    kept = settings.data / "write-key"
    if kept.exists() and [key.get_secret_value() for key in settings.write_keys.get("default", [])] == [
        kept_secret(kept)
    ]:
        say(f"write key {kept_secret(kept)}   tenant default; kept in {kept}")
    smtp = SmtpServer.parse(settings.smtp_url.get_secret_value())
    say(f"mail      from {settings.email_from} through {smtp.host}:{smtp.port}")
    say(f"data      {settings.data.resolve()}")
    say(
        f"HTTP      {server.url}"
        + ("" if settings.public_url == server.url else f"   links begin with {settings.public_url}")
    )


def wall_clock() -> int:
    """Now, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
