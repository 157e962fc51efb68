"""A million runs that wait: what they cost in memory, and what a look for due timers costs when none is due."""

import asyncio
import random
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.figures import Figure, resident_bytes
from engine import Delay, Exit, Journey, always, days, on
from engine.runtime.embedded.host import EmbeddedHost
from engine.runtime.host import PartitionHost
from engine.runtime.partition import UserPartition
from engine.runtime.publish import plan
from schemas.inputs import Event
from schemas.records import NewRecord

CHUNK = 2000
LOOKS = 2000

waiting = Journey(
    name="waiting",
    version=1,
    entry=on("signed_up"),
    reentry=always,
    start="wait",
    steps={"wait": Delay(days(30), then="done"), "done": Exit()},
)


async def _measure(folder: Path, runs: int) -> list[Figure]:
    host = EmbeddedHost.open(folder, 4)

    async def fold(partition: PartitionHost) -> None:
        await UserPartition(partition, host.definitions, host.metrics).run()

    publication = plan(["shop"], [waiting], {}, host.definitions)
    await host.log.append_atomically(publication.records(host.partitions("events")))
    host.start({"events": fold})
    while len(partitions := host.owned("events")) < host.partitions("events"):
        await asyncio.sleep(0.01)
    began = time.process_time()
    dice = random.Random(1)
    for first in range(0, runs, CHUNK):
        await host.log.append([_sign_up(number, dice) for number in range(first, first + CHUNK)])
        while (
            sum(host.log.partition("events", partition.number).unfolded_records() for partition in partitions) > 20_000
        ):
            await asyncio.sleep(0.01)
    while any(host.log.partition("events", partition.number).has_more() for partition in partitions):
        await asyncio.sleep(0.05)
    entering = (time.process_time() - began) * 1e6 / runs
    looks = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(LOOKS):
            for partition in partitions:
                partition.ring()
        looks.append((time.process_time() - began) * 1e6 / LOOKS / len(partitions))
    resident = resident_bytes(_own_pid()) / 1e6
    await host.close()
    disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    return [
        Figure(f"{runs:,} waiting runs: resident memory", "MB", [resident], 250),
        Figure(f"{runs:,} waiting runs: on disk, log included", "MB", [disk]),
        Figure("a look for due timers, none due", "us", looks),
        Figure("entering one run: append, fold, store, timer", "us", [entering]),
    ]


def _sign_up(number: int, dice: random.Random) -> NewRecord:
    event = Event(f"m-{dice.randrange(1 << 60):x}", "signed_up", time.time_ns() // 1_000_000, {"plan": "basic"})
    return NewRecord("events", b"shop:user-%07d" % number, msgspec.json.encode(event))


def _own_pid() -> int:
    return int(Path("/proc/self").readlink().name)


def measure(runs: int) -> list[Figure]:
    """Return the figures for so many users with one waiting run each, on the embedded host in a temporary folder."""
    with TemporaryDirectory(prefix="equeengage-bench-") as folder:
        return asyncio.run(_measure(Path(folder), runs))
