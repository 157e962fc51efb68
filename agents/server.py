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
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import uvloop
from aiohttp import web

from agents import admin
from agents.channels.delivery import Channel, ChannelPartition
from agents.channels.link_routes import link_routes
from agents.channels.pacing import Pace
from agents.channels.roster import CHANNELS, make_channel
from agents.channels.smtp import SmtpServer
from agents.collecting import spare_what_is_there
from agents.folder import Folder, read_folder
from agents.ingress.application import check, make_app, wall_clock
from agents.keys import kept_secret, with_kept_secrets
from agents.listening import answering, take_port, url_of
from agents.stopping import stop_signals, until_one_ends
from engine.journey import Journey
from engine.runtime.embedded.host import EmbeddedHost, Loop
from engine.runtime.host import PartitionHost
from engine.runtime.metrics import Metrics
from engine.runtime.partition import UserPartition
from engine.runtime.publish import Publication, plan
from engine.runtime.settings import Settings

STOPS_WITHIN_SECONDS = 20.0  # supervisors kill after 30 (Kubernetes) or 90 (systemd)
FOLDS_WITHIN_SECONDS = 3.0

Say = Callable[[str], None]
Hurry = Callable[[Journey], Journey]
PacedChannel = tuple[Channel[Any], Pace]


class ServerFailed(Exception):  # noqa: N818 - says what is the case
    """The server can't start, or had to stop by itself. The text says why and what to do."""


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
        await until_one_ends(stop.wait(), self._fail_with_the_host())

    async def _fail_with_the_host(self) -> None:
        raise ServerFailed(f"the server stopped itself: {await self.host.failed()}")


def run(settings: Settings, say: Say, *, accept_clock: bool = False) -> None:
    """Serve until SIGINT or SIGTERM; a second one stops at once. Raises what keeps the server from starting or going on."""
    uvloop.run(_serve(settings, say, accept_clock))


async def _serve(settings: Settings, say: Say, accept_clock: bool) -> None:
    with stop_signals() as stop:
        async with running(settings, say, accept_clock=accept_clock) as server:
            spare_what_is_there()
            say("ready; Ctrl-C stops")
            await server.until(stop)
            say("stopping: what was accepted is folded, deliveries under way end")
    say("stopped; everything is on the disk")


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
        port = stack.enter_context(contextlib.closing(take_port(settings.host, settings.port)))
        settings = _settle(settings, url_of(port))
        metrics = Metrics()
        metrics.watch_disk(settings.data)
        channels = _make_channels(settings)
        for channel, _ in channels:
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
        server = Server(settings, url_of(port), host, metrics)
        if folder is not None:
            server.publication = await _publish(folder, server, hurry)
            for change in server.publication.changes:
                say(f"{'journey' if isinstance(change.definition, Journey) else 'policy':9} {change}")
        host.start({**_loops(server, channels), **(loops or {})})
        stack.push_async_callback(_fold_the_rest, host)
        await stack.enter_async_context(admin.open_door(settings.data, host.log, host.definitions))
        await stack.enter_async_context(answering(_make_app(server), port))
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


def _read_journeys(settings: Settings, say: Say) -> Folder | None:
    """Return the journeys to publish, or None where the default folder isn't there. Raises JourneyError."""
    if not settings.journeys.is_dir() and "journeys" not in settings.model_fields_set:
        say(f"journey   there is no folder {settings.journeys}; name yours with --journeys DIR, or publish later")
        return None
    return read_folder(settings.journeys)


def _settle(settings: Settings, url: str) -> Settings:
    """Return the settings with what is only known now: the secrets in the data folder, and the address."""
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)  # people's addresses are in it
    settings = with_kept_secrets(settings)
    return settings.model_copy(update={"public_url": settings.public_url or url})


async def _publish(folder: Folder, server: Server, hurry: Hurry | None) -> Publication:
    """Publish what changed in the folder, before any loop runs. Raises JourneyError."""
    journeys = [hurry(journey) for journey in folder.journeys] if hurry else folder.journeys
    host = server.host
    publication = plan(server.settings.write_keys, journeys, folder.templates, host.definitions, folder.policy)
    if publication.activations:
        await host.log.append_atomically(publication.records(host.partitions("events")))
    return publication


def _make_channels(settings: Settings) -> list[PacedChannel]:
    """Return the channels. Raises ServerFailed if anything of the settings can't work, also for the ingress."""
    try:
        check(settings)
        return [make_channel(name, settings) for name in CHANNELS]
    except ValueError as error:
        raise ServerFailed(str(error)) from None


def _loops(server: Server, channels: Sequence[PacedChannel]) -> dict[str, Loop]:
    """Return which loop runs on which topic."""
    host, metrics, settings = server.host, server.metrics, server.settings

    async def users(partition: PartitionHost) -> None:
        await UserPartition(partition, host.definitions, metrics).run()

    def deliver(channel: Channel[Any], pace: Pace) -> Loop:
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

    return {"events": users} | {f"messages.{channel.name}": deliver(channel, pace) for channel, pace in channels}


def _make_app(server: Server) -> web.Application:
    settings, log = server.settings, server.host.log
    app = make_app(log, settings, metrics=server.metrics, ready=server.waits_for, clock=wall_clock)
    secret = settings.link_secret.get_secret_value().encode()
    app.add_routes(link_routes(log, secret, server.metrics, wall_clock))
    return app


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
