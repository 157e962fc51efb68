"""The embedded host with users on it, in this process: its clock is moved by the test, its machine may crash."""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from agents.channels.delivery import ChannelPartition
from agents.channels.pacing import Pace
from engine.actor import earliest_due
from engine.journey import Journey
from engine.runtime import states
from engine.runtime.embedded import layout
from engine.runtime.embedded.host import EmbeddedHost
from engine.runtime.host import PartitionHost, PartitionStopped
from engine.runtime.metrics import Metrics
from engine.runtime.partition import UserPartition
from engine.runtime.publish import plan
from engine.runtime.store import MemoryStore
from schemas.definitions import Definition
from schemas.inputs import Event, Receipt
from schemas.journal import read_entries
from schemas.outputs import JournalEntry, Message
from schemas.records import NewRecord, Record
from schemas.state import User

TENANT = "shop"
BEGIN = 1_767_600_000_000
PARTITIONS = 4
QUIET_WITHIN_SECONDS = 60
CHANNELS_WORDS = ("attempt", "retry")  # the kinds of journal entries that channels write


class Clock:
    """Says what it was told."""

    def __init__(self, now: int = BEGIN) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class Provider:
    """The channel "inapp": remembers what it took, unless its world's life is over. It does not know ids that come twice."""

    name, idempotent, needs_template, concurrency = "inapp", False, True, 200

    def __init__(self, world: "World") -> None:
        self._world, self._life = world, world.life

    def target(self, message: Message) -> str:
        return message.address

    def lane(self, message: Message) -> str | None:
        return None

    def render(self, message: Message, template: Definition) -> str:
        return template.key

    async def deliver(self, message: Message, content: str) -> str:
        if self._world.life == self._life:
            self._world.delivered.append(message.id)
        return "taken"

    async def open(self) -> None: ...

    async def close(self) -> None: ...


class World:
    """One life of the host after another, on a store in memory. `delivered` is what has left for a provider."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(layout.FAMILIES)
        self.metrics = Metrics()
        self.delivered: list[str] = []
        self.life = 0
        self.host = self._open()
        self.owned: dict[int, Any] = {}  # number -> the partition of users that is running

    # Running

    def start(self) -> None:
        """Run the users' partitions and the channel's."""
        self.host.start({"events": self._users, "messages.inapp": self._deliver})

    async def _users(self, partition: PartitionHost) -> None:
        self.owned[partition.number] = partition
        await UserPartition(partition, self.host.definitions, self.metrics, clock=self.clock).run()

    async def _deliver(self, partition: PartitionHost) -> None:
        host = self.host
        pace = Pace(200, 1e6)
        await ChannelPartition(
            partition, Provider(self), host.definitions, host.suppressions, self.metrics, pace, self.clock
        ).run()

    async def until_quiet(self) -> None:
        """Wait until everything is folded, no timer is due, and what was asked for has left."""
        deadline = time.monotonic() + QUIET_WITHIN_SECONDS
        while not self._is_quiet():
            assert time.monotonic() < deadline, "the world did not come to rest"
            assert not self.host.stopped, self.host.stopped
            await asyncio.sleep(0.01)

    def _is_quiet(self) -> bool:
        if len(self.owned) < PARTITIONS:
            return False
        if any(partition.timers.next_at() <= self.clock.now for partition in self.owned.values()):
            return False
        topics = ("events", "messages.inapp")
        ends = [self.host.log.partition(topic, number) for topic in topics for number in range(PARTITIONS)]
        if any(end.position + 1 < end.end for end in ends):
            return False
        receipts = [record.value or b"" for record in _in_order(self.records("events"))]
        answered = {
            msgspec.json.decode(value, type=Receipt).message for value in receipts if b'"type":"receipt"' in value
        }
        return all(message.id in answered for message in self.messages())

    async def restart(self) -> None:
        """Stop cleanly and open again; nothing runs until `start`."""
        self._end_life()
        await self.host.close()
        self.store = self.store.reopen()
        self.host = self._open()

    async def crash(self, surviving_writes: int) -> None:
        """The machine dies: what was not synced is lost, but for so many writes. Nobody hears of anything any more."""
        self._end_life()
        store, host = self.store, self.host
        self.store = store.crash(surviving_writes)
        self.host = self._open()
        await self._let_go(host)

    def _end_life(self) -> None:
        self.life += 1
        self.owned = {}

    async def _let_go(self, host: EmbeddedHost | None = None) -> None:
        with contextlib.suppress(PartitionStopped):
            await (host or self.host).close()

    def unsynced_writes(self) -> int:
        return len(self.store._unsynced)

    def _open(self) -> EmbeddedHost:
        return EmbeddedHost(self.store, PARTITIONS, clock=self.clock, metrics=self.metrics)

    async def close(self) -> None:
        self._end_life()
        await self._let_go()

    # What is put in

    async def publish(self, *journeys: Journey) -> None:
        names = {name for journey in journeys for name in journey.template_names()}
        publication = plan([TENANT], journeys, {name: {"text": name} for name in names}, self.host.definitions)
        if publication.activations:
            await self.host.log.append_atomically(publication.records(PARTITIONS))

    async def append(self, *events: tuple[str, Event]) -> None:
        """Append (user, event) pairs; returns when they are acknowledged."""
        await self.host.log.append(
            [NewRecord("events", f"{TENANT}:{user}".encode(), msgspec.json.encode(event)) for user, event in events]
        )

    # What came of it

    def records(self, topic: str) -> dict[int, list[Record]]:
        self.host.log.write()
        partitions = {}
        for number in range(PARTITIONS):
            groups = layout.read_groups(self.store, layout.partition_prefix(topic, number), 0)
            partitions[number] = [record for group in groups for record in group]
        return partitions

    def messages(self) -> list[Message]:
        return [message_of(record) for record in _in_order(self.records("messages.inapp"))]

    def journal(self) -> list[JournalEntry]:
        records = _in_order(self.records("journal"))
        entries = [entry for record in records for entry in read_entries(record.value)]
        return [entry for entry in entries if entry.kind not in CHANNELS_WORDS]

    def users(self) -> dict[bytes, User]:
        users: dict[bytes, User] = {}
        for number in range(PARTITIONS):
            prefix = layout.partition_prefix("events", number) + states.USER
            for key, raw in self.store.scan(layout.STATES, prefix, prefix + b"\xff"):
                users[key[len(prefix) :]] = states.decode_user(raw)
        return users

    def due(self) -> list[bytes]:
        """Whose timers are due, by their states."""
        return [
            key for key, user in self.users().items() if (earliest_due(user) or self.clock.now + 1) <= self.clock.now
        ]


def message_of(record: Record) -> Message:
    return msgspec.json.decode(record.value or b"", type=Message)


def _in_order(partitions: dict[int, list[Record]]) -> Iterable[Record]:
    return [record for _, records in sorted(partitions.items()) for record in records]
