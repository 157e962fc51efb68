"""How long it takes from an event to its command, under a load that doesn't wait for anybody.

The load is open: each event is due at a fixed instant, whatever became of those before it, and latency counts from that
instant to when the command can be read by who reads committed records only. So a stall is not hidden by a sender that
stalls along. That the sender itself was late is part of the figure; how late is kept beside it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from benchmarks.contenders import cluster, ours, run
from benchmarks.contenders.entrants import Contender, Place
from benchmarks.contenders.expected import Fold
from benchmarks.contenders.work import events
from benchmarks.figures import cpu_seconds, quantile
from engine.runtime.kafka.partitioner import partition_of

TICK_SECONDS = 0.005
READY_WITHIN_SECONDS, DONE_WITHIN_SECONDS = 60.0, 30.0
HOUR_MS = 3_600_000
STAMPED = {"message.timestamp.type": "LogAppendTime"}


@dataclass(frozen=True, slots=True)
class Load:
    """So many events a second, for some seconds that don't count and then for some that do."""

    rate: float
    warming_seconds: float
    seconds: float


class _Sender:
    """Sends each event when it is due: one batch under way for each partition, so that their order is kept."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partitions: int) -> None:
        self.due: dict[bytes, float] = {}  # when each id was first to be sent, as time.time()
        self.late: list[float] = []
        self._producer, self._topic = producer, topic
        self._waiting: list[list[tuple[bytes, bytes]]] = [[] for _ in range(partitions)]
        self._under_way: list[asyncio.Future[Any] | None] = [None] * partitions

    async def send(self, given: Sequence[tuple[int, bytes, bytes, bytes]], rate: float) -> None:
        """Send (partition, key, value, id) so many a second, and return when all are acknowledged."""
        began, sent = time.time(), 0
        while sent < len(given) or any(self._waiting):
            now = time.time()
            until = min(len(given), int((now - began) * rate) + 1)
            for index in range(sent, until):
                partition, key, value, id = given[index]
                self._waiting[partition].append((key, value))
                due = began + index / rate
                self.due.setdefault(id, due)
                self.late.append(now - due)
            sent = until
            for partition, waiting in enumerate(self._waiting):
                under_way = self._under_way[partition]
                if waiting and (under_way is None or under_way.done()):
                    self._under_way[partition] = await self._batch(partition, waiting)
            await asyncio.sleep(max(0.0, TICK_SECONDS - (time.time() - now)))
        await asyncio.gather(*(each for each in self._under_way if each is not None))

    async def _batch(self, partition: int, waiting: list[tuple[bytes, bytes]]) -> "asyncio.Future[Any]":
        batch = self._producer.create_batch()
        taken = 0
        for key, value in waiting:
            if batch.append(key=key, value=value, timestamp=None) is None:
                break
            taken += 1
        del waiting[:taken]
        sent: asyncio.Future[Any] = await self._producer.send_batch(batch, self._topic, partition=partition)
        return sent


async def measure(
    contender: Contender, place: Place, load: Load, tell: Callable[[str], None]
) -> dict[str, float | int]:
    """Return the percentiles in milliseconds. Raises run.Failed if the contender falls behind or asks for the wrong things."""
    warming, count = round(load.rate * load.warming_seconds), round(load.rate * load.seconds)
    # What happened more than three days ago enters no journey of ours, so it all happens in these hours.
    begin_at = int(time.time() * 1000) - 3 * HOUR_MS
    given = [
        (partition_of(key, place.partitions), key, value, value.partition(b'"id":"')[2].partition(b'"')[0])
        for _, key, value in events(warming + count, warming + count, 1, begin_at)
    ]
    await _prepare(contender, place)
    producer = AIOKafkaProducer(bootstrap_servers=place.bootstrap, acks=1, max_batch_size=cluster.BATCH_BYTES)
    await producer.start()
    try:
        async with (
            cluster.Commands(place.bootstrap, place.commands, place.partitions) as commands,
            run.started(contender, place) as running,
        ):
            sender = _Sender(producer, place.topic, place.partitions)
            tell("warming up")
            await sender.send(given[:warming], load.rate)
            await _until(running, lambda: running.folded >= warming, READY_WITHIN_SECONDS)
            sender.due.clear()
            sender.late.clear()
            tell(f"{load.rate:,.0f} events a second")
            spent = cpu_seconds(running.process.pid)
            await sender.send(given[warming:], load.rate)
            cpu = (cpu_seconds(running.process.pid) - spent) * 1e6 / count
            tell("checking")
            fold = Fold()
            fold.feed(await cluster.read_events(place.bootstrap, place.topic, place.partitions))
            wanted = fold.commands.total()
            await _until(running, lambda: commands.found.total() >= wanted, DONE_WITHIN_SECONDS)
            await commands.to_the_end()
        run.compare(commands.found, fold.commands)
    finally:
        await producer.stop()
    waits = [
        (commands.seen_at[command] - sender.due[id.encode()]) * 1000
        for command, id in fold.causes.items()
        if id.encode() in sender.due
    ]
    found = {"p50_ms": quantile(waits, 0.5), "p99_ms": quantile(waits, 0.99), "p999_ms": quantile(waits, 0.999)}
    late = quantile(sender.late, 0.99) * 1000
    return {
        "rate_per_second": round(load.rate),
        **{name: round(value, 1) for name, value in found.items()},
        "sent_late_p99_ms": round(late, 1),
        "cpu_us_per_event": round(cpu, 2),
        "commands": len(waits),
    }


async def _prepare(contender: Contender, place: Place) -> None:
    await cluster.create(place.bootstrap, [place.topic], place.partitions, **STAMPED)
    if contender.ours:
        await cluster.write(place.bootstrap, place.topic, place.partitions, [], ours.activations(ours.publication()))
        await ours.prepare(place, ours.publication())
        return
    await cluster.create(place.bootstrap, [place.commands], place.partitions)
    for suffix, configuration in contender.topics.items():
        await cluster.create(place.bootstrap, [f"{place.app}{suffix}"], place.partitions, **configuration)


async def _until(running: run.Running, reached: Callable[[], bool], within_seconds: float) -> None:
    deadline = time.monotonic() + within_seconds
    while not reached():
        running.check()
        if time.monotonic() > deadline:
            raise run.Failed(f"it fell behind, or loses some: {running.folded:,} events folded")
        await asyncio.sleep(0.05)


def place(contender: Contender, bootstrap: str, folder: Path, name: str, partitions: int) -> Place:
    """Return where such a run is to happen: with a topic of its own, since the broker dates the events."""
    app = f"{contender.name}-{name}"
    if contender.ours:
        return ours.place(bootstrap, app, folder / app, partitions)
    return Place(bootstrap, f"{app}-events", f"{app}-commands", app, folder / app, partitions)
