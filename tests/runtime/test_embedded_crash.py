"""That a loss of power takes no confirmed event, and never half of anything, wherever it strikes."""

import asyncio
import json
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runtime.embedded import layout
from engine.runtime.embedded.host import EmbeddedHost
from engine.runtime.embedded.partition import EmbeddedPartition
from engine.runtime.host import Batch, PartitionStopped
from engine.runtime.store import MemoryStore
from schemas.records import NewRecord

PARTITIONS = 2
USERS = [b"t:ann", b"t:bob", b"t:cid", b"t:dan"]

appends = st.tuples(st.just("append"), st.lists(st.sampled_from(USERS), min_size=1, max_size=4))
folds = st.tuples(st.just("fold"), st.integers(0, PARTITIONS - 1), st.integers(1, 3))
crashes = st.tuples(st.just("crash"), st.integers(0, 5))
steps = st.lists(st.one_of(appends, folds, folds, st.just(("sync",)), st.just(("write",)), crashes), max_size=40)


@settings(max_examples=150, deadline=None)
@given(steps=steps)
def test_what_is_confirmed_survives_and_what_is_not_is_whole_or_gone(steps: list[tuple[object, ...]]) -> None:
    asyncio.run(Machine().run(steps))


class Machine:
    """A host on a store that loses the unsynced, driven step by step."""

    def __init__(self) -> None:
        self.store = MemoryStore(layout.FAMILIES)
        self.appended: list[tuple[int, bytes, str]] = []  # which append, user, event: in order
        self.appends = 0
        self.confirmed: set[str] = set()

    async def run(self, steps: list[tuple[object, ...]]) -> None:
        self.open()
        for name, *arguments in steps:
            await getattr(self, f"{name}")(*arguments)
        await self.crash(0)
        for number in range(PARTITIONS):
            await self.fold(number, 1000)
        self.check()
        await self.host.close()

    def open(self) -> None:
        self.host = EmbeddedHost(self.store, partitions=PARTITIONS)
        self.partitions: list[EmbeddedPartition] = [self.host.partition("events", n) for n in range(PARTITIONS)]
        self.store.sync()  # so that what survives a crash by chance is of the steps

    async def append(self, users: list[bytes]) -> None:
        records = []
        for user in users:
            id = f"{len(self.appended)}"
            self.appended.append((self.appends, user, id))
            records.append(NewRecord("events", user, json.dumps({"id": id}).encode()))
        self.appends += 1
        self.host.log.stage(records)  # what `append` does before it waits

    async def fold(self, number: int, limit: int) -> None:
        """Count each user's events, and tell the journal and a channel of each."""
        partition = self.partitions[number]
        records = await partition.poll(limit, 0)
        if not records:
            return
        batch = Batch(records[-1].offset)
        for record in records:
            assert record.key is not None
            raw = batch.states.get(record.key) or partition.store.get(record.key)
            count = int(raw or b"0") + 1
            batch.states[record.key] = b"%d" % count
            told = f"{count} {json.loads(record.value or b'')['id']}".encode()
            batch.outputs += [NewRecord(topic, record.key, told) for topic in ("journal", "messages.email")]
        await partition.commit(batch)

    async def write(self) -> None:
        self.host.log.write()

    async def sync(self) -> None:
        await self.host.log.durable()
        self.confirmed = {id for _, _, id in self.appended}

    async def crash(self, surviving_writes: int) -> None:
        """Lose what isn't synced, but for the oldest writes; what is lost was never confirmed."""
        self.store = self.store.crash(surviving_writes)
        self.host.log.fail(PartitionStopped("crashed by the test"))
        await self.host.close()
        self.open()
        found = {json.loads(r.value or b"")["id"] for user in USERS for r in self.host.log.read("events", user)}
        assert self.confirmed <= found
        self.appended = [each for each in self.appended if each[2] in found]

    def check(self) -> None:
        """Every event that is in the log was counted once, and told once in each topic, in order."""
        by_user: dict[bytes, list[str]] = defaultdict(list)
        for _, user, id in self.appended:
            by_user[user].append(id)
        for user, ids in by_user.items():
            expected = [f"{count} {id}" for count, id in enumerate(ids, 1)]
            for topic in ("journal", "messages.email"):
                told = [(r.value or b"").decode() for r in self.host.log.read(topic, user) if r.key == user]
                assert told == expected
            number = layout.partition_of(user, PARTITIONS)
            assert self.partitions[number].store.get(user) == b"%d" % len(ids)


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.lists(st.sampled_from(USERS), min_size=1, max_size=4), min_size=1, max_size=6),
    writes=st.lists(st.booleans(), min_size=6, max_size=6),
    surviving=st.integers(0, 6),
)
def test_what_is_appended_in_one_go_survives_whole_or_not_at_all(
    batches: list[list[bytes]], writes: list[bool], surviving: int
) -> None:
    asyncio.run(_append_and_crash(batches, writes, surviving))


async def _append_and_crash(batches: list[list[bytes]], writes: list[bool], surviving: int) -> None:
    machine = Machine()
    machine.open()
    for users, write in zip(batches, writes, strict=False):
        await machine.append(users)
        if write:
            await machine.write()
    sizes = [len(users) for users in batches]
    await machine.crash(surviving)
    found = [append for append, _, _ in machine.appended]

    assert found == [append for append in range(len(set(found))) for _ in range(sizes[append])]
    await machine.host.close()
