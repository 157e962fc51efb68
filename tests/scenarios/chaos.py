"""`python -m tests.scenarios.chaos`: rounds of faults on a real cluster, each followed by the verifier.

A round has topics of its own, two or three workers, an ingress, and two producers that never rest: one over HTTP, one that
writes what it likes (`chaos_load.py`). While it lasts, one fault after the other is done (`chaos_faults.py`): two in turn, so
that seven rounds have all of them, the rest drawn from the round's seed. Then everybody is let run, and what stands on Kafka
and in the stores is compared with what the events say (`tests/verify`).

The seed gives the faults and their order; what each of them hits is up to the machine's timing. A round's row names its own
seed: with `--rounds 1 --seed` it is done again.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from engine.runtime.kafka.partition_store import SOURCE
from engine.runtime.kafka.topics import changelog_name, topic_name
from engine.runtime.settings import Kafka
from tests.kafka.own_broker import OwnBroker
from tests.scenarios.chaos_disks import SmallDisks
from tests.scenarios.chaos_faults import (
    IN_TURN,
    OFTEN,
    SESSION_SECONDS,
    Cluster,
    Fault,
    FaultFunction,
    lose_the_changelog,
    start_the_broker,
)
from tests.scenarios.chaos_load import SHOP, Shop, Weather, WildLoad, tighten, write_chaos_journeys
from tests.scenarios.chaos_report import page
from tests.scenarios.kafka_cluster import Ingress, Worker, publish
from tests.verify.evidence import Records, read_records
from tests.verify.settling import verdict_within

REPORT = Path("build/chaos")
PARTITIONS = 4
SETTLES_WITHIN_SECONDS = 300.0  # a minute on a machine that has nothing else to do
IN_TURN_A_ROUND = 2
INTERRUPTED = 130

Tell = Callable[[str], None]


async def round_of_chaos(
    broker: OwnBroker, number: int, seed: int, seconds: float, folder: Path, tell: Tell, in_turn: int = IN_TURN_A_ROUND
) -> dict[str, Any]:
    """Do it once, with the faults of a seed; return the round's row of the report."""
    chance = Random(seed)
    name = f"chaos{number}"
    settings = Kafka(
        bootstrap=broker.bootstrap, prefix=name, app=f"{name}-app", partitions=PARTITIONS, replication=1,
        session_timeout_seconds=SESSION_SECONDS,
    )  # fmt: skip
    weather = Weather(hoards=chance.random() < 0.5, is_tight=chance.random() < 0.5) if in_turn else Weather()
    if weather.hoards or weather.is_tight:  # what is large shall be large for the broker, too
        settings = settings.model_copy(update={"compression": "none"})
    await publish(settings, write_chaos_journeys(folder / "journeys"))
    await tighten(settings, weather)
    workers = [Worker(settings, folder / f"worker-{each}") for each in range(chance.choice([2, 3]))]
    if chance.random() < 0.5:
        workers[0].options = ("--standby",)
    stopping = asyncio.Event()
    with SmallDisks() as disks, ending(*workers, ingress := Ingress(settings, folder / "ingress.log")):
        cluster = Cluster(settings, broker, workers, ingress, folder, chance, seconds, disks, tell)
        for worker in workers:
            worker.start()
        ingress.start()
        load = WildLoad(settings, Random(seed), weather)
        shop = Shop(SHOP, ingress.url, Random(seed))
        shopping = asyncio.create_task(shop.run(stopping))
        supervising = asyncio.create_task(cluster.supervise())
        try:
            await cluster.expect(lambda: all(each.lines("partition open") for each in workers), "every worker works")
            cluster.began = time.monotonic()
            afterwards = await do_the_faults(cluster, planned(seed, in_turn))
            await asyncio.sleep(1)
            tell("letting it settle")
            stopping.set()
            async with asyncio.timeout(SETTLES_WITHIN_SECONDS):
                await asyncio.gather(load.end(), shopping)
        except BaseException:
            supervising.cancel()
            raise
        finally:
            load.cancel()
            shopping.cancel()
            await asyncio.gather(shopping, return_exceptions=True)
        ended_at, load_ended_at = time.monotonic(), time.time_ns() // 1_000_000
        data = [worker.data for worker in workers]
        verdict = await verdict_within(settings, SETTLES_WITHIN_SECONDS, data, damaged=cluster.damaged)
        settled_seconds = time.monotonic() - ended_at
        events = await read_records(settings, topic_name(settings, "events"))
        measure(cluster.faults, await read_records(settings, changelog_name(settings, "users")), load_ended_at)
        for do in afterwards:
            await cluster.do(do)
        supervising.cancel()
    sent = {*load.events, *shop.acknowledged}
    missing = sent - logged(events)
    complaints = cluster.complaints + shop.complaints(cluster.outages)
    counts = verdict.faults()
    counts["lost"] += len(missing)
    is_clean = verdict.is_clean and not missing and not verdict.waiting and not complaints
    if not is_clean:
        more = [*(f"not in the log: {id}" for id in sorted(missing)), *complaints]
        (folder / "verdict.txt").write_text("\n".join([verdict.table(), *more, ""]))
    known = [fault.recovery_seconds for fault in cluster.faults if fault.recovery_seconds is not None]
    return {
        "round": number, "seed": seed, "seconds": seconds, "workers": len(workers),
        "conditions": weather.told() + [f"{each.data.name} {' '.join(each.options)}" for each in workers if each.options],
        "faults": [
            {"name": each.name, "at_seconds": each.at_seconds, "whom": each.whom, "recovery_seconds": each.recovery_seconds}
            for each in cluster.faults
        ],
        "events": len(sent), "answers": {str(status): times for status, times in sorted(shop.statuses().items())},
        "expected": verdict.commands(), "lost": counts["lost"], "duplicated": counts["duplicated"],
        "phantom": counts["phantom"], "early": counts["early"], "wrong_state": counts["wrong"],
        "waiting": verdict.waiting, "complaints": complaints, "restarts": cluster.restarts,
        "recovery_seconds": max(known, default=0.0), "settled_seconds": round(settled_seconds, 1), "clean": is_clean,
    }  # fmt: skip


