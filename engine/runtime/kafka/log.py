"""Where anybody may append records on Kafka, and how one partition is read again from its beginning."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from engine.runtime.host import Unavailable
from engine.runtime.kafka import clients
from engine.runtime.kafka.appender import Appender
from engine.runtime.kafka.partitioner import partition_of
from engine.runtime.kafka.topics import TopicError, changelog_name, topic_name
from engine.runtime.kafka.transactions import BatchTooLarge, Content, Place, TransactionalWriter
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka
from schemas.records import NewRecord, Record

READ_AT_ONCE = 2000
STALLED_AFTER_SECONDS = 30.0

Progress = Callable[[int, int], None]  # records read so far, records to read


class KafkaLog:
    """See `engine.runtime.host.Log`. `progress` is told how far a `read` has come."""

    def __init__(self, settings: Kafka, metrics: Metrics | None = None, progress: Progress | None = None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._progress = progress
        self._appender = Appender(settings)

    async def start(self) -> None:
        """Connect, for `append`. Raises Unavailable if no broker answers."""
        try:
            await self._appender.start()
        except (KafkaError, OSError) as error:
            raise Unavailable(f"no Kafka broker answers at {self._settings.bootstrap}: {error}") from error

    async def stop(self) -> None:
        await self._appender.close()

    async def append(self, records: Sequence[NewRecord]) -> None:
        began = time.perf_counter()
        await self._appender.append([(self._place(record), _content(record)) for record in records])
        if self._metrics is not None:
            self._metrics.log_append_seconds.observe(time.perf_counter() - began)
            for topic in {record.topic for record in records}:
                count = sum(record.topic == topic for record in records)
                self._metrics.log_records_appended.labels(topic).inc(count)

    def waits_for(self) -> list[str]:
        """Return why nothing can be appended at the moment, in words; nothing if all is well."""
        return self._appender.waits_for()

    async def append_atomically(self, records: Sequence[NewRecord]) -> None:
        contents: dict[Place, list[Content]] = {}
        for record in records:
            contents.setdefault(self._place(record), []).append(_content(record))
        writer = TransactionalWriter(self._settings, f"{self._settings.app}-publisher")
        try:
            await _write(writer, contents)
        except (KafkaError, OSError) as error:
            raise Unavailable(f"the broker at {self._settings.bootstrap} did not take it: {error!r}") from error
        finally:
            await writer.close()

    def partitions(self, topic: str) -> int:
        return self._settings.partitions  # all have the same, see topics.py

    def read(self, topic: str, key: bytes) -> Iterator[Record]:
        """Yield the records of the key's partition. Raises TopicError if the topic cannot be read."""
        return self.read_partition(topic, partition_of(key, self._settings.partitions))

    def read_partition(self, topic: str, number: int, since_at: int | None = None) -> Iterator[Record]:
        """Yield the records of a partition, those appended since a time (ms) if one is given, through its present end."""
        return self._read(TopicPartition(topic_name(self._settings, topic), number), since_at)

    def read_changelog(self, number: int) -> Iterator[Record]:
        """Yield the records of a partition of the users' changelog: the last of a key is its state, or its end."""
        return self._read(TopicPartition(changelog_name(self._settings, "users"), number))

    def _read(self, source: TopicPartition, since_at: int | None = None) -> Iterator[Record]:
        # The reading is done in a thread of its own: an event loop may be running in the caller's.
        with ThreadPoolExecutor(1, "read-log") as thread:
            reading = _Reading(self._settings, source, since_at)
            try:
                begin, end = thread.submit(reading.open).result()
                position, moved_at = begin, time.monotonic()
                while position < end:
                    records, position = thread.submit(reading.next).result()
                    if records:
                        moved_at = time.monotonic()
                    elif time.monotonic() - moved_at > STALLED_AFTER_SECONDS:
                        raise TopicError(f"{source.topic}-{source.partition} gives no records at offset {position}")
                    yield from (record for record in records if record.offset < end)
                    if self._progress is not None:
                        self._progress(min(position, end) - begin, end - begin)
            except (KafkaError, OSError) as error:
                raise TopicError(f"topic {source.topic} cannot be read: {error}") from error
            finally:
                thread.submit(reading.close).result()

    def _place(self, record: NewRecord) -> Place:
        number = record.partition
        if number is None:
            number = partition_of(record.key or b"", self._settings.partitions)
        return topic_name(self._settings, record.topic), number


async def _write(writer: TransactionalWriter, contents: Mapping[Place, list[Content]]) -> None:
    while True:
        await writer.fence()
        try:
            await writer.write(contents)
        except BatchTooLarge:  # it halves the batches each time, and ends by itself
            continue
        return


def _content(record: NewRecord) -> Content:
    return record.key, record.value, record.headers


class _Reading:
    """One partition being read, with an event loop of its own. All calls must come from one thread."""

    def __init__(self, settings: Kafka, source: TopicPartition, since_at: int | None) -> None:
        self._settings = settings
        self._source = source
        self._since_at = since_at
        self._runner = asyncio.Runner()
        self._consumer: AIOKafkaConsumer | None = None

    def open(self) -> tuple[int, int]:
        """Connect, and return where the partition begins and ends now."""
        return self._runner.run(self._open())

    def next(self) -> tuple[list[Record], int]:
        """Return some records, and the offset of the next one."""
        return self._runner.run(self._next())

    def close(self) -> None:
        if self._consumer is not None:
            self._runner.run(self._consumer.stop())
        self._runner.close()

    async def _open(self) -> tuple[int, int]:
        consumer = self._consumer = clients.reader(self._settings)
        await consumer.start()
        consumer.assign([self._source])
        begin = (await consumer.beginning_offsets([self._source]))[self._source]
        end = (await consumer.end_offsets([self._source]))[self._source]
        if self._since_at is not None:
            found = (await consumer.offsets_for_times({self._source: self._since_at}))[self._source]
            begin = end if found is None else found.offset
        consumer.seek(self._source, begin)
        return begin, end

    async def _next(self) -> tuple[list[Record], int]:
        assert self._consumer is not None
        fetched = await self._consumer.getmany(self._source, timeout_ms=200, max_records=READ_AT_ONCE)
        return fetched.get(self._source, []), await self._consumer.position(self._source)
