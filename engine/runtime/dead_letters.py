"""Where a record goes that can't be folded, and what is written beside it.

`events.invalid` takes what its sender has to mend; `dead-letters` takes what made the fold itself fail: our bug. Both keep
key and value as they came, and say in headers where the record was and why it is here: ours (`dlq-*`) and those that
Spring's tools read (`kafka_dlt-original-*`, numbers big-endian).
"""

from schemas.records import Headers, NewRecord, Record

INVALID = "events.invalid"
DEAD_LETTERS = "dead-letters"
MAX_REASON = 500  # characters
MAX_VALUE = 900_000  # bytes: what a broker takes in one record unless told otherwise


def park(topic: str, record: Record, reason: str, source: str, partition: int) -> NewRecord:
    """Return the record for one of the two topics. A value beyond the size of a record is cut, and says so."""
    value = record.value
    headers = [
        *kept(record.headers),
        ("dlq-reason", reason[:MAX_REASON].encode("utf-8", "replace")),
        ("dlq-topic", source.encode()),
        ("dlq-partition", str(partition).encode()),
        ("dlq-offset", str(record.offset).encode()),
        ("dlq-timestamp", str(record.timestamp).encode()),
        ("kafka_dlt-original-topic", source.encode()),
        ("kafka_dlt-original-partition", partition.to_bytes(4, "big")),
        ("kafka_dlt-original-offset", record.offset.to_bytes(8, "big", signed=True)),
        ("kafka_dlt-original-timestamp", record.timestamp.to_bytes(8, "big", signed=True)),
        ("kafka_dlt-exception-message", reason[:MAX_REASON].encode("utf-8", "replace")),
    ]
    if value is not None and len(value) > MAX_VALUE:
        headers.append(("dlq-cut-from-bytes", str(len(value)).encode()))
        value = value[:MAX_VALUE]
    return NewRecord(topic, record.key, value if value is not None else b"", tuple(headers))


def kept(headers: Headers) -> Headers:
    """Return the headers a record had itself, without those of an earlier stay here."""
    return tuple(header for header in headers if not header[0].startswith(("dlq-", "kafka_dlt-")))
