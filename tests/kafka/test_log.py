"""What is appended to Kafka is durable and in order when the call returns; what cannot be is said."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from engine.errors import InvalidInput
from engine.runtime.host import Fenced, Overloaded, Unavailable
from engine.runtime.kafka import appender, topics
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.kafka.partitioner import partition_of
from engine.runtime.kafka.tables import KafkaSuppressions
from engine.runtime.kafka.transactions import Content, TransactionalWriter
from engine.runtime.settings import Kafka
from schemas.records import NewRecord
from tests.kafka.cluster import read_topic

pytestmark = pytest.mark.kafka


@pytest.fixture
async def log(kafka_settings: Kafka) -> AsyncIterator[KafkaLog]:
    await topics.create(kafka_settings)
    log = KafkaLog(kafka_settings)
    await log.start()
    yield log
    await log.stop()


async def test_many_appends_at_once_keep_their_order_in_each_partition(kafka_settings: Kafka, log: KafkaLog) -> None:
    async def append(writer: int) -> None:
        for number in range(20):
            key = b"t:user-%d" % (number % 5)
            await log.append([NewRecord("events", key, b"%d/%d/%d" % (writer, number, part)) for part in range(3)])

    await asyncio.gather(*(append(writer) for writer in range(20)))
    records = await read_topic(kafka_settings, f"{kafka_settings.prefix}.events")
    assert len(records) == 20 * 20 * 3
    for writer in range(20):
        for user in range(5):
            written = [
                record.value
                for record in records
                if record.key == b"t:user-%d" % user and record.value.startswith(b"%d/" % writer)
            ]
            assert written == [
                b"%d/%d/%d" % (writer, number, part) for number in range(user, 20, 5) for part in range(3)
            ]


async def test_a_record_goes_where_its_key_belongs_or_where_it_is_sent(kafka_settings: Kafka, log: KafkaLog) -> None:
    await log.append([NewRecord("events", b"t:ann", b"1", (("tenant", b"t"),)), NewRecord("events", None, b"2", (), 3)])
    keyed, sent = sorted(await read_topic(kafka_settings, f"{kafka_settings.prefix}.events"), key=lambda r: r.value)
    assert keyed.partition == partition_of(b"t:ann", kafka_settings.partitions)
    assert keyed.headers == (("tenant", b"t"),)
    assert (sent.partition, sent.key) == (3, None)


async def test_a_record_that_is_too_large_is_its_senders_fault_and_spares_its_neighbours(
    kafka_settings: Kafka, log: KafkaLog
) -> None:
    good = [log.append([NewRecord("events", b"t:ann", b"%d" % number)]) for number in range(50)]
    giant = log.append([NewRecord("events", b"t:ann", Random(1).randbytes(2_000_000))])
    more = [log.append([NewRecord("events", b"t:ann", b"%d" % number)]) for number in range(50, 100)]
    results = await asyncio.gather(*good, giant, *more, return_exceptions=True)
    assert [result for result in results if result is not None] == [results[50]]
    assert isinstance(results[50], InvalidInput)
    records = await read_topic(kafka_settings, f"{kafka_settings.prefix}.events")
    assert [record.value for record in records] == [b"%d" % number for number in range(100)]


async def test_what_one_append_has_for_a_partition_stays_in_order_over_several_batches(
    kafka_settings: Kafka, log: KafkaLog
) -> None:
    values = [b"%d" % number + b"." * 1000 for number in range(3000)]
    later = [b"later %d" % number for number in range(10)]
    await asyncio.gather(
        log.append([NewRecord("events", b"t:ann", value) for value in values]),
        log.append([NewRecord("events", b"t:ann", value) for value in later]),
    )
    records = await read_topic(kafka_settings, f"{kafka_settings.prefix}.events")
    assert [record.value for record in records] == values + later
    assert log._appender.in_flight_bytes == 0


async def test_one_record_of_an_append_that_is_too_large_does_not_keep_the_others_of_it_from_being_appended(
    kafka_settings: Kafka, log: KafkaLog
) -> None:
    values = [b"%d" % number for number in range(100)]
    values[50] = Random(1).randbytes(2_000_000)
    with pytest.raises(InvalidInput, match=r"a record of 2,000,0\d\d bytes is larger than"):
        await log.append([NewRecord("events", b"t:ann", value) for value in values])
    await log.append([NewRecord("events", b"t:ann", b"last")])
    records = await read_topic(kafka_settings, f"{kafka_settings.prefix}.events")
    assert [record.value for record in records] == [*values[:50], *values[51:], b"last"]
    assert log._appender.in_flight_bytes == 0


async def test_what_is_too_much_is_refused_and_taken_a_moment_later(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "IN_FLIGHT_BYTES", 10_000)
    appends = [log.append([NewRecord("events", b"t:ann", b"x" * 1000)]) for _ in range(50)]
    results = await asyncio.gather(*appends, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Overloaded)]
    assert 0 < len(refused) < 50
    assert log._appender.in_flight_bytes == 0
    await log.append([NewRecord("events", b"t:ann", b"x" * 1000)])


async def test_without_a_broker_the_log_is_unavailable() -> None:
    log = KafkaLog(Kafka(bootstrap="127.0.0.1:9"))
    with pytest.raises(Unavailable, match=r"no Kafka broker answers at 127\.0\.0\.1:9"):
        await log.start()
    with pytest.raises(Unavailable):
        await log.append_atomically([NewRecord("definitions", b"k", b"v")])
    await log.stop()


async def test_a_log_that_was_stopped_takes_nothing(log: KafkaLog) -> None:
    await log.stop()
    with pytest.raises(Unavailable, match="stopping"):
        await log.append([NewRecord("events", b"t:ann", b"1")])


async def test_an_atomic_append_that_fails_leaves_nothing_behind(kafka_settings: Kafka, log: KafkaLog) -> None:
    records = [
        NewRecord("definitions", b"t/journey/j@1", b"body"),
        NewRecord("events", None, Random(1).randbytes(2_000_000), (), 0),
    ]
    with pytest.raises(Exception, match="larger than topic"):
        await log.append_atomically(records)
    for topic in ("definitions", "events"):
        assert await read_topic(kafka_settings, f"{kafka_settings.prefix}.{topic}") == []


async def test_a_suppression_behind_an_open_transaction_is_waited_for(kafka_settings: Kafka, log: KafkaLog) -> None:
    """Whoever asks must not be told "none" because somebody else's write holds back what came after it."""
    suppressions = KafkaSuppressions(kafka_settings)
    await suppressions.start()
    writer = TransactionalWriter(kafka_settings, f"{kafka_settings.app}-somebody")
    await writer.fence()
    try:
        key = b"t:email:all:ann@example.com"
        assert writer._producer is not None
        await writer._producer.begin_transaction()
        topic, number = f"{kafka_settings.prefix}.suppressions", partition_of(key, kafka_settings.partitions)
        await (await writer._producer.send(topic, b"{}", b"t:email:all:bob@example.com", number))
        await log.append([NewRecord("suppressions", key, b"{}")])
        suppressions._fresh_since -= 10  # as a second later
        asked = asyncio.create_task(suppressions.scope("t", "email", "ann@example.com", "news"))
        await asyncio.wait({asked}, timeout=0.5)
        assert not asked.done()
        await writer._producer.abort_transaction()
        assert await asyncio.wait_for(asked, 10) == "all"
        assert await suppressions.scope("t", "email", "bob@example.com", "news") is None
    finally:
        await writer.close()
        await suppressions.stop()


