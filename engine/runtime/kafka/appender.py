"""How records are appended without a transaction: each to its partition, in order, acknowledged by all replicas.

One batch per partition is under way at a time; what arrives meanwhile is the next batch. So batches grow with the load,
and a lone record waits for nobody. Retries double nothing (idempotent producer), as long as the producer is the same:
after an error that is not retried it is replaced, and what it had not acknowledged is reported as not appended, which
may be wrong; whoever asked repeats, and duplicates are dropped where the records are folded.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from time import time
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from engine.errors import InvalidInput
from engine.runtime.host import Overloaded, Unavailable
from engine.runtime.kafka import clients
from engine.runtime.kafka.transactions import SMALLEST_BATCH_BYTES, Content, Place
from engine.runtime.settings import Kafka

IN_FLIGHT_BYTES = 64 << 20  # some 130,000 events of 500 bytes: 5 s of the heaviest load one process takes in
# Longer than a broker needs to elect a new leader, shorter than what waits in front of us (SDKs give up after 15 s).
UNAVAILABLE_AFTER_SECONDS = 10.0
GIVEN_UP_AFTER_SECONDS = 60.0  # the producer itself would retry for ever
RECORD_OVERHEAD_BYTES = 64


@dataclass(slots=True)
class _Part:
    """The records of one append that go to one partition: how many of them are in a batch, and how many acknowledged."""

    contents: list[Content]
    bytes: int
    done: "asyncio.Future[None]"
    taken: int = 0
    finished: int = 0


class Appender:
    """Appends records for one process. `on_append` is told each append time that a broker has acknowledged."""

    def __init__(self, settings: Kafka, on_append: Callable[[int], None] = lambda appended_at: None) -> None:
        self._settings = settings
        self._on_append = on_append
        self._producer: AIOKafkaProducer | None = None
        self._replacing = asyncio.Lock()
        self._batch_bytes = clients.BATCH_BYTES
        self._queues: dict[Place, deque[_Part]] = {}
        self._senders: dict[Place, asyncio.Task[None]] = {}
        self._began: dict[Place, float] = {}  # when the batch under way was handed over
        self._in_flight_bytes = 0
        self._is_closed = False

    async def start(self) -> None:
        """Connect. Raises KafkaError if no broker answers."""
        self._producer = await self._connected()

    async def append(self, contents: Sequence[tuple[Place, Content]]) -> None:
        """Append the records, those for one partition in the given order, and return when all are durable.

        Raises Overloaded if too much waits already, Unavailable if no acknowledgement came in time, and InvalidInput if
        a record is larger than its topic takes. Some of the records may have been appended all the same.
        """
        by_place: dict[Place, list[Content]] = {}
        for place, content in contents:
            by_place.setdefault(place, []).append(content)
        parts = {place: _Part(each, sum(map(_size, each)), _watched_future()) for place, each in by_place.items()}
        size = sum(part.bytes for part in parts.values())
        self._check_room(size)
        for place, part in parts.items():
            self._queues.setdefault(place, deque()).append(part)
        self._in_flight_bytes += size
        for place in parts:
            if place not in self._senders:
                self._senders[place] = asyncio.create_task(self._send_queue(place))
        if not parts:
            return
        done, pending = await asyncio.wait([part.done for part in parts.values()], timeout=UNAVAILABLE_AFTER_SECONDS)
        for future in done:
            future.result()
        if pending:
            raise Unavailable(f"no acknowledgement from {self._settings.bootstrap} in {UNAVAILABLE_AFTER_SECONDS:g} s")

    @property
    def in_flight_bytes(self) -> int:
        return self._in_flight_bytes

    async def close(self) -> None:
        """Wait a moment for what is under way, then let go of it. Nothing is taken any more."""
        self._is_closed = True
        senders = list(self._senders.values())
        if senders:
            await asyncio.wait(senders, timeout=clients.STOPS_WITHIN_SECONDS)
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        producer, self._producer = self._producer, None
        if producer is not None:
            await clients.stop(producer)

    def _check_room(self, size: int) -> None:
        if self._is_closed:
            raise Unavailable("the process is stopping")
        if self._in_flight_bytes and self._in_flight_bytes + size > IN_FLIGHT_BYTES:
            raise Overloaded
        for reason in self.waits_for():
            raise Unavailable(reason)

    def waits_for(self) -> list[str]:
        """Return why nothing is taken at the moment, in words; nothing if all is well."""
        if self._began and time() - min(self._began.values()) > UNAVAILABLE_AFTER_SECONDS:
            return [f"{self._settings.bootstrap} has acknowledged nothing for {UNAVAILABLE_AFTER_SECONDS:g} s"]
        return []

    async def _send_queue(self, place: Place) -> None:
        """Send what waits for one partition, a batch at a time, until nothing does."""
        queue = self._queues[place]
        try:
            while queue:
                await self._send_next_batch(place, queue)
        finally:
            del self._senders[place], self._queues[place]
            self._began.pop(place, None)
            self._finish(_all_left(queue), Unavailable("the process is stopping"))

    async def _send_next_batch(self, place: Place, queue: deque[_Part]) -> None:
        taken: list[tuple[_Part, int]] = []
        self._began[place] = time()
        producer = self._producer
        try:
            if producer is None:
                producer = await self._replace(None)
            batch = producer.create_batch()
            _fill(batch, queue, taken)
            batch.close()
            sent = await producer.send_batch(batch, place[0], partition=place[1])
            acknowledged: Any = await asyncio.wait_for(sent, GIVEN_UP_AFTER_SECONDS)
        except (MessageSizeTooLargeError, RecordListTooLargeError):
            await self._replace_quietly(producer)
            if sum(count for _, count in taken) == 1:
                part = taken[0][0]
                size = _size(part.contents[part.taken - 1])
                self._finish(taken, InvalidInput(f"a record of {size:,} bytes is larger than {place[0]} takes"))
            else:
                self._batch_bytes = max(SMALLEST_BATCH_BYTES, self._batch_bytes // 2)
                _put_back(taken, queue)
        except (KafkaError, OSError, TimeoutError) as error:
            if not taken:  # no connection: the others would have to wait for the same answer
                taken = _all_left(queue)
                queue.clear()
            self._finish(taken, Unavailable(f"the broker refused: {error!r}"))
            await self._replace_quietly(producer)
        except BaseException:
            self._finish(taken, Unavailable("the process is stopping"))
            raise
        else:
            self._finish(taken, None)
            if acknowledged is not None and acknowledged.timestamp_type == 1:
                self._on_append(acknowledged.timestamp)

    def _finish(self, taken: Sequence[tuple[_Part, int]], error: Exception | None) -> None:
        for part, count in taken:
            part.finished += count
            is_whole = part.finished == len(part.contents)
            if is_whole:
                self._in_flight_bytes -= part.bytes
            if part.done.done():
                continue
            if error is not None:
                part.done.set_exception(error)
            elif is_whole:
                part.done.set_result(None)

    async def _replace_quietly(self, used: AIOKafkaProducer | None) -> None:
        with contextlib.suppress(KafkaError, OSError):  # the next batch tries again and reports it
            await self._replace(used)

    async def _replace(self, used: AIOKafkaProducer | None) -> AIOKafkaProducer:
        """Return another producer than the one used; whichever partition asks first makes it."""
        async with self._replacing:
            if self._producer is used or self._producer is None:
                old, self._producer = self._producer, None
                if old is not None:
                    await clients.stop(old)
                self._producer = await self._connected()
            return self._producer

    async def _connected(self) -> AIOKafkaProducer:
        producer = clients.writer(self._settings, batch_bytes=self._batch_bytes)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer


def _fill(batch: Any, queue: deque[_Part], taken: list[tuple[_Part, int]]) -> None:
    """Move records from the queue to a batch until it is full, and note of which part how many it has."""
    while queue:
        part = queue[0]
        before = part.taken
        for key, value, headers in islice(part.contents, before, None) if before else part.contents:
            if batch.append(timestamp=None, key=key, value=value, headers=list(headers)) is None:
                break
            part.taken += 1
        if part.taken > before:
            taken.append((part, part.taken - before))
        if part.taken < len(part.contents):
            return
        queue.popleft()


def _put_back(taken: list[tuple[_Part, int]], queue: deque[_Part]) -> None:
    for part, count in reversed(taken):
        if not queue or queue[0] is not part:
            queue.appendleft(part)
        part.taken -= count


def _all_left(queue: deque[_Part]) -> list[tuple[_Part, int]]:
    return [(part, len(part.contents) - part.taken) for part in queue]


def _size(content: Content) -> int:
    return len(content[0] or b"") + len(content[1] or b"") + RECORD_OVERHEAD_BYTES


def _watched_future() -> "asyncio.Future[None]":
    """A future whose error may go unnoticed: whoever asked may have gone away."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
