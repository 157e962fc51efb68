"""What the log forgets: records older than the retention, unless their reader has not folded them yet."""

from collections.abc import Iterator

from engine.runtime.embedded import layout
from engine.runtime.embedded.log import EmbeddedLog
from engine.runtime.store import KeyValueStore, after_prefix


def forget(log: EmbeddedLog, store: KeyValueStore, before_at: int) -> None:
    """Delete the groups whose last record is older than `before_at`.

    The last group of a partition always stays: it says which offset and which timestamp come next.
    """
    for topic, number in partitions(store):
        partition = log.partition(topic, number)
        prefix = layout.partition_prefix(topic, number)
        keep_from = _first_since(store, prefix, before_at, partition.end)
        if topic == "events" or partition.has_reader or partition.position >= 0:
            keep_from = min(keep_from, partition.position + 1)
        store.delete_range(layout.LOG, prefix, layout.group_key(prefix, keep_from))


def partitions(store: KeyValueStore) -> Iterator[tuple[str, int]]:
    """Yield the partitions that hold records."""
    start: bytes | None = b""
    while start is not None:
        key = next((key for key, _ in store.scan(layout.LOG, start)), None)
        if key is None:
            return
        prefix = key[:-8]
        yield prefix[:-3].decode(), int.from_bytes(prefix[-2:])
        start = after_prefix(prefix)


def _first_since(store: KeyValueStore, prefix: bytes, at: int, end: int) -> int:
    """Return the last offset of the first group that ends at `at` or later, or of the last group; by bisection, since
    timestamps never go back."""
    low, high = 0, end - 1
    while low < high:
        middle = (low + high) // 2
        key, group = next(store.scan(layout.LOG, layout.group_key(prefix, middle), after_prefix(prefix)))
        if layout.last_timestamp(group) < at:
            low = layout.last_offset(key) + 1
        else:
            high = middle
    return min(low, end - 1)
