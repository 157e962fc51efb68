"""Where a record goes that can't be folded, and what is written beside it.

`events.invalid` takes what its sender has to mend; `dead-letters` takes what made the fold itself fail: our bug. Both keep
key and value as they came, and say in headers where the record was and why it is here: ours (`dlq-*`) and those that
Spring's tools read (`kafka_dlt-original-*`, numbers big-endian).
"""

from itertools import accumulate

from schemas.records import Headers, NewRecord, Record

INVALID = "events.invalid"
DEAD_LETTERS = "dead-letters"
MAX_REASON = 500  # characters
# Bytes. In all less than the 1 MB a broker takes in one record unless told otherwise: what came as large as it could
# has grown by our headers, and a record that can't be parked would stop its partition.
MAX_VALUE, MAX_KEY, MAX_HEADERS = 900_000, 4096, 32_768


def park(topic: str, record: Record, reason: str, source: str, partition: int) -> NewRecord:
    """Return the record for one of the two topics. What is too large to be parked is cut, and headers say so."""
    key, value = record.key, record.value
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
    if key is not None and len(key) > MAX_KEY:
        headers.append(("dlq-key-cut-from-bytes", str(len(key)).encode()))
        key = key[:MAX_KEY]
    return NewRecord(topic, key, value if value is not None else b"", tuple(headers))


def kept(headers: Headers) -> Headers:
    """Return the headers a record had itself, without those of an earlier stay here; the first ones if they are many."""
    own = [header for header in headers if not header[0].startswith(("dlq-", "kafka_dlt-"))]
    sizes = accumulate(len(name.encode("utf-8", "replace")) + len(value or b"") for name, value in own)
    return tuple(header for header, size in zip(own, sizes, strict=True) if size <= MAX_HEADERS)
