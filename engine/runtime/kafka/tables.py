"""What the compacted topics hold, read from their beginning and kept up to date: definitions, suppressions.

A table is read whole before it is used. Whoever must not miss what was written lately asks for the topic's end first and
waits until the table has come there; the end asked for covers open transactions, too, so that nobody's pending write
hides what was committed after it.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from engine.runtime.kafka import clients
from engine.runtime.kafka.topics import topic_name
from engine.runtime.settings import Kafka
from schemas.definitions import Definition
from schemas.records import Record

POLL_MS = 100
PROGRESS_EVERY_SECONDS = 5.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 10.0
FRESH_FOR_SECONDS = 1.0  # an end asked for less than this ago is good enough

_log = structlog.get_logger(__name__)
_decode = msgspec.json.Decoder(Definition).decode


class TableReader:
    """Reads one compacted topic for ever and gives each record to `take`, in the order of its partition."""

    def __init__(self, settings: Kafka, topic: str, take: Callable[[Record], None]) -> None:
        self._settings = settings
        self._topic = topic_name(settings, topic)
        self._take = take
        self._sources = [TopicPartition(self._topic, number) for number in range(settings.partitions)]
        self._positions = dict.fromkeys(self._sources, 0)
        self._moved = asyncio.Condition()
        self._consumer: AIOKafkaConsumer | None = None
        # Asks for ends as a reader of everything would see them: one who reads committed records only is told of the
        # first open transaction instead.
        self._ends: AIOKafkaConsumer | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read through what is there now. Raises KafkaError if no broker answers."""
        self._ends = AIOKafkaConsumer(**clients.connection(self._settings), enable_auto_commit=False)
        try:
            await self._ends.start()
            await self._connect()
            self._reading = asyncio.create_task(self._read_for_ever())
            await self.catch_up()
        except BaseException:
            await self.stop()
            raise

    async def catch_up(self) -> None:
        """Return when everything appended before the call has been taken."""
        assert self._ends is not None
        ends: dict[TopicPartition, int] = await self._ends.end_offsets(self._sources)
        async with self._moved:
            await self._moved.wait_for(lambda: all(self._positions[source] >= end for source, end in ends.items()))

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        for consumer in (self._consumer, self._ends):
            if consumer is not None:
                await consumer.stop()

    async def _connect(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()
        consumer = self._consumer = clients.reader(self._settings)
        await consumer.start()
        consumer.assign(self._sources)
        begins = await consumer.beginning_offsets(self._sources)
        for source in self._sources:
            consumer.seek(source, max(begins[source], self._positions[source]))

    async def _read_for_ever(self) -> None:
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._read_next()
                pause_seconds = FIRST_PAUSE_SECONDS
            except Exception:
                _log.exception("a table cannot be read", topic=self._topic, again_in_seconds=pause_seconds)
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
                with contextlib.suppress(Exception):  # the next round says what is wrong
                    await self._connect()

    async def _read_next(self) -> None:
        assert self._consumer is not None
        fetched: dict[TopicPartition, list[Any]] = await self._consumer.getmany(timeout_ms=POLL_MS)
        for records in fetched.values():
            for record in records:
                self._take(record)
        moved = {source: await self._consumer.position(source) for source in self._sources}
        if moved != self._positions:
            async with self._moved:
                self._positions = moved
                self._moved.notify_all()


class KafkaDefinitions:
    """See `engine.runtime.host.Definitions`."""

    def __init__(self, settings: Kafka) -> None:
        self._bodies: dict[str, bytes] = {}
        self._decoded: dict[str, Definition] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._reader = TableReader(settings, "definitions", self._take)

    async def start(self) -> None:
        """Read all definitions there are."""
        await self._reader.start()

    async def catch_up(self) -> None:
        """Return when everything published before the call is known."""
        await self._reader.catch_up()

    async def stop(self) -> None:
        await self._reader.stop()

    def find(self, key: str) -> Definition | None:
        definition = self._decoded.get(key)
        if definition is None and key in self._bodies:
            definition = self._decoded[key] = _decode(self._bodies[key])
        return definition

    async def wait(self, key: str) -> Definition:
        while (definition := self.find(key)) is None:
            arrived = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(key, []).append(arrived)
            await arrived
        return definition

    def all(self) -> Iterator[Definition]:
        for key in sorted(self._bodies):
            definition = self.find(key)
            assert definition is not None
            yield definition

    def _take(self, record: Record) -> None:
        key = (record.key or b"").decode("utf-8", "replace")
        if record.value is None:
            self._bodies.pop(key, None)
            self._decoded.pop(key, None)
            return
        try:
            definition = _decode(record.value)
        except msgspec.MsgspecError as error:
            _log.error("a definition cannot be read and is left out", key=key, reason=str(error))
            return
        del definition  # it was checked; bodies are decoded when they are used
        self._bodies[key] = record.value
        self._decoded.pop(key, None)
        for arrived in self._waiting.pop(key, ()):
            if not arrived.done():
                arrived.set_result(None)


class KafkaSuppressions:
    """See `engine.runtime.host.Suppressions`. Kept in memory: some 150 bytes each."""

    def __init__(self, settings: Kafka) -> None:
        self._keys: set[bytes] = set()
        self._reader = TableReader(settings, "suppressions", self._take)
        self._fresh_since = 0.0  # everything appended before this monotonic time is known
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read all suppressions there are."""
        asked_at = time.monotonic()
        await self._reader.start()
        self._fresh_since = asked_at

    async def stop(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        await self._reader.stop()

    async def scope(self, tenant: str, channel: str, address: str, topic: str) -> str | None:
        while time.monotonic() - self._fresh_since >= FRESH_FOR_SECONDS:
            await self._refresh()
        for scope in ("all", topic):
            if f"{tenant}:{channel}:{scope}:{address}".encode() in self._keys:
                return scope
        return None

    async def _refresh(self) -> None:
        """Come to the topic's end, once for however many wait. Raises KafkaError if it cannot be asked for."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._catch_up())
        await asyncio.shield(self._refreshing)

    async def _catch_up(self) -> None:
        asked_at = time.monotonic()
        await self._reader.catch_up()
        self._fresh_since = asked_at

    def _take(self, record: Record) -> None:
        assert record.key is not None
        if record.value is None:
            self._keys.discard(record.key)
        else:
            self._keys.add(record.key)
