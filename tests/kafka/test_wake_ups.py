"""Whom a worker wakes when many are due: how many at a time, in which order, and that nobody is left out. Without a broker."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import msgspec
import pytest

from engine.runtime.host import PartitionStopped, Unavailable
from engine.runtime.kafka.appender import Appender
from engine.runtime.kafka.transactions import Content, Place
from engine.runtime.kafka.wake_ups import LEAST_UNANSWERED, Allowance, BrokerClock, Sleepers, WakeUps
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Kafka
from engine.runtime.store import MemoryStore
from engine.runtime.timers import Alarm, TimerIndex
from schemas.inputs import WakeUp

RING_MS = 50


class RememberingAppender(Appender):
    """Keeps what is appended, or refuses it."""

    def __init__(self) -> None:
        super().__init__(Kafka())
        self.logs: dict[int, list[Content]] = {}
        self.refuses = False

    async def append(self, contents: Sequence[tuple[Place, Content]]) -> None:
        if self.refuses:
            raise Unavailable("the broker is gone")
        for (_, number), content in contents:
            self.logs.setdefault(number, []).append(content)


class Worker:
    """Some partitions, each with its timers and its log, and a fold that does so many records a second in all."""

    def __init__(self, partitions: int, folds_per_second: int, events_per_second: int = 0) -> None:
        self.now = 1_000_000
        self.ahead_ms = 0
        self.appender = RememberingAppender()
        self.failures: list[PartitionStopped] = []
        self.sleepers: list[Sleepers] = []
        self.stores: list[MemoryStore] = []
        self.waiting: list[dict[bytes, int]] = []
        for number in range(partitions):
            store = MemoryStore(("timers", "meta"))
            index = TimerIndex(store)
            list(index.rebuild([]))
            self.stores.append(store)
            self.waiting.append({})
            self.sleepers.append(Sleepers(("events", number), index, Alarm(), self.failures.append))
        self.through = [-1] * partitions
        self.events: list[int] = [0] * partitions  # when those that are not folded yet were appended
        self.logs: list[list[bytes | int]] = [[] for _ in range(partitions)]  # who is woken; when an event came
        self.folds, self.events_each_ring = folds_per_second * RING_MS // 1000, events_per_second * RING_MS // 1000
        self.woken: list[bytes] = []
        self.most_unanswered = 0
        self.slowest_event_ms = 0
        clock = BrokerClock(lambda: self.now + self.ahead_ms)
        self.bell = WakeUps(self.appender, clock, Metrics(), "events", Allowance(lambda: self.now / 1000))

    def set(self, number: int, dues: dict[bytes, int | None]) -> None:
        waiting, timers = self.waiting[number], self.sleepers[number].timers
        changes = {actor: (waiting.get(actor), due) for actor, due in dues.items()}
        self.stores[number].write(timers.writes(changes))
        self.waiting[number] = {actor: due for actor, due in {**waiting, **dues}.items() if due is not None}
        self.sleepers[number].alarm.settle(changes)

    async def ring(self, *, folding: bool = True) -> None:
        """One ring; then the fold does what it can until the next."""
        self.appender.logs.clear()
        await self.bell.ring(self.sleepers, dict(enumerate(self.through)))
        for number, contents in self.appender.logs.items():
            actors = [key for key, _, _ in contents if key is not None]
            self.woken += actors
            self.logs[number] += actors
        for event in range(self.events_each_ring):
            self.logs[event % len(self.logs)].append(self.now)
        self.most_unanswered = max(self.most_unanswered, sum(each.alarm.unanswered() for each in self.sleepers))
        self.now += RING_MS
        if folding:
            self._fold()

    def _fold(self) -> None:
        left = self.folds
        while left and any(self.logs):
            for number, log in enumerate(self.logs):
                batch, self.logs[number] = log[: min(left, 20)], log[min(left, 20) :]
                left -= len(batch)
                self.through[number] += len(batch)
                events = [each for each in batch if isinstance(each, int)]
                self.slowest_event_ms = max([self.slowest_event_ms, *(self.now - at for at in events)])
                waiting = self.waiting[number]
                answers = {each: None for each in batch if isinstance(each, bytes)}
                self.set(number, {actor: None for actor in answers if waiting.get(actor, self.now) < self.now})

    def left(self) -> int:
        return sum(map(len, self.waiting))


def herd(worker: Worker, count: int, tenants: int = 20) -> None:
    partitions = len(worker.sleepers)
    for number in range(partitions):
        herd = [b"tenant-%d:u%d" % (user % tenants, user) for user in range(number, count, partitions)]
        worker.set(number, dict.fromkeys(herd, worker.now - 1))


async def test_a_herd_is_woken_to_the_last_each_once() -> None:
    worker = Worker(4, folds_per_second=8000)
    herd(worker, 20_000)
    rings = 0
    while worker.left():
        await worker.ring()
        rings += 1
    assert Counter(Counter(worker.woken).values()) == {1: 20_000}
    assert rings * RING_MS < 2 * 20_000 / 8000 * 1000, "the fold has been busy most of the time"


async def test_an_event_that_comes_in_the_middle_of_a_herd_does_not_wait_for_all_of_it() -> None:
    worker = Worker(4, folds_per_second=5000, events_per_second=2000)
    herd(worker, 20_000)
    while worker.left():
        await worker.ring()
    assert worker.slowest_event_ms <= 1000
    assert worker.most_unanswered <= 2700, "what it folds in half a second, and a few that were owed"


async def test_wake_ups_get_their_share_where_there_are_more_events_than_can_be_folded() -> None:
    worker = Worker(4, folds_per_second=2000, events_per_second=2400)
    for _ in range(200):  # When the herd is due, the fold is 2 s behind, and more so each second.
        await worker.ring()
    herd(worker, 8000)
    rings = 0
    while worker.left():
        await worker.ring()
        rings += 1
    assert rings * RING_MS <= 30_000
    assert set(Counter(worker.woken).values()) == {1}


def test_as_many_are_allowed_as_are_answered_in_half_a_second_and_never_few() -> None:
    now = 0.0
    allowance = Allowance(lambda: now)
    allowed = [allowance.most(0, 1)]
    for answered in (10_000, 10_000, 10_000, 7000, 0):
        now += 1
        allowance.count(answered, {})
        allowed.append(allowance.most(0, 1))
    assert allowed == [2400, 4800, 5000, 5000, 3500, 2400]
    assert allowance.most(0, 24) == 100


@pytest.mark.parametrize("folding", [True, False])
async def test_no_partition_has_more_unanswered_than_its_limit(folding: bool) -> None:
    worker = Worker(4, folds_per_second=40_000)
    herd(worker, 20_000)
    for _ in range(100):
        await worker.ring(folding=folding)
        assert all(each.alarm.unanswered() <= 1000 for each in worker.sleepers)
    if not folding:
        assert len(worker.woken) == LEAST_UNANSWERED, "as long as nothing is folded"


async def test_a_partition_that_lags_does_not_let_the_others_have_more() -> None:
    worker = Worker(4, folds_per_second=4000)
    herd(worker, 20_000)
    worker.logs[3] = [b"nobody:%d" % number for number in range(1000)]  # It has a lag, as nobody else has,
    for _ in range(40):
        await worker.ring()
        worker.logs[3] += [b"nobody:%d" % number for number in range(1000)]  # and goes on having it.
        assert all(each.alarm.unanswered() <= LEAST_UNANSWERED / 4 + 50 for each in worker.sleepers[:3])
    assert len(worker.waiting[0]) <= 5000 - 40 * 4000 * RING_MS / 1000 / 4 + 20, "and they have had their turns"


async def test_the_partitions_in_which_somebody_is_due_have_the_allowance_for_themselves() -> None:
    worker = Worker(50, folds_per_second=8000)
    worker.set(7, {b"t:u%d" % user: worker.now for user in range(3000)})
    await worker.ring(folding=False)
    assert len(worker.woken) == 1000


async def test_a_timer_set_behind_what_was_looked_through_is_found_within_a_second_or_so() -> None:
    worker = Worker(2, folds_per_second=2000)
    herd(worker, 10_000)
    for _ in range(20):
        await worker.ring()
    worker.set(0, {b"other:ann": worker.now - 500_000, b"other:bob": worker.now - 1})
    for _ in range(30):
        await worker.ring()
    assert {b"other:ann", b"other:bob"} <= set(worker.woken)
    assert worker.left() > 3000, "long before the herd was through"


async def test_a_small_tenant_does_not_wait_for_the_herd_of_a_large_one() -> None:
    worker = Worker(1, folds_per_second=2000)
    worker.set(0, {b"large:u%d" % user: worker.now - 1 for user in range(8000)})
    for _ in range(20):
        await worker.ring()
    before = len(worker.woken)
    worker.set(0, {b"small:u%d" % user: worker.now for user in range(50)})
    while b"small:" in b"".join(worker.waiting[0]):
        await worker.ring()
    later = worker.woken[before:]
    assert len(later) < 4000, "the herd was far from through"
    begin = later.index(next(actor for actor in later if actor.startswith(b"small")))
    assert sum(actor.startswith(b"small") for actor in later[begin : begin + 100]) >= 49, "from then on every other one"


async def test_wake_ups_that_nobody_heard_are_appended_again_at_the_next_ring() -> None:
    worker = Worker(2, folds_per_second=2000)
    herd(worker, 100)
    worker.appender.refuses = True
    await worker.ring()
    assert worker.woken == []
    worker.appender.refuses = False
    await worker.ring()
    assert len(set(worker.woken)) == 100


async def test_a_wake_up_that_is_lost_is_appended_again_after_half_a_minute() -> None:
    worker = Worker(1, folds_per_second=2000)
    worker.set(0, {b"t:ann": worker.now, b"t:bob": worker.now})
    await worker.ring(folding=False)
    worker.logs = [[b"t:bob"]]  # ann's is gone
    while worker.left():
        await worker.ring()
    assert worker.woken == [b"t:ann", b"t:bob", b"t:ann"] or worker.woken == [b"t:bob", b"t:ann", b"t:ann"]
    assert 1_030_000 <= worker.now < 1_031_000


async def test_who_is_woken_too_early_by_a_clock_that_was_ahead_is_woken_again_once_it_is_time() -> None:
    worker = Worker(1, folds_per_second=2000)
    due_at = worker.now + 1000
    worker.set(0, {b"t:ann": due_at})
    worker.ahead_ms = 5000
    append = worker.appender.append

    async def append_and_learn(contents: Sequence[tuple[Place, Content]]) -> None:
        worker.ahead_ms = 0  # as an acknowledgement tells
        await append(contents)

    worker.appender.append = append_and_learn  # type: ignore[method-assign]
    while worker.left():
        await worker.ring()
    assert worker.woken == [b"t:ann", b"t:ann"]
    assert due_at < worker.now <= due_at + 2 * RING_MS


async def test_a_wake_up_says_when_it_was_due_and_whose_it_is() -> None:
    worker = Worker(1, folds_per_second=2000)
    worker.set(0, {b"a:ann": worker.now - 5, b"b:bob": worker.now - 5, b"b/campaign:c": worker.now - 7})
    await worker.bell.ring(worker.sleepers)
    found = {
        key: (msgspec.json.decode(value or b"", type=WakeUp).due_at, headers)
        for key, value, headers in chain(*worker.appender.logs.values())
    }
    kind = ("content-type", b"application/json")
    assert found == {
        b"a:ann": (worker.now - 5, (kind, ("tenant", b"a"))),
        b"b:bob": (worker.now - 5, (kind, ("tenant", b"b"))),
        b"b/campaign:c": (worker.now - 7, (kind, ("tenant", b"b"))),
    }
