"""Which partitions this process owns, and the loop that runs on each.

One consumer is the member of the group and fetches for all partitions; each assigned partition has a task of its own,
which opens it and runs the loop. Rules that were paid for:

- Recovery never runs in the rebalance callback: heartbeats stop there.
- No OffsetCommit between a revocation and the assignment after it: it would queue behind the JoinGroup, fail, and reset
  our membership, again and again.
- Who was fenced rejoins the group first, and fences again only from a new assignment. Otherwise a worker that was frozen
  would fence the rightful owner.
- A partition that stays ours over a rebalance keeps its producer and its store: it pauses for milliseconds.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError

from engine.runtime import crash_points
from engine.runtime.host import Fenced, PartitionHost, PartitionStopped
from engine.runtime.kafka import clients, topics
from engine.runtime.kafka.appender import Appender
from engine.runtime.kafka.partition import KafkaPartition, Process
from engine.runtime.kafka.standby import Standby
from engine.runtime.kafka.transactions import BatchTooLarge
from engine.runtime.kafka.wake_ups import BrokerClock, WakeUps
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka
from engine.runtime.store import StoreDamaged, StoreUnwritable

HEARTBEAT_MS = 1000
# A loop is given this long to end what it has begun when its partition is taken away (a channel's calls), plus the
# commit. The group waits for the slowest member, and ends its membership after the rebalance timeout.
DRAINS_WITHIN_SECONDS = 9.0
COMMITS_WITHIN_SECONDS = 5.0
REBALANCE_TIMEOUT_MS = 20_000
NEVER_MS = 24 * 60 * 60 * 1000  # liveness is the session's, not "somebody polled": recovery may take long
# A partition that was slow to take its last records is not in the fetch under way, and waits for the next one.
LONGEST_FETCH_MS = 100
# After an error. A second: heartbeats will have told us what we lost. Five: as long as anybody likes to wait for a partition
# when a broker is back; a try costs it a few requests.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 5.0
RUNS_WELL_AFTER_SECONDS = (
    30.0  # one that was open for that long begins with the first pause again, also if nothing came
)
REJOINS_AFTER_SECONDS = 1.0
HINTS_EVERY_SECONDS = 5.0
RINGS_EVERY_SECONDS = 0.05  # how late a wake-up may be because nobody looked

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Work:
    """What is done with each partition of a topic.

    `topic` is its logical name ("events", "messages.email"); changelogs, transactional ids, stores and the consumer
    group are named after `name` ("users", "email"). `run` is the loop: it runs until it is cancelled or raises.
    """

    topic: str
    name: str
    run: Callable[[PartitionHost], Awaitable[None]]


class Partitions:
    """The partitions of one topic that this process owns, as a member of the group.

    `member` is the static id of this process in the group: with the same id after a restart it gets the same partitions
    back, without a rebalance. `directory` must be this process's alone.
    """

    def __init__(
        self, settings: Kafka, work: Work, appender: Appender, clock: BrokerClock, metrics: Metrics, directory: Path,
        member: str | None = None, channels: Iterable[str] = topics.CHANNELS,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._work = work
        self._appender = appender
        self._clock = clock
        self._metrics = metrics
        self._directory = directory
        self._member = member
        self._channels = tuple(channels)
        self._owned: dict[int, KafkaPartition] = {}
        self._loops: dict[int, asyncio.Task[None]] = {}
        self._closing: dict[int, asyncio.Task[None]] = {}
        self._chores: list[asyncio.Task[None]] = []
        self._hint_lock = asyncio.Lock()
        self._rejoining: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._standby: Standby | None = None
        self.stopped: dict[int, str] = {}  # partitions that stand still until somebody acts, and why
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Join the group. Raises TopicError if a topic is missing or wrong, KafkaError if no broker answers."""
        settings, work = self._settings, self._work
        await topics.check(settings, self._channels)
        self._topic = topics.topic_name(settings, work.topic)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._consumer = clients.reader(
            settings,
            group_id=f"{settings.app}-{work.name}",
            group_instance_id=self._member,
            session_timeout_ms=int(settings.session_timeout_seconds * 1000),
            heartbeat_interval_ms=HEARTBEAT_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            max_poll_interval_ms=NEVER_MS,
            fetch_max_wait_ms=LONGEST_FETCH_MS,
            partition_assignment_strategy=[StickyPartitionAssignor],
        )
        self._offsets = clients.reader(settings)
        try:
            await self._consumer.start()
            await self._offsets.start()
            self._process = Process(
                settings, work.topic, work.name, self._consumer, self._offsets, self._directory,
                cluster=await topics.cluster_id(settings),
                tombstones_kept=await topics.tombstones_kept(settings, topics.changelog_name(settings, work.name)),
                metrics=self._metrics, clock=self._clock,
            )  # fmt: skip
        except BaseException:
            await self._consumer.stop()
            await self._offsets.stop()
            raise
        self._consumer.subscribe([self._topic], listener=_Listener(self))
        self._chores = [asyncio.create_task(self._give_hints())]
        if settings.standby:
            self._standby = Standby(
                self._process, lambda number: number not in self._owned and number not in self._closing
            )
            self._process.take_over = self._standby.take_over
            self._chores.append(asyncio.create_task(self._standby.run()))
        if work.topic == "events":
            self._chores.append(asyncio.create_task(self._ring()))

    async def stop(self) -> None:
        """End the loops where they wait, commit what they are committing, and let go of everything.

        A member with a static id stays in the group: its partitions wait for it until the session times out.
        """
        self._is_stopping = True
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        if self._rejoining is not None:
            self._rejoining.cancel()
        await self._end_loops()
        await self._commit_hints()
        await self._consumer.stop()
        for number in list(self._owned):
            self._close_later(number)
        await asyncio.gather(*self._closing.values())
        await self._offsets.stop()

    @property
    def owned(self) -> list[int]:
        return sorted(self._owned)

    async def revoked(self) -> None:
        """A rebalance has begun: end all loops. Which partitions stay ours is not known yet; they stay open."""
        self._process.is_stable = False
        async with self._hint_lock:  # one that is under way ends first
            pass
        await self._end_loops()

    async def assigned(self, numbers: Iterable[int]) -> None:
        """The rebalance has ended: close what is no longer ours, and run loops on what is."""
        if self._is_stopping:  # a rebalance that was under way when we were stopped
            return
        crash_points.reach("assigned")
        mine = set(numbers)
        if max(mine, default=0) >= self._settings.partitions:
            self._fail(
                topics.TopicError(
                    f"topic {self._topic} was given more partitions while we ran, and users would move between them; "
                    f"it must have {self._settings.partitions}, as all our topics"
                )
            )
            return
        for number in mine:  # Until a partition is opened nothing of it is fetched; where from is the store's to say.
            source = TopicPartition(self._topic, number)
            self._consumer.seek(source, 0)
            self._consumer.pause(source)
        for number in set(self._owned) - mine:
            self._close_later(number)
        for number in sorted(mine):
            partition = self._owned.setdefault(number, KafkaPartition(self._process, number))
            self._loops[number] = asyncio.create_task(self._keep_running(partition))
        if self._standby is not None:
            self._standby.follow(set(range(self._settings.partitions)) - mine)
        self._process.is_stable = True
        self._metrics.rebalances.inc()
        self._metrics.partitions_owned.labels(self._work.topic).set(len(mine))
        _log.info("partitions assigned", topic=self._work.topic, member=self._member, partitions=sorted(mine))

    async def _keep_running(self, partition: KafkaPartition) -> None:
        """Run the loop on a partition; after an error, close it and begin again, later each time.

        What an operator has to set right ends it, unless we can see for ourselves when it is: a disk that takes nothing.
        """
        labels = {"topic": self._work.topic, "partition": partition.number}
        pause_seconds = FIRST_PAUSE_SECONDS
        if partition.number in self._closing:
            await asyncio.wait({self._closing[partition.number]})
        self._note_running(partition.number)
        while True:
            commits, began = partition.commits, time.monotonic()
            try:
                await partition.open()
                _log.info("partition open", **labels, through=partition.through)
                self._note_running(partition.number)
                await self._work.run(partition)
                return
            except Fenced as error:
                _log.warning("partition lost", **labels, reason=str(error))
                self._metrics.partitions_fenced.labels(self._work.topic).inc()
                await partition.close()
                self._rejoin()
                return
            except StoreDamaged as error:
                reason = str(error)
                self._metrics.partition_failures.labels(self._work.topic).inc()
                await partition.close()
                self._set_store_aside(partition, reason)
            except StoreUnwritable as error:
                self._note_stopped(partition.number, f"{error} (it is tried again every {LONGEST_PAUSE_SECONDS:g} s)")
                await partition.close()
            except PartitionStopped as error:
                self._note_stopped(partition.number, str(error))
                await partition.close()
                return
            except BatchTooLarge as error:
                _log.info("partition opened anew", **labels, reason=str(error))
                await partition.close()
                continue
            except Exception:
                _log.exception("partition failed", **labels)
                self._metrics.partition_failures.labels(self._work.topic).inc()
                await partition.close()
            if partition.commits > commits or time.monotonic() - began > RUNS_WELL_AFTER_SECONDS:
                pause_seconds = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    def _note_running(self, number: int) -> None:
        self.stopped.pop(number, None)
        self._metrics.partition_stopped.labels(self._work.topic, str(number)).set(0)

    def _note_stopped(self, number: int, reason: str) -> None:
        if self.stopped.get(number) != reason:  # said once, however often it is tried
            _log.error("partition stopped", topic=self._work.topic, partition=number, reason=reason)
        self.stopped[number] = reason
        self._metrics.partition_stopped.labels(self._work.topic, str(number)).set(1)

    def _set_store_aside(self, partition: KafkaPartition, reason: str) -> None:
        labels = {"topic": self._work.topic, "partition": partition.number}
        try:
            kept_as = str(partition.set_store_aside())
        except OSError as error:  # it is found again when it is opened
            kept_as = f"not set aside: {error}"
        _log.error("a store is damaged", **labels, reason=reason, kept_as=kept_as)

    async def _end_loops(self) -> None:
        loops, self._loops = self._loops, {}
        for loop in loops.values():
            loop.cancel()
        if loops:
            await asyncio.wait(loops.values(), timeout=DRAINS_WITHIN_SECONDS)
        for number, loop in loops.items():
            if not loop.done():
                _log.warning("a loop did not end in time", topic=self._work.topic, partition=number)
                loop.cancel()
        await asyncio.gather(*(self._owned[number].finish_commit(COMMITS_WITHIN_SECONDS) for number in loops))

    def _close_later(self, number: int) -> None:
        """Close a partition outside the callback. Should it come back soon, its new task waits for this one."""
        partition = self._owned.pop(number)
        self._metrics.forget_partition(self._work.topic, number)
        closing = self._closing[number] = asyncio.create_task(partition.close())
        closing.add_done_callback(lambda _: self._closing.pop(number, None))

    def _rejoin(self) -> None:
        """Ask the group for a new assignment, once for however many partitions were fenced at the same time."""
        if self._rejoining is None or self._rejoining.done():
            self._rejoining = asyncio.create_task(self._subscribe_again())

    async def _subscribe_again(self) -> None:
        await asyncio.sleep(REJOINS_AFTER_SECONDS)
        if self._process.is_stable:  # else the group has noticed by itself
            self._consumer.subscribe([self._topic], listener=_Listener(self))

    async def _give_hints(self) -> None:
        """Tell lag tools, by group offsets, and our metrics how far we are. Nothing depends on it."""
        while True:
            await asyncio.sleep(HINTS_EVERY_SECONDS)
            try:
                self._consumer._coordinator.check_errors()  # there is no public way to learn that it has died
            except Exception as error:
                self._fail(error)
                return
            await self._commit_hints()
            for number, partition in list(self._owned.items()):
                if self._process.is_stable:
                    with contextlib.suppress(KafkaError):
                        lag = await partition.lag()
                        if number in self._owned:
                            self._metrics.lag_records.labels(self._work.topic, str(number)).set(lag)

    def _fail(self, error: Exception) -> None:
        """Let the process end, so that whoever looks after it starts it again."""
        if not self.failed.done():
            self.failed.set_exception(error)

    async def _commit_hints(self) -> None:
        async with self._hint_lock:
            if not self._process.is_stable:
                return
            hints = {
                TopicPartition(self._topic, number): partition.through + 1
                for number, partition in self._owned.items()
                if partition.through >= 0
            }
            if hints:
                # Not wait_for: in Python 3.11 it swallows a cancellation that comes as the commit ends.
                with contextlib.suppress(KafkaError, TimeoutError):
                    async with asyncio.timeout(COMMITS_WITHIN_SECONDS):
                        await self._consumer.commit(hints)

    async def _ring(self) -> None:
        wake_ups = WakeUps(self._appender, self._clock, self._metrics, self._work.topic)
        while True:
            await asyncio.sleep(RINGS_EVERY_SECONDS)
            running = [self._owned[number] for number in list(self._loops) if number not in self.stopped]
            through = {partition.number: partition.through for partition in running}
            sleepers = [each for partition in running if (each := partition.sleepers) is not None]
            await wake_ups.ring(sleepers, through)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes the consumer's news on. aiokafka would only log what is raised here."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._partitions.revoked()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._partitions.assigned({source.partition for source in assigned})
