"""The limit: the benchmark's journey written by hand into a loop of aiokafka and RocksDB, without any framework.

The same events, duplicates dropped, a state per user in RocksDB and its changelog, commands, one transaction per batch and
partition, the source offset in it. What it leaves out is what makes an engine: definitions, timers, the journal, dead
letters, metrics, several journeys. `python -m benchmarks.bare_loop --help`.
"""

import argparse
import asyncio
import json
import resource
import time
from pathlib import Path

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord
from msgspec import Struct
from rocksdict import Options, Rdict, WriteBatch
from xxhash import xxh64_digest

from schemas.inputs import Event

SOURCE = b"\0source"


class User(Struct, array_like=True):
    """What the hand-written journey needs to know."""

    profile: dict[str, object] = {}
    waiting_since: int = 0
    seen: bytes = b""
    runs: int = 0


class Command(Struct):
    """Asks for one message."""

    id: str
    user: str
    template: str
    profile: dict[str, object]


_event = msgspec.json.Decoder(Event).decode
_user = msgspec.msgpack.Decoder(User).decode
_pack = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder().encode


class Partition:
    """One partition's store and transactional producer."""

    def __init__(self, number: int, data: Path, bootstrap: str, app: str, changelog: str, commands: str) -> None:
        self.number, self.changelog, self.commands = number, changelog, commands
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        self.db = Rdict(str(data / str(number)), options)
        self.producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, transactional_id=f"{app}-{number}", acks="all", retry_backoff_ms=10
        )

    def fold(self, records: list[ConsumerRecord]) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
        users: dict[bytes, User] = {}
        commands: list[tuple[bytes, bytes]] = []
        for record in records:
            if record.key is None:  # an activation: this loop knows its one journey
                continue
            event, key = _event(record.value), record.key
            user = users.get(key)
            if user is None:
                raw = self.db.get(key)
                user = users[key] = User() if raw is None else _user(raw)
            digest = xxh64_digest(event.id.encode())
            if digest in user.seen:
                continue
            user.seen = (user.seen + digest)[-64 * 8 :]
            if event.profile:
                user.profile = {**user.profile, **event.profile}
            now = record.timestamp
            if user.waiting_since and now - user.waiting_since > 1_800_000:
                user.waiting_since = 0
            if event.name == "order" and user.waiting_since:
                user.waiting_since, profile = 0, user.profile
                if profile.get("tier") == "gold" and profile.get("country") in ("DE", "FR"):
                    commands.append((key, _json(Command(f"{user.runs}:1", key.decode(), "thanks_gold", profile))))
                elif "tier" in profile:
                    commands.append((key, _json(Command(f"{user.runs}:1", key.decode(), "thanks", profile))))
            elif event.name == "cart" and not user.waiting_since:
                user.waiting_since = now
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

    async def _send(self, topic: str, pairs: list[tuple[bytes, bytes]]):  # type: ignore[no-untyped-def]
        batch = self.producer.create_batch()
        for key, value in pairs:
            if batch.append(key=key, value=value, timestamp=None) is None:
                batch.close()
                await (await self.producer.send_batch(batch, topic, partition=self.number))
                batch = self.producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        batch.close()
        return await self.producer.send_batch(batch, topic, partition=self.number)


async def run(arguments: argparse.Namespace) -> dict[str, float]:
    """Fold everything that is in the topic now; return what it took."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=arguments.bootstrap, isolation_level="read_committed", enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 << 20,
    )  # fmt: skip
    await consumer.start()
    topics = [TopicPartition(arguments.topic, number) for number in range(arguments.partitions)]
    consumer.assign(topics)
    ends = await consumer.end_offsets(topics)
    await consumer.seek_to_beginning(*topics)
    parts = {
        topic.partition: Partition(
            topic.partition, arguments.data, arguments.bootstrap, arguments.app, arguments.changelog, arguments.commands
        )
        for topic in topics
    }
    await asyncio.gather(*(part.producer.start() for part in parts.values()))
    count = 0
    began, cpu = time.perf_counter(), time.process_time()

    async def work(topic: TopicPartition) -> None:
        nonlocal count
        while await consumer.position(topic) < ends[topic]:
            for records in (await consumer.getmany(topic, timeout_ms=500, max_records=arguments.poll)).values():
                count += len(records)
                await parts[topic.partition].take(records)

    await asyncio.gather(*(work(topic) for topic in topics))
    wall, spent = time.perf_counter() - began, time.process_time() - cpu
    for part in parts.values():
        await part.producer.stop()
        part.db.close()
    await consumer.stop()
    return {
        "events": count,
        "cpu_us_per_event": spent * 1e6 / count,
        "wall_us_per_event": wall * 1e6 / count,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bootstrap", "topic", "changelog", "commands", "app"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--poll", type=int, default=1000, help="records per batch at the most")
    uvloop.install()
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
