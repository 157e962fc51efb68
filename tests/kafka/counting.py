"""The work the scenarios do: count each user's events, and send a message for every third.

What must come of a list of events is computed here from the list alone (`expected`), never from what the host wrote.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence

from engine.runtime.host import Batch, PartitionHost
from schemas.records import NewRecord, Record

EVERY = 3
POLL_RECORDS = 500


async def count_events(host: PartitionHost) -> None:
    """The loop. Its messages carry a header that tells this tenure of the partition from all others."""
    tenure = uuid.uuid4().bytes
    while True:
        records = await host.poll(POLL_RECORDS, 1.0)
        if records:
            await host.commit(fold(host, records, tenure))


def fold(host: PartitionHost, records: Sequence[Record], tenure: bytes = b"") -> Batch:
    """A record in the wrong partition is forwarded to the right one, as the fold of the users does."""
    batch = Batch(through=records[-1].offset)
    for record in records:
        key = record.key
        assert key is not None
        right = host.partition_for(key)
        if right != host.number:
            batch.outputs.append(NewRecord("events", key, record.value, record.headers, right))
            continue
        raw = batch.states.get(key) or host.store.get(key)
        count = int(raw or b"0") + 1
        batch.states[key] = b"%d" % count
        if count % EVERY == 0:
            batch.outputs.append(NewRecord("messages.email", key, b"%d" % count, (("tenure", tenure),), host.number))
    return batch


def expected(keys: Iterable[bytes]) -> tuple[dict[bytes, int], Counter[tuple[bytes, bytes]]]:
    """What one event for each of `keys` must come to: how many each user has, and which messages were sent (once)."""
    counts = Counter(keys)
    messages = Counter(
        (key, b"%d" % number) for key, count in counts.items() for number in range(EVERY, count + 1, EVERY)
    )
    return dict(counts), messages
