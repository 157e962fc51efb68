"""The limit: the work written by hand into a loop of aiokafka and RocksDB, without any framework.

One transaction for each batch of a partition, with the commands, the changed states and the source offset in it; then one
write to the store. What makes it an engine is left out: definitions, timers of users who aren't heard from, journal, dead
letters, metrics, rebalancing, recovery. `python -m benchmarks.contenders.bare --help`.
"""

import argparse
import asyncio
import contextlib
import signal
from typing import Any

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord
from msgspec import Struct
from rocksdict import Options, Rdict, WriteBatch
from xxhash import xxh64_digest

from benchmarks.contenders.peer import parser_for

SOURCE = b"\0source"
TIMEOUT, REENTRY, REMEMBERED = 30 * 60_000, 24 * 3_600_000, 32
POLL = 1000
# Under little load a transaction for each record keeps the broker busier than the loop: records gather for so long.
SHORT, PAUSE_SECONDS = 50, 0.02


class Event(Struct):
    """What the steps read of an event; the decoder skips the rest."""

    id: str
    name: str
    profile: dict[str, str] = {}


class User(Struct, array_like=True):
    """What the hand-written journey needs to know."""

    profile: dict[str, str] = {}
    seen: bytes = b""
    waiting_since: int = 0
    entered_at: int = 0
    runs: int = 0


class Command(Struct):
    """Asks for one message."""

    id: str
    tenant: str
    user: str
    template: str
    requested_at: int
    profile: dict[str, str]


_event = msgspec.json.Decoder(Event).decode
_user = msgspec.msgpack.Decoder(User).decode
_pack = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder().encode


class Partition:
    """One partition's store and transactional producer."""

    def __init__(self, number: int, given: argparse.Namespace) -> None:
        self.number, self.changelog, self.commands = number, f"{given.app}-changelog", given.commands
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        self.db = Rdict(str(given.data / str(number)), options)
        self.producer = AIOKafkaProducer(
            bootstrap_servers=given.bootstrap, transactional_id=f"{given.app}-{number}", acks="all", retry_backoff_ms=10
        )

    def fold(self, records: list[ConsumerRecord]) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
        users: dict[bytes, User] = {}
        commands: list[tuple[bytes, bytes]] = []
        for record in records:
            event, key, now = _event(record.value), record.key, record.timestamp
            user = users.get(key)
            if user is None:
                raw = self.db.get(key)
                user = users[key] = User() if raw is None else _user(raw)
            digest = xxh64_digest(event.id.encode())
            if _is_in(digest, user.seen):
                continue
            user.seen = (user.seen + digest)[-REMEMBERED * 8 :]
            if event.profile:
                user.profile = {**user.profile, **event.profile}
            if user.waiting_since and now >= user.waiting_since + TIMEOUT:
                user.waiting_since = 0
            if event.name == "order" and user.waiting_since:
                user.waiting_since, profile = 0, user.profile
                if "tier" in profile:
                    gold = profile["tier"] == "gold" and profile.get("country") in ("DE", "FR")
                    tenant, _, name = key.decode().partition(":")
                    template = "thanks_gold" if gold else "thanks"
                    command = Command(f"{tenant}:{name}:{user.runs}", tenant, name, template, now, profile)
                    commands.append((key, _json(command)))
            elif (
                event.name == "cart"
                and not user.waiting_since
                and (not user.entered_at or now >= user.entered_at + REENTRY)
            ):
                user.waiting_since = user.entered_at = now
                user.runs += 1
        states = {key: _pack(user) for key, user in users.items()}
        states[SOURCE] = b"%d" % records[-1].offset
        return states, commands

    async def take(self, records: list[ConsumerRecord]) -> None:
        states, commands = self.fold(records)
        producer = self.producer
        await producer.begin_transaction()
        sent = [await self._send(self.commands, commands)] if commands else []
        sent.append(await self._send(self.changelog, list(states.items())))
        for future in sent:
            await future
        await producer.commit_transaction()
        batch = WriteBatch(raw_mode=True)
        for key, state in states.items():
            batch.put(key, state)
        self.db.write(batch)

    async def _send(self, topic: str, pairs: list[tuple[bytes, bytes]]) -> Any:
        batch = self.producer.create_batch()
        for key, value in pairs:
            if batch.append(key=key, value=value, timestamp=None) is None:
                batch.close()
                await (await self.producer.send_batch(batch, topic, partition=self.number))
                batch = self.producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        batch.close()
        return await self.producer.send_batch(batch, topic, partition=self.number)


def _is_in(digest: bytes, seen: bytes) -> bool:
    at = seen.find(digest)
    while at > 0 and at % 8:  # across two of them
        at = seen.find(digest, at + 1)
    return at >= 0


async def run(given: argparse.Namespace) -> None:
    """Fold what comes until SIGTERM."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=given.bootstrap, isolation_level="read_committed", enable_auto_commit=False,
        auto_offset_reset="earliest", max_partition_fetch_bytes=4 << 20,
    )  # fmt: skip
    await consumer.start()
    topics = [TopicPartition(given.topic, number) for number in range(given.partitions)]
    consumer.assign(topics)
    parts = {topic.partition: Partition(topic.partition, given) for topic in topics}
    await asyncio.gather(*(part.producer.start() for part in parts.values()))
    count = 0

    async def work(topic: TopicPartition) -> None:
        nonlocal count
        while True:
            for records in (await consumer.getmany(topic, timeout_ms=500, max_records=POLL)).values():
                await parts[topic.partition].take(records)
                count += len(records)
                if len(records) < SHORT:
                    await asyncio.sleep(PAUSE_SECONDS)

    async def tell() -> None:
        while True:
            print(count, flush=True)
            await asyncio.sleep(0.2)

    working = asyncio.gather(tell(), *(work(topic) for topic in topics))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await working
    for part in parts.values():
        await part.producer.stop()
        part.db.close()
    await consumer.stop()


def main() -> None:
    uvloop.run(run(parser_for(__doc__).parse_args()))


if __name__ == "__main__":
    main()
