"""The Faust app around the partitions: what a Faust user starts, lists and watches.

Faust gives the process its shape: the command line, sensors, agents. It consumes nothing itself (its consumer, tables and
`exactly_once` lose or double records, see DESIGN 7), so it joins no group; a service of the app owns the partitions, and
hands each batch of records to the agent over a channel. The agent folds it, and the partition commits what came of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faust
import mode
from faust.app.base import BootStrategy
from faust.channels import Channel
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from engine.runtime.host import Batch
from engine.runtime.kafka.partitions import Partitions
from engine.runtime.settings import Kafka
from schemas.records import Record

Fold = Callable[[Sequence[Record]], Awaitable[Batch]]

WAITING_BATCHES = 1024  # one for each partition that a process may own


@dataclass(slots=True)
class Asked:
    """A batch of records that a partition wants folded."""

    records: Sequence[Record]
    _fold: Callable[[Sequence[Record]], Batch]
    _answer: "asyncio.Future[Batch]"

    def fold(self) -> None:
        """Fold it, and give the partition the result, or what was raised. Nothing, if it was taken away meanwhile."""
        if self._answer.done():
            return
        try:
            self._answer.set_result(self._fold(self.records))
        except Exception as error:  # the partition's to judge: it waits, stops, or begins anew
            self._answer.set_exception(error)


class _ConsumesNothing(BootStrategy):  # type: ignore[misc]
    enable_kafka = False


class Batches(Channel):  # type: ignore[misc]
    """The channel that the agent reads: one queue, from the beginning, whoever reads it.

    Faust's own gives each reader a queue of its own, which is not there before the reader runs, holds everything back
    until a consumer has partitions, and is emptied at each rebalance. A batch lost in it would stop its partition.
    """

    async def put(self, value: Asked) -> None:
        await self.queue.put(value)

    def _clone_args(self) -> dict[str, Any]:
        return {**super()._clone_args(), "queue": self.queue}


class PartitionsApp(faust.App):  # type: ignore[misc]
    """A Faust app whose agent reads `batches`, and whose worker owns partitions once it was told how (`own`)."""

    BootStrategy = _ConsumesNothing
    batches: Any

    def _create_directories(self) -> None:
        Path(self.conf.datadir).mkdir(parents=True, exist_ok=True)  # Faust makes the last folder of the path only
        super()._create_directories()

    async def on_start(self) -> None:
        await super().on_start()
        self.flow_control.resume()  # Faust does it when its consumer has partitions, and agents wait for it

    def own(self, owning: Callable[[], AbstractAsyncContextManager[Partitions]]) -> None:
        """Own partitions as long as the app's worker runs."""
        self.owner = OwnedPartitions(owning)
        self.service(self.owner)

    def through(self, fold: Callable[[Sequence[Record]], Batch]) -> Fold:
        """Return the fold as the agent does it. Given to a partition's loop."""

        async def ask(records: Sequence[Record]) -> Batch:
            asked = Asked(records, fold, asyncio.get_running_loop().create_future())
            await self.batches.put(asked)
            return await asked._answer

        return ask


def build_app(settings: Kafka, directory: Path) -> PartitionsApp:
    """Make the app. It connects to nothing before it is started."""
    app = PartitionsApp(
        settings.app,
        broker=f"kafka://{settings.bootstrap}",
        store="memory://",
        datadir=str(directory),
        web_enabled=False,
        topic_disable_leader=True,
        autodiscover=False,
    )
    flowing = FlowControlEvent(initially_suspended=False)
    app.batches = Batches(app, queue=ThrowableQueue(maxsize=WAITING_BATCHES, flow_control=flowing))
    return app


class OwnedPartitions(mode.Service):  # type: ignore[misc]
    """Starts and stops the partitions with the app, and ends the app if the membership in the group ends."""

    def __init__(self, owning: Callable[[], AbstractAsyncContextManager[Partitions]]) -> None:
        super().__init__()
        self._owning = owning
        self._stack = AsyncExitStack()
        self.failed: asyncio.Future[None]  # fails when the membership in the group has ended by itself

    async def on_start(self) -> None:
        partitions = await self._stack.enter_async_context(self._owning())
        self.failed = partitions.failed

    async def on_stop(self) -> None:
        await self._stack.aclose()

    @mode.Service.task  # type: ignore[untyped-decorator]
    async def _end_with_the_membership(self) -> None:
        await asyncio.shield(self.failed)
