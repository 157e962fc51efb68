"""`python -m tests.scenarios.chaos`: rounds of faults on a real cluster, each followed by the verifier.

A round has topics of its own, two or three workers, and a producer that never rests: hot users, large profiles and rubbish
among its events. While it lasts, one fault after the other is drawn from the round's seed. Then everybody is let run, and
what stands on Kafka and in the stores is compared with what the events say (`tests/verify`).

The seed gives the faults and their order; what each of them hits is up to the machine's timing.
"""

import argparse
import asyncio
import json
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from engine.runtime.kafka.partition_store import SOURCE
from engine.runtime.kafka.topics import changelog_name, topic_name
from engine.runtime.settings import Kafka
from schemas.inputs import Event
from tests.kafka.broker import answers
from tests.kafka.own_broker import OwnBroker
from tests.scenarios.chaos_report import page
from tests.scenarios.kafka_cluster import Load, Worker, publish
from tests.scenarios.tale import write_journeys
from tests.verify.evidence import Records, read_records
from tests.verify.settling import verdict_within

REPORT = Path("build/chaos")
PARTITIONS = 4
SESSION_SECONDS = 6  # the shortest a broker takes
BROKER_WITHIN_SECONDS = 60
SETTLES_WITHIN_SECONDS = 120.0
LONGEST_FREEZE_SECONDS = 1.5 * SESSION_SECONDS  # some are back before their session is over, some after
LARGE_ATTRIBUTE_CHARACTERS = 9_000  # six of them nearly fill a profile
RUBBISH = (
    b"{rubbish",
    b"",
    b"[]",
    b'{"type":"event"}',
    b"\xff\xfe",
    b'{"type":"event","id":"x","name":"' + b"n" * 5000,
)


class WildLoad(Load):
    """Every fifth event is the hot user's; profiles grow to their limit; there is rubbish of every kind."""

    def _acts(self, number: int) -> list[tuple[str, bytes | Event]]:
        chance, now = self._chance, time.time_ns() // 1_000_000
        acts = super()._acts(number)
        if chance.random() < 0.6:
            acts.append(("hot", Event(f"hot-{number}", "pinged", now)))
        if chance.random() < 0.03:
            large = {f"attribute_{chance.randrange(8)}": "x" * LARGE_ATTRIBUTE_CHARACTERS}
            acts.append((f"u{chance.randrange(20)}", Event(f"large-{number}", "identify", now, {}, large)))
        if chance.random() < 0.03:
            acts.append((f"u{chance.randrange(number + 1)}", chance.choice(RUBBISH)))
        return acts


@dataclass
class Fault:
    """What was done, to whom, when (seconds into the round), and how long some partition then stood still."""

    name: str
    at_seconds: float
    at: int  # ms
    whom: str = ""
    recovery_seconds: float | None = None


