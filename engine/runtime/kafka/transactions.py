"""How records are written to several partitions, all of them or none: one Kafka transaction.

The transactional id is the fence: starting a producer with it makes the broker refuse the previous one and abort what
that one left open. Two things must be known about aiokafka:

- `commit_transaction` commits, and says nothing, when a batch was rejected. So every send is awaited before the commit.
- After a rejected batch the producer's sequence numbers are broken. It has to be replaced, which is a new fence; and who
  fences anew must first read again what was committed. So that is the caller's to do.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, ProducerFenced, RecordListTooLargeError

from engine.runtime import crash_points
from engine.runtime.host import Fenced, PartitionStopped
from engine.runtime.kafka import clients
from engine.runtime.settings import Kafka
from schemas.records import Headers

Place = tuple[str, int]  # the name of a topic, the number of a partition
Content = tuple[bytes | None, bytes | None, Headers]  # key, value, headers

# An open transaction holds back the readers of all partitions it wrote to, so the broker ends it soon if we are gone.
TRANSACTION_TIMEOUT_SECONDS = 10
ABORTS_WITHIN_SECONDS = 5.0
NO_HEADERS: list[tuple[str, bytes]] = []
SMALLEST_BATCH_BYTES = 1024
# What aiokafka waits while the broker still ends the last transaction. With its 100 ms the p99 of a transaction is 127 ms,
# with 10 it is 30. It is also how often it knocks at a broker that is down, once for each partition: 500 times a second
# took the core that the broker needed to come back. So after a second it knocks less often.
RETRY_BACKOFF_MS = 10
KNOCKS_SELDOM_AFTER_SECONDS, SELDOM_BACKOFF_MS = 1.0, 500
TELLS_OF_WAITING_EVERY_SECONDS = 30.0  # three times what a transaction may be open

_log = structlog.get_logger(__name__)


class BatchTooLarge(Exception):  # noqa: N818 - says what is the case
    """A topic takes no record batch of that size. Nothing was written; after the next `fence` batches are smaller."""


class TransactionalWriter:
    """Writes transactions under one transactional id. Not for two writes at a time."""

    def __init__(self, settings: Kafka, transactional_id: str) -> None:
        self.transactional_id = transactional_id
        self._settings = settings
        self._batch_bytes = clients.BATCH_BYTES
        self._producer: AIOKafkaProducer | None = None

    async def fence(self) -> None:
        """Become the only one who may write under this id; what others left open is aborted when this returns.

        It waits, and says so twice a minute, for as long as the broker cannot end what was left open.
        """
        await self.close()
        producer = clients.writer(
            self._settings,
            transactional_id=self.transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_SECONDS * 1000,
            batch_bytes=self._batch_bytes,
            retry_backoff_ms=RETRY_BACKOFF_MS,
        )
        starting = asyncio.ensure_future(producer.start())
        patience = asyncio.get_running_loop().call_later(
            KNOCKS_SELDOM_AFTER_SECONDS, _retry_after, producer, SELDOM_BACKOFF_MS
        )
        try:
            began = time.monotonic()
            while not (await asyncio.wait({starting}, timeout=TELLS_OF_WAITING_EVERY_SECONDS))[0]:
                _log.warning(
                    "the broker does not end a transaction that was left open; waiting",
                    transactional_id=self.transactional_id, seconds=round(time.monotonic() - began),
                    check="can it write to the topics of this app? (max.message.bytes, min.insync.replicas, its disks)",
                )  # fmt: skip
            starting.result()
        except BaseException:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await producer.stop()
            raise
        finally:
            patience.cancel()
        _retry_after(producer, RETRY_BACKOFF_MS)
        self._producer = producer

    async def write(self, contents: Mapping[Place, list[Content]]) -> dict[Place, int]:
        """Write all or nothing and return the offset of the last record at each place.

        Raises Fenced if another writer has begun under this id, BatchTooLarge, PartitionStopped if a single record is
        larger than its topic allows, and KafkaError for anything else; nothing was written then, or that is not known
        (the broker was lost during the commit). After any of them: `fence`, and read what was committed.
        """
        try:
            return await self._write_once(contents)
        except _TooLarge as error:
            if self._batch_bytes <= SMALLEST_BATCH_BYTES:
                raise PartitionStopped(_explain(error.place, contents[error.place])) from error
            self._batch_bytes //= 2
            raise BatchTooLarge(f"batches have at most {self._batch_bytes:,} bytes from now on") from error
        except ProducerFenced as error:
            raise Fenced(f"another writer has begun as {self.transactional_id}") from error

    async def close(self) -> None:
        """Let go of the connections. A transaction that is still open is left for the broker to abort."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await clients.stop(producer)

    async def _write_once(self, contents: Mapping[Place, list[Content]]) -> dict[Place, int]:
        producer = self._producer
        assert producer is not None, "fence first"
        await producer.begin_transaction()
        sent: list[tuple[Place, int, asyncio.Future[Any]]] = []
        patience = asyncio.get_running_loop().call_later(
            KNOCKS_SELDOM_AFTER_SECONDS, _retry_after, producer, SELDOM_BACKOFF_MS
        )
        try:
            for place, records in contents.items():
                topic, partition = place
                if crash_points.ARMED is not None and len(contents) > 1 and place == list(contents)[-1]:
                    await asyncio.gather(*(future for _, _, future in sent))  # else they are still in our own buffers
                    crash_points.reach("outputs sent")
                for batch in batches(producer, records):
                    size = batch.record_count()
                    sent.append((place, size, await producer.send_batch(batch, topic, partition=partition)))
            last = {place: await _last_offset(place, size, future) for place, size, future in sent}
            crash_points.reach("changelog sent")
            await producer.commit_transaction()
        except BaseException:
            await asyncio.shield(self._abort(producer, [future for _, _, future in sent]))
            raise
        finally:
            patience.cancel()
        _retry_after(producer, RETRY_BACKOFF_MS)
        return last

    async def _abort(self, producer: AIOKafkaProducer, sent: list[asyncio.Future[Any]]) -> None:
        """Abort, so that readers need not wait for the timeout. If that fails, too, the broker does it then."""
        with contextlib.suppress(KafkaError, TimeoutError, AssertionError):  # AssertionError: it is past aborting
            await asyncio.wait_for(producer.abort_transaction(), ABORTS_WITHIN_SECONDS)
        if sent:
            await asyncio.wait(sent, timeout=ABORTS_WITHIN_SECONDS)
        clients.hush(producer, sent)


