"""What the stories of the channels play on: the embedded host in memory, commands, and a provider that remembers."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec

from agents.channels.delivery import Channel, ChannelPartition
from agents.channels.pacing import Pace
from engine.runtime.embedded.host import EmbeddedHost
from engine.runtime.embedded.layout import FAMILIES
from engine.runtime.metrics import Metrics
from engine.runtime.store import MemoryStore
from schemas.definitions import Definition
from schemas.inputs import Receipt
from schemas.journal import read_entries
from schemas.outputs import JournalEntry, Message
from schemas.records import Headers, NewRecord, Record

T0 = 1_750_000_000_000
HOUR = 3_600_000


def template(name: str = "hello", **parts: str) -> Definition:
    body = msgspec.json.encode(parts or {"subject": "Hi", "text": "Hello"})
    return Definition("shop", "template", name, 0, hashlib.sha256(body).hexdigest(), msgspec.Raw(body))


HELLO = template()


def command(number: int = 1, **changes: Any) -> Message:
    message = Message(
        f"r{number}:1",
        "shop",
        f"u{number}",
        "email",
        f"u{number}@example.com",
        HELLO.key.rpartition("/")[2],
        "welcome",
        1,
        "greet",
        f"r{number}",
        T0,
        T0 + HOUR,
        profile={"name": "Ada"},
    )
    return msgspec.structs.replace(message, **changes)


class Clock:
    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> int:
        return self.now


class Provider:
    """A channel whose provider answers what it is told to, and remembers what it was asked for."""

    name = "email"
    concurrency = 10
    needs_template = True

    def __init__(self, idempotent: bool = False) -> None:
        self.idempotent = idempotent
        self.calls: list[str] = []
        self.answer: Callable[[Message], Exception | None] = lambda message: None
        self.held: dict[str, asyncio.Event] = {}  # calls that don't end before the event

    def target(self, message: Message) -> str:
        return message.address

    def lane(self, message: Message) -> str | None:
        return None

    def render(self, message: Message, template: Definition) -> str:
        return str(message.profile["name"])

    async def deliver(self, message: Message, content: str) -> str:
        self.calls.append(message.id)
        if message.id in self.held:
            await self.held[message.id].wait()
        failure = self.answer(message)
        if failure is not None:
            raise failure
        return "250 ok"

    async def open(self) -> None: ...

    async def close(self) -> None: ...


class Stage:
    """One embedded host; `crash()` loses what was not synced."""

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = partitions
        self.clock = Clock()
        self.store = MemoryStore(FAMILIES)
        self.host = self._host()
        self.metrics = Metrics()

    def _host(self) -> EmbeddedHost:
        return EmbeddedHost(self.store, self.partitions, clock=self.clock)

    async def publish(self, *templates: Definition) -> None:
        await self.host.log.append(
            [NewRecord("definitions", item.key.encode(), msgspec.json.encode(item)) for item in templates]
        )

    async def ask(self, *messages: Message, headers: Headers = ()) -> None:
        await self.host.log.append(
            [
                NewRecord(
                    f"messages.{message.channel}",
                    f"{message.tenant}:{message.user}".encode(),
                    msgspec.json.encode(message),
                    headers,
                )
                for message in messages
            ]
        )

    @asynccontextmanager
    async def delivering(self, channel: Channel[Any], **options: Any) -> AsyncIterator[ChannelPartition]:
        """Deliver while the block runs, then stop cleanly."""
        partition = self.partition(channel, **options)
        task = asyncio.create_task(partition.run())
        try:
            yield partition
        finally:
            if not task.done():
                partition.stop()
            await task

    def partition(
        self, channel: Channel[Any], pace: Pace | None = None, drain_seconds: float | None = None, number: int = 0
    ) -> ChannelPartition:
        return ChannelPartition(
            self.host.partition(f"messages.{channel.name}", number),
            channel,
            self.host.definitions,
            self.host.suppressions,
            self.metrics,
            pace or Pace(channel.concurrency, 10_000),
            self.clock,
            retention=timedelta(days=7),
            drain_seconds=drain_seconds,
        )

    def records(self, topic: str) -> Iterator[Record]:
        self.host.log.write()
        return self.host.log.read(topic, b"")

    def receipts(self) -> list[tuple[str, str]]:
        """Message and status of each receipt, in order."""
        return [(receipt.message, receipt.status) for receipt in self.full_receipts()]

    def full_receipts(self) -> list[Receipt]:
        return [msgspec.json.decode(record.value or b"", type=Receipt) for record in self.records("events")]

    def journal(self) -> list[tuple[str, str]]:
        return [(entry.message, entry.kind) for entry in self.entries()]

    def entries(self) -> list[JournalEntry]:
        return [entry for record in self.records("journal") for entry in read_entries(record.value)]

    async def restart(self) -> None:
        """As after a clean stop of the process."""
        await self.host.log.close()
        self.store = self.store.reopen()
        self.host = self._host()

    async def crash(self) -> None:
        """As after a power cut: what was not synced is gone."""
        self.store = self.store.crash()
        self.host = self._host()

    async def close(self) -> None:
        await self.host.close()


async def until(holds: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something holds, or fail."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, "it did not come about"
        await asyncio.sleep(0.005)
