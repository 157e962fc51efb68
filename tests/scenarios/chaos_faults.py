"""What is done to a cluster in a round of chaos, one fault after the other.

A fault says what it does (`note`) before it does it, undoes it at its end, and complains where what a person would read or
be answered meanwhile was not what it must be. Whether anything was lost is not its business: the verifier says that.
"""

import asyncio
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random

from engine.runtime.kafka.topics import changelog_name
from engine.runtime.settings import Kafka
from tests.kafka.broker import answers
from tests.kafka.cluster import ends_of, make_anew
from tests.kafka.own_broker import OwnBroker
from tests.scenarios import chaos_disks
from tests.scenarios.kafka_cluster import Ingress, Worker, until

SESSION_SECONDS = 6  # the shortest a broker takes
BROKER_WITHIN_SECONDS = 60
TOLD_WITHIN_SECONDS = 90.0  # some seconds on a machine that has nothing else to do
LONGEST_FREEZE_SECONDS = 1.5 * SESSION_SECONDS  # some are back before their session is over, some after
SUPERVISES_EVERY_SECONDS = 1.0
AWAY_SECONDS = 14.0  # longer than the ingress waits for an acknowledgement
STORM_EVERY_SECONDS = 2.0
LONGEST_STORM_SECONDS, SHARE_OF_STORM = 60.0, 1 / 3  # of a round
CLOCK_OFF_SECONDS = 300.0


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
    """A broker, the workers on it, an ingress in front, and what has been done to them."""

    settings: Kafka
    broker: OwnBroker
    workers: list[Worker]
    ingress: Ingress
    folder: Path
    chance: Random
    seconds: float
    disks: chaos_disks.SmallDisks
    tell: Callable[[str], None] = lambda told: None
    began: float = field(default_factory=time.monotonic)
    faults: list[Fault] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)  # from when till when no broker ran
    restarts: int = 0  # of programs that had ended by themselves
    damaged: set[str] = field(default_factory=set)  # stores, as the verifier names them

    def note(self, name: str, whom: str = "") -> None:
        self.faults.append(Fault(name, round(time.monotonic() - self.began, 1), time.time_ns() // 1_000_000, whom))
        self.tell(f"{name} {whom}")

    def one(self) -> Worker:
        return self.chance.choice(self.workers)

    async def supervise(self) -> None:
        """Start again who has ended by itself, for ever."""
        programs: list[Worker | Ingress] = [*self.workers, self.ingress]
        while True:
            for program in programs:
                if program.is_wanted and program.exit_code() is not None:
                    self.restarts += 1
                    program.start()
            await asyncio.sleep(SUPERVISES_EVERY_SECONDS)

    async def do(self, fault: "FaultFunction") -> None:
        """Do a fault; where it cannot be done, or undone, complain, and go on with the round."""
        try:
            await fault(self)
        except (AssertionError, OSError) as error:
            self.complaints.append(f"{fault.__name__} could not be done: {error!r}")

    async def expect(self, condition: Callable[[], bool], what: str) -> bool:
        """Wait until it holds; complain if it does not come."""
        try:
            await until(condition, what, TOLD_WITHIN_SECONDS)
        except AssertionError as error:
            during = self.faults[-1].name if self.faults else "at the start"
            self.complaints.append(f"{during}: {error}")
            return False
        return True


async def end(program: Worker | Ingress, number: signal.Signals = signal.SIGKILL) -> None:
    """Kill or stop a program, unless it has ended by itself; it is not started again until somebody does."""
    program.is_wanted = False
    if program.exit_code() is None:
        await program.stop() if number == signal.SIGTERM else program.kill()


async def kill_a_worker(cluster: Cluster) -> None:
    worker = cluster.one()
    cluster.note("SIGKILL", worker.data.name)
    await end(worker)
    await asyncio.sleep(cluster.chance.random())
    worker.start()


async def stop_a_worker(cluster: Cluster) -> None:
    worker = cluster.one()
    cluster.note("SIGTERM", worker.data.name)
    await end(worker, signal.SIGTERM)
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
    await end(worker, signal.SIGTERM)
    await asyncio.sleep(SESSION_SECONDS + cluster.chance.random())
    worker.start()


async def empty_a_data_folder(cluster: Cluster) -> None:
    worker = cluster.one()
    cluster.note("SIGKILL, data folder emptied", worker.data.name)
    await end(worker)
    for path in worker.data.iterdir():  # the folder may be a disk of its own
        shutil.rmtree(path, ignore_errors=True)
    worker.start()


async def kill_the_ingress(cluster: Cluster) -> None:
    cluster.note("SIGKILL", "the ingress")
    await end(cluster.ingress)
    cluster.ingress.start()


async def kill_the_broker(cluster: Cluster) -> None:
    cluster.note("broker SIGKILL")
    cluster.broker.kill()
    await stay_away(cluster, 2 * cluster.chance.random())


async def bounce_the_broker(cluster: Cluster) -> None:
    cluster.note("broker SIGTERM")
    await asyncio.to_thread(cluster.broker.stop)
    await stay_away(cluster, 0)


async def keep_the_broker_away(cluster: Cluster) -> None:
    """For so long that the ingress no longer waits, and says so."""
    cluster.note("broker SIGKILL, and away")
    cluster.broker.kill()
    await stay_away(cluster, AWAY_SECONDS)


async def stay_away(cluster: Cluster, seconds: float) -> None:
    down_at = time.monotonic()
    try:
        await asyncio.sleep(seconds)
        cluster.outages.append((down_at, time.monotonic()))
    finally:
        await start_the_broker(cluster.broker)
        cluster.faults[-1].whom = f"it answered again after {time.monotonic() - down_at:.1f} s"


async def start_the_broker(broker: OwnBroker) -> None:
    broker.start()
    assert await answers(broker.bootstrap, BROKER_WITHIN_SECONDS), "the broker does not answer"


async def storm(cluster: Cluster) -> None:
    """Somebody joins or leaves every two seconds. Each is new to the group: it has to share the partitions out anew."""
    seconds = min(LONGEST_STORM_SECONDS, cluster.seconds * SHARE_OF_STORM)
    cluster.note("rebalance storm", f"{seconds:.0f} s")
    guests: list[Worker] = []
    began = time.monotonic()
    try:
        for number in count():
            if time.monotonic() - began > seconds:
                break
            if number % 2 == 0 or len(guests) < 2:
                guests.append(Worker(cluster.settings, cluster.folder / f"guest-{number}-{int(began)}"))
                guests[-1].start()
            else:
                guest = guests.pop(0)
                if guest.exit_code() is None:
                    guest.send(cluster.chance.choice([signal.SIGTERM, signal.SIGKILL]))
                    await until(lambda guest=guest: guest.exit_code() is not None, "a guest leaves")  # type: ignore[misc]
            await asyncio.sleep(STORM_EVERY_SECONDS)
    finally:
        for guest in guests:
            guest.end()
        for path in cluster.folder.glob("guest-*"):
            shutil.rmtree(path, ignore_errors=True)


async def fill_a_disk(cluster: Cluster) -> None:
    """The worker says that its disk is full. When there is room again, it goes on by itself."""
    worker = cluster.one()
    cluster.note("disk full", worker.data.name)
    said = len(worker.said())
    await end(worker, signal.SIGTERM)
    is_small = cluster.disks.move(worker.data)
    worker.start()
    if await cluster.expect(lambda: bool(worker.lines("partition open", said)), "it has opened a partition"):
        with chaos_disks.full(worker.data) if is_small else chaos_disks.limited(worker.pid, worker.log):
            reasons = ("full disk", "cannot grow", "No space left", "File too large")
            await cluster.expect(
                lambda: any(words in worker.said()[said:] for words in reasons), "it says that its disk is full"
            )


async def make_a_folder_read_only(cluster: Cluster) -> None:
    """The worker does not start, and says why; meanwhile the others take over."""
    worker = cluster.one()
    cluster.note("data folder read-only", worker.data.name)
    await end(worker, signal.SIGTERM)
    said = len(worker.said())
    with chaos_disks.read_only(worker.data):
        worker.start()
        reasons = ("Read-only file system", "read-only file system", "not allowed", "Permission denied")
        await cluster.expect(
            lambda: any(words in worker.said()[said:] for words in reasons), "it says that it may not write"
        )
        await end(worker, signal.SIGTERM)
    worker.start()


async def damage_the_stores(cluster: Cluster) -> None:
    """Bytes of every store of a worker are overwritten while it is down. What it then serves is for the verifier to judge."""
    worker = cluster.one()
    if cluster.chance.random() < 0.5:
        await end(worker)
    else:
        await end(worker, signal.SIGTERM)
    done = []
    for store in sorted(worker.data.glob("worker-*/users/*")):
        if store.name.isdigit() and (store / "CURRENT").exists():
            done.append(f"{store.name}: {chaos_disks.damage(store, cluster.chance)}")
            cluster.damaged.add(f"{worker.data.name}/{store.relative_to(worker.data)}")
    cluster.note("stores damaged", f"{worker.data.name} ({', '.join(done)})")
    worker.start()


async def set_a_clock_wrong(cluster: Cluster) -> None:
    """For the rest of the round."""
    worker = cluster.one()
    worker.clock_off_seconds = cluster.chance.choice([-CLOCK_OFF_SECONDS, CLOCK_OFF_SECONDS])
    cluster.note(f"clock off by {worker.clock_off_seconds / 60:+.0f} minutes", worker.data.name)
    await end(worker, signal.SIGTERM)
    worker.start()


async def lose_the_changelog(cluster: Cluster) -> None:
    """When the round is over: the changelog is truncated to nothing. Every partition must stop, say why, and write nothing."""
    cluster.note("changelog truncated")
    for worker in cluster.workers:
        await end(worker, signal.SIGTERM)
    await make_anew(cluster.settings, changelog_name(cluster.settings, "users"))
    before = await ends_of(cluster.settings, "messages.email")
    said = {worker: len(worker.said()) for worker in cluster.workers}
    for worker in cluster.workers:
        worker.start()

    def stopped() -> set[int]:
        lines = [line for worker in cluster.workers for line in worker.lines("partition stopped", said[worker])]
        return {line["partition"] for line in lines if "truncated or made anew" in line["reason"]}

    everything = set(range(cluster.settings.partitions))
    await cluster.expect(lambda: stopped() == everything, "every partition has stopped and said why")
    for worker in cluster.workers:
        await end(worker, signal.SIGTERM)
    if await ends_of(cluster.settings, "messages.email") != before:
        cluster.complaints.append("changelog truncated: commands were written nevertheless")


FaultFunction = Callable[[Cluster], Awaitable[None]]
OFTEN: list[tuple[int, FaultFunction]] = [  # how often, in proportion
    (4, kill_a_worker),
    (2, stop_a_worker),
    (3, freeze_a_worker),
    (2, leave_and_join),
    (1, empty_a_data_folder),
    (1, kill_the_ingress),
    (2, kill_the_broker),
    (1, bounce_the_broker),
]
# Two of these in each round, in turn: seven rounds in a row have all of them twice.
IN_TURN: list[FaultFunction] = [
    storm,
    fill_a_disk,
    damage_the_stores,
    keep_the_broker_away,
    make_a_folder_read_only,
    set_a_clock_wrong,
    lose_the_changelog,
]