def planned(seed: int, count: int) -> list[FaultFunction]:
    """The faults whose turn it is in the round of this seed."""
    return [IN_TURN[(count * seed + each) % len(IN_TURN)] for each in range(count)]


async def do_the_faults(cluster: Cluster, turns: Sequence[FaultFunction]) -> list[FaultFunction]:
    """Do them, and between and after them what is drawn, until the time is over. Return what is to be done afterwards."""
    afterwards: list[FaultFunction] = [do for do in turns if do is lose_the_changelog]
    waiting = [do for do in turns if do not in afterwards]
    while waiting or time.monotonic() - cluster.began < cluster.seconds:
        (do,) = cluster.chance.choices([fault for _, fault in OFTEN], [weight for weight, _ in OFTEN])
        await cluster.do(do)
        await asyncio.sleep(0.5 + 2 * cluster.chance.random())
        if waiting:
            await cluster.do(waiting.pop(0))
            await asyncio.sleep(0.5 + 2 * cluster.chance.random())
    return afterwards


@contextlib.contextmanager
def ending(*programs: Worker | Ingress) -> Iterator[None]:
    """However this ends, the programs end with it."""
    try:
        yield
    finally:
        for program in programs:
            program.end()


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


async def rounds_of_chaos(
    rounds: int, seconds: float, seed: int, report: Path, console: Console | None = None, in_turn: int = IN_TURN_A_ROUND
) -> list[dict[str, Any]]:
    """Run all rounds; after each of them the report is written anew."""
    done: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as name,
        Progress(*columns, console=console or Console(), transient=True) as progress,
    ):
        task = progress.add_task("starting a broker", total=rounds)
        broker = OwnBroker(Path(name), "512m")
        try:
            await start_the_broker(broker)
            for number in range(1, rounds + 1):
                folder = Path(name) / f"round-{number}"
                folder.mkdir()

                def tell(told: str, number: int = number) -> None:
                    progress.update(task, description=f"round {number} of {rounds}: {told}")

                tell("starting")
                is_clean = False
                try:
                    row = await round_of_chaos(broker, number, seed + number - 1, seconds, folder, tell, in_turn)
                    done.append(row)
                    write_report(done, report)
                    is_clean = row["clean"]
                finally:
                    if not is_clean:
                        shutil.copytree(folder, report / f"round-{number}", dirs_exist_ok=True)
                        shutil.copy(broker.log, report / f"round-{number}")
                progress.console.print(told(row), highlight=False, soft_wrap=True)
                progress.advance(task)
                shutil.rmtree(folder)
        finally:
            broker.kill()
    return done


def write_report(rounds: list[dict[str, Any]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps({"rounds": rounds}, indent=2) + "\n")
    (folder / "index.html").write_text(page(rounds))


def told(row: dict[str, Any]) -> str:
    """A round in a line, and its complaints."""
    result = "clean" if row["clean"] else "NOT CLEAN"
    counts = ", ".join(f"{row[name]} {name}" for name in ("lost", "duplicated", "phantom", "early", "wrong_state"))
    line = (
        f"round {row['round']} (seed {row['seed']}): {result}; {len(row['faults'])} faults, {row['events']:,} events, "
        f"{row['expected']:,} commands, {counts}; a partition stood still for {row['recovery_seconds']:g} s at most"
    )
    return "\n".join([line, *(f"  {complaint}" for complaint in row["complaints"])])


async def run_until_told(given: argparse.Namespace) -> list[dict[str, Any]]:
    """SIGTERM ends it as Ctrl-C does: whatever it has started is ended first."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await rounds_of_chaos(given.rounds, given.seconds, given.seed, given.report)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.scenarios.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="how long each round lasts, before it is let settle")
    parser.add_argument("--seed", type=int, default=int.from_bytes(Random().randbytes(3)))
    parser.add_argument("--report", type=Path, default=REPORT)
    given = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # our producer tells all about a broker that is down
    print(f"{given.rounds} rounds of {given.seconds:g} s, seed {given.seed}; Ctrl-C stops, and ends what was started")
    try:
        done = asyncio.run(run_until_told(given))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"interrupted; {given.report} tells of the rounds that were done")
        sys.exit(INTERRUPTED)
    clean = sum(row["clean"] for row in done)
    print(f"{clean} of {len(done)} rounds are clean; {given.report / 'index.html'} tells of them")
    sys.exit(0 if clean == len(done) else 1)


if __name__ == "__main__":
    main()
