"""A channel as a process of its own: one channel's commands from Kafka, to people. Start as many as there is work for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agents.channels.delivery import ChannelPartition
from agents.channels.roster import make_channel
from agents.ingress.application import wall_clock
from agents.server import ServerFailed
from agents.worker import Address, Loop, run_channel
from engine.runtime.host import PartitionHost
from engine.runtime.kafka.process import Tables
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Settings


def run(name: str, settings: Settings, metrics_at: Address | None = None) -> None:
    """Deliver until SIGINT or SIGTERM. Raises what keeps the process from starting or going on."""
    try:
        channel, pace = make_channel(name, settings)
    except ValueError as error:
        raise ServerFailed(str(error)) from None

    @asynccontextmanager
    async def open_loop(tables: Tables, metrics: Metrics) -> AsyncIterator[Loop]:
        async def deliver(partition: PartitionHost) -> None:
            await ChannelPartition(
                partition,
                channel,
                tables.definitions,
                tables.suppressions,
                metrics,
                pace,
                wall_clock,
                session_timeout_seconds=settings.kafka.session_timeout_seconds,
            ).run()

        await channel.open()
        try:
            yield deliver
        finally:
            await channel.close()

    run_channel(settings, name, open_loop, metrics_at)