async def test_a_second_publisher_fences_the_first(kafka_settings: Kafka, log: KafkaLog) -> None:
    first, second = (TransactionalWriter(kafka_settings, f"{kafka_settings.app}-publisher") for _ in range(2))
    place = (f"{kafka_settings.prefix}.definitions", 0)
    try:
        await first.fence()
        await first.write({place: [(b"k", b"first", ())]})
        await second.fence()
        with pytest.raises(Fenced, match="another writer has begun as"):
            await first.write({place: [(b"k", b"too late", ())]})
        await second.write({place: [(b"k", b"second", ())]})
    finally:
        await first.close()
        await second.close()
    records = await read_topic(kafka_settings, place[0])
    assert [record.value for record in records] == [b"first", b"second"]


@pytest.mark.parametrize("compression", ["none", "snappy", "lz4", "zstd", "gzip"])
async def test_what_is_written_is_read_again_however_it_was_compressed(
    kafka_settings: Kafka, log: KafkaLog, compression: str
) -> None:
    settings = kafka_settings.model_copy(update={"compression": compression})
    writer = TransactionalWriter(settings, f"{settings.app}-{compression}")
    contents: list[Content] = [
        (b"k%d" % number, b"the same again and again " * 40, (("tenant", b"t"),)) for number in range(50)
    ]
    topic = f"{settings.prefix}.journal"
    try:
        await writer.fence()
        await writer.write({(topic, 0): contents})
    finally:
        await writer.close()
    found = await read_topic(kafka_settings, topic)
    assert [(record.key, record.value, tuple(record.headers)) for record in found] == contents