@dataclass
class Cluster:
    """A broker, the workers on it, and what has been done to them."""

    broker: OwnBroker
    workers: list[Worker]
    chance: Random
    began: float = field(default_factory=time.monotonic)
    faults: list[Fault] = field(default_factory=list)

    def note(self, name: str, whom: str = "") -> None:
        self.faults.append(Fault(name, round(time.monotonic() - self.began, 1), time.time_ns() // 1_000_000, whom))

    def one(self) -> Worker:
        return self.chance.choice([worker for worker in self.workers if worker.exit_code() is None])


async def kill_a_worker(cluster: Cluster) -> None:
    worker = cluster.one()
    cluster.note("SIGKILL", worker.data.name)
    worker.kill()
    await asyncio.sleep(cluster.chance.random())
    worker.start()


async def stop_a_worker(cluster: Cluster) -> None:
    worker = cluster.one()
    cluster.note("SIGTERM", worker.data.name)
    await worker.stop()
    worker.start()


async def freeze_a_worker(cluster: Cluster) -> None:
    worker = cluster.one()
    cluster.note("SIGSTOP, SIGCONT", worker.data.name)
    worker.send(signal.SIGSTOP)
    try:
        await asyncio.sleep(cluster.chance.random() * LONGEST_FREEZE_SECONDS)
    finally:
        worker.send(signal.SIGCONT)


async def leave_and_join(cluster: Cluster) -> None:
    """Gone for longer than its session: the others take over, and give back."""
    worker = cluster.one()
    cluster.note("leave, join", worker.data.name)
    await worker.stop()
    await asyncio.sleep(SESSION_SECONDS + cluster.chance.random())
    worker.start()


async def empty_a_data_folder(cluster: Cluster) -> None:
    worker = cluster.one()
    cluster.note("SIGKILL, data folder emptied", worker.data.name)
    worker.kill()
    shutil.rmtree(worker.data, ignore_errors=True)
    worker.start()


async def kill_the_broker(cluster: Cluster) -> None:
    cluster.note("broker SIGKILL")
    cluster.broker.kill()
    await asyncio.sleep(2 * cluster.chance.random())
    await start_the_broker(cluster.broker)


async def bounce_the_broker(cluster: Cluster) -> None:
    cluster.note("broker SIGTERM")
    await asyncio.to_thread(cluster.broker.stop)
    await start_the_broker(cluster.broker)


async def start_the_broker(broker: OwnBroker) -> None:
    broker.start()
    assert await answers(broker.bootstrap, BROKER_WITHIN_SECONDS), "the broker does not answer"


FAULTS: list[tuple[int, Callable[[Cluster], Awaitable[None]]]] = [  # how often, in proportion
    (4, kill_a_worker),
    (2, stop_a_worker),
    (3, freeze_a_worker),
    (2, leave_and_join),
    (1, empty_a_data_folder),
    (2, kill_the_broker),
    (1, bounce_the_broker),
]


async def round_of_chaos(broker: OwnBroker, number: int, seed: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Do it once, with the faults of a seed; return the round's row of the report."""
    chance = Random(seed)
    name = f"chaos{number}"
    settings = Kafka(
        bootstrap=broker.bootstrap, prefix=name, app=f"{name}-app", partitions=PARTITIONS, replication=1,
        session_timeout_seconds=SESSION_SECONDS,
    )  # fmt: skip
    await publish(settings, write_journeys(folder / "journeys"))
    workers = [Worker(settings, folder / f"worker-{each}") for each in range(chance.choice([2, 3]))]
    cluster = Cluster(broker, workers, chance)
    for worker in workers:
        worker.start()
    load = WildLoad(settings, Random(seed))
    try:
        await asyncio.sleep(3)
        while time.monotonic() - cluster.began < seconds:
            (do,) = chance.choices([fault for _, fault in FAULTS], [weight for weight, _ in FAULTS])
            await do(cluster)
            await asyncio.sleep(0.5 + 2 * chance.random())
        await asyncio.sleep(1)
        await load.end()
        ended_at, load_ended_at = time.monotonic(), time.time_ns() // 1_000_000
        verdict = await verdict_within(settings, SETTLES_WITHIN_SECONDS, [worker.data for worker in workers])
        settled_seconds = time.monotonic() - ended_at
        events = await read_records(settings, topic_name(settings, "events"))
        measure(cluster.faults, await read_records(settings, changelog_name(settings, "users")), load_ended_at)
    finally:
        load.cancel()
        for worker in workers:
            worker.end()
    missing = load.events.keys() - logged(events)
    counts = verdict.faults()
    counts["lost"] += len(missing)
    if not verdict.is_clean or missing:
        (folder / "verdict.txt").write_text(verdict.table() + "".join(f"\nnot in the log: {id}" for id in missing))
    known = [fault.recovery_seconds for fault in cluster.faults if fault.recovery_seconds is not None]
    return {
        "round": number, "seed": seed, "seconds": seconds, "workers": len(workers),
        "faults": [
            {"name": each.name, "at_seconds": each.at_seconds, "whom": each.whom, "recovery_seconds": each.recovery_seconds}
            for each in cluster.faults
        ],
        "events": len(load.events), "expected": verdict.commands(), "lost": counts["lost"],
        "duplicated": counts["duplicated"], "phantom": counts["phantom"], "early": counts["early"],
        "wrong_state": counts["wrong"], "waiting": verdict.waiting,
        "recovery_seconds": max(known, default=0.0), "settled_seconds": round(settled_seconds, 1),
        "clean": verdict.is_clean and not missing and not verdict.waiting,
    }  # fmt: skip


def measure(faults: list[Fault], changelog: Records, ended_at: int) -> None:
    """A partition stands still between two transactions. Of a fault counts the longest such pause that began before the
    next fault (or the end of the load, ms), from the fault on."""
    pauses = [
        (begin, end)
        for records in changelog.values()
        for begin, end in pairwise(record.timestamp for record in records if record.key == SOURCE)
    ]
    limits = [*(fault.at for fault in faults[1:]), ended_at]
    for fault, limit in zip(faults, limits, strict=True):
        lasted = [end - max(begin, fault.at) for begin, end in pauses if begin < limit and end > fault.at]
        if lasted:
            fault.recovery_seconds = round(max(lasted) / 1000, 2)


def logged(events: Records) -> set[str]:
    """The ids of the events that stand in the log."""
    values = [record.value or b"" for records in events.values() for record in records]
    return {
        json.loads(value)["id"] for value in values if value.startswith(b'{"type":"event","id":') and is_json(value)
    }


def is_json(value: bytes) -> bool:
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


async def rounds_of_chaos(rounds: int, seconds: float, seed: int, report: Path) -> list[dict[str, Any]]:
    """Run all rounds; after each of them the report is written anew."""
    done: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        broker = OwnBroker(Path(name))
        try:
            await start_the_broker(broker)
            for number in range(1, rounds + 1):
                folder = Path(name) / f"round-{number}"
                folder.mkdir()
                done.append(await round_of_chaos(broker, number, seed + number - 1, seconds, folder))
                write_report(done, report)
                print(told(done[-1]), flush=True)
                if not done[-1]["clean"]:
                    shutil.copytree(folder, report / f"round-{number}", dirs_exist_ok=True)
                shutil.rmtree(folder)
        finally:
            broker.kill()
    return done


def write_report(rounds: list[dict[str, Any]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps({"rounds": rounds}, indent=2) + "\n")
    (folder / "index.html").write_text(page(rounds))


def told(row: dict[str, Any]) -> str:
    """A round in a line."""
    result = "clean" if row["clean"] else "NOT CLEAN"
    counts = ", ".join(f"{row[name]} {name}" for name in ("lost", "duplicated", "phantom", "early", "wrong_state"))
    return (
        f"round {row['round']} (seed {row['seed']}): {result}; {len(row['faults'])} faults, {row['events']:,} events, "
        f"{row['expected']:,} commands, {counts}; a partition stood still for {row['recovery_seconds']:g} s at most"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="how long each round lasts, before it is let settle")
    parser.add_argument("--seed", type=int, default=int.from_bytes(Random().randbytes(3)))
    parser.add_argument("--report", type=Path, default=REPORT)
    given = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # our producer tells all about a broker that is down
    done = asyncio.run(rounds_of_chaos(given.rounds, given.seconds, given.seed, given.report))
    print(f"{given.report / 'index.html'} tells of {len(done)} rounds")
    sys.exit(0 if all(row["clean"] for row in done) else 1)


if __name__ == "__main__":
    main()
