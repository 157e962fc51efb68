"""The embedded host on a data folder, in this process, with a clock that the test moves: what commands read beside it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from engine.definitions import freeze
from engine.journey import Journey
from engine.runtime.embedded.host import EmbeddedHost
from engine.runtime.host import PartitionHost
from engine.runtime.metrics import Metrics
from engine.runtime.partition import UserPartition
from engine.runtime.publish import plan
from engine.runtime.shadowing import begin
from schemas.inputs import Controlled, Event, UserInput
from schemas.records import NewRecord

BEGIN = 1_767_600_000_000
TENANT = "default"
PARTITIONS = 2
PATIENCE_SECONDS = 30


class Hosted:
    """The host, and what a test does to it."""

    def __init__(self, folder: Path, retention: timedelta) -> None:
        self.now = BEGIN
        self.metrics = Metrics()
        self.host = EmbeddedHost.open(
            folder, PARTITIONS, clock=lambda: self.now, retention=retention, metrics=self.metrics
        )
        self.owned: dict[int, Any] = {}
        self._events = 0

    async def users(self, partition: PartitionHost) -> None:
        self.owned[partition.number] = partition
        await UserPartition(partition, self.host.definitions, self.metrics, clock=lambda: self.now).run()

    async def publish(self, *journeys: Journey) -> None:
        names = {name for journey in journeys for name in journey.template_names()}
        publication = plan([TENANT], journeys, {name: {"text": name} for name in names}, self.host.definitions)
        await self.host.log.append_atomically(publication.records(PARTITIONS))
        await self.until_folded()

    async def control(self, journey: str, action: Literal["pause", "resume", "stop", "retire"]) -> None:
        value = msgspec.json.encode(Controlled(TENANT, journey, action))
        await self.host.log.append([NewRecord("events", None, value, partition=n) for n in range(PARTITIONS)])
        await self.until_folded()

    async def shadow(self, journey: Journey) -> None:
        """Let a version run as a shadow from now on."""
        texts = {name: {"text": name} for name in journey.template_names()}
        act = begin(self.host.definitions, TENANT, freeze(TENANT, journey, texts)[-1], self.now)
        await self.host.log.append_atomically(act.publication.records(PARTITIONS))
        await self.until_folded()

    async def event(self, user: str, name: str, profile: dict[str, object] | None = None, **properties: object) -> None:
        self._events += 1
        await self.give(user, Event(f"m{self._events}", name, self.now, properties, profile or {}))

    async def give(self, user: str, input: UserInput) -> None:
        await self.host.log.append([NewRecord("events", f"{TENANT}:{user}".encode(), msgspec.json.encode(input))])
        await self.until_folded()

    async def wait(self, duration: timedelta) -> None:
        """Let time pass in steps of an hour, so that wake-ups come about when they are due."""
        until = self.now + duration // timedelta(milliseconds=1)
        while self.now < until:
            self.now = min(until, self.now + 3_600_000)
            await self.until_folded()

    async def until_folded(self) -> None:
        """Wait until everything is folded and no timer is due any more."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._is_quiet():
            assert time.monotonic() < deadline, "the host did not come to rest"
            assert not self.host.stopped, self.host.stopped
            await asyncio.sleep(0.005)

    def _is_quiet(self) -> bool:
        owned = list(self.owned.values())
        if len(owned) < PARTITIONS or any(each.timers.next_at() <= self.now for each in owned):
            return False
        ends = [self.host.log.partition("events", number) for number in range(PARTITIONS)]
        return all(end.position + 1 == end.end for end in ends)


@asynccontextmanager
async def hosted(folder: Path, retention: timedelta = timedelta(days=365)) -> AsyncIterator[Hosted]:
    """Run users' partitions on a data folder until the context ends."""
    running = Hosted(folder, retention)
    running.host.start({"events": running.users})
    try:
        yield running
    finally:
        await running.host.close()