def _retry_after(producer: AIOKafkaProducer, milliseconds: int) -> None:
    producer._sender._retry_backoff = milliseconds / 1000  # read anew for each try


def batches(producer: AIOKafkaProducer, records: Iterable[Content]) -> Iterator[Any]:
    """Yield the records in record batches as large as the producer allows (1 us a record; `send` takes 20)."""
    batch = producer.create_batch()
    for key, value, given in records:
        headers = list(given) if given else NO_HEADERS
        if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
            yield batch
            batch = producer.create_batch()
            batch.append(timestamp=None, key=key, value=value, headers=headers)
    if batch.record_count():
        batch.close()
        yield batch


async def _last_offset(place: Place, size: int, sent: "asyncio.Future[Any]") -> int:
    try:
        return int((await sent).offset) + size - 1
    except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
        raise _TooLarge(place) from error


class _TooLarge(Exception):  # noqa: N818 - says what is the case
    """The topic does not take a batch as large as this one."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.place = place


def _explain(place: Place, records: list[Content]) -> str:
    """Say which record it must have been that a topic refused: the largest that was meant for it."""
    size, key = max((_size(record), record[0] or b"") for record in records)
    name = key.decode("utf-8", "replace")
    return (
        f"a record of {size:,} bytes for {name!r} is larger than topic {place[0]} takes; raise its max.message.bytes "
        "and start the worker again"
    )


def _size(record: Content) -> int:
    key, value, headers = record
    return len(key or b"") + len(value or b"") + sum(len(name) + len(header or b"") for name, header in headers)
