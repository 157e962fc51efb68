"""When idle actors are woken: the clock that says so, and the wake-ups that are appended.

Whether a timer is due is decided by the time of the log, in the fold; a wake-up only gives an actor a record. So its
clock is the broker's, as far as acknowledged append times tell it, and always a little behind; one too early is repeated.

Thousands may be due at once, and the events of others come meanwhile, in the same log. So the wake-ups are appended by and
by, as they are answered.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic, time

import msgspec
import structlog

from engine.runtime.host import Overloaded, PartitionStopped, Unavailable
from engine.runtime.intake import tenant_of
from engine.runtime.kafka.appender import Appender
from engine.runtime.kafka.transactions import Content, Place
from engine.runtime.metrics import Metrics
from engine.runtime.timers import Alarm, Due, TimerIndex
from schemas.inputs import WakeUp
from schemas.records import JSON_TYPE, Headers

# What else is appended waits behind the wake-ups in the log, so this is most of what it waits for. It is also several times
# what a wake-up takes that waits for nothing (appended, fetched, folded, committed: some 0.1 s); else the fold would idle.
ANSWERED_WITHIN_SECONDS = 0.5
COUNTED_FOR_SECONDS = 0.5
LEAST_UNANSWERED = 2400  # of a process: 100 for each of 24 partitions. Fewer make batches so small that they cost more
LEAST_SHARE = 1 / 3  # wake-ups for each record folded, where there is more to fold than can be

_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger(__name__)


def host_clock() -> int:
    return int(time() * 1000)


class BrokerClock:
    """What time it is at the broker, in ms, as far as we have heard; before we have, what time it is here."""

    def __init__(self, host: Callable[[], int] = host_clock) -> None:
        self._host = host
        self._ahead_ms = 0

    def now_at(self) -> int:
        return self._host() + self._ahead_ms

    def learn_append(self, appended_at: int) -> None:
        """A record was acknowledged just now that was appended then."""
        self._ahead_ms = appended_at - self._host()

    def learn_record(self, appended_at: int) -> None:
        """A record was read that was appended then, perhaps long ago: it is not earlier at the broker."""
        self._ahead_ms = max(self._ahead_ms, appended_at - self._host())


@dataclass(slots=True)
class Sleepers:
    """The timers of one partition, and who of it has been woken. `fail` is told why the timers cannot be read."""

    place: Place
    timers: TimerIndex
    alarm: Alarm
    fail: Callable[[PartitionStopped], None]


class Allowance:
    """How many wake-ups of a process may be unanswered at a time: as many as it answers in half a second.

    Whatever else is appended waits behind them in the same logs, so they may not be many; but the fold must not run out of
    them either. What a fold costs differs by machine and journey. So the answers are counted: if they come faster, more are
    allowed, if slower, fewer. They are slow, too, where the log is full of other things; not to come last then, a wake-up is
    appended for each so many records folded, however many are unanswered. `clock` tells seconds and never goes back.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._most = LEAST_UNANSWERED
        self._answered = 0
        self._counted_since = clock()
        self._through: Mapping[int, int] = {}  # the last offset folded, by partition
        self._owed = 0.0

    def count(self, answered: int, through: Mapping[int, int]) -> None:
        """Take note of how many have answered since the last time; `through` is the last offset folded, by partition."""
        before, self._through = self._through, through
        folded = sum([now - before.get(number, now) for number, now in through.items()])
        self._owed = min(LEAST_UNANSWERED, self._owed + max(0, folded) * LEAST_SHARE)
        self._answered += answered
        elapsed = self._clock() - self._counted_since
        if elapsed >= COUNTED_FOR_SECONDS:
            within = int(self._answered / elapsed * ANSWERED_WITHIN_SECONDS)
            self._most = max(LEAST_UNANSWERED, min(2 * self._most, within))
            self._answered, self._counted_since = 0, self._clock()

    def most(self, unanswered: int, sharing: int) -> int:
        """Return how many may be unanswered of one of the partitions that share this, in which so many are by now."""
        return max(1, self._most // sharing, unanswered + int(self._owed) // sharing)

    def spend(self, woken: int) -> None:
        """Take note of how many were woken."""
        self._owed = max(0.0, self._owed - woken)


class WakeUps:
    """Appends wake-ups for the partitions of a process."""

    def __init__(
        self, appender: Appender, clock: BrokerClock, metrics: Metrics, topic: str, allowance: Allowance | None = None
    ) -> None:
        self._appender = appender
        self._clock = clock
        self._metrics = metrics
        self._topic = topic
        self._allowance = allowance or Allowance()

    async def ring(self, partitions: Iterable[Sleepers], through: Mapping[int, int] | None = None) -> None:
        """Wake who is due, as many as the allowance and each partition's alarm permit, and return when that is
        acknowledged. The partitions in which somebody is due share alike. `through` is the last offset folded of each."""
        now_at = self._clock.now_at()
        asleep = list(partitions)
        self._allowance.count(sum([sleepers.alarm.count_answered() for sleepers in asleep]), through or {})
        sharing = sum([sleepers.timers.next_at() <= now_at for sleepers in asleep])
        woken = [(sleepers, due) for sleepers in asleep if (due := self._choose(sleepers, now_at, sharing))]
        if not woken:
            return
        count = sum([len(dues) for _, dues in woken])
        self._allowance.spend(count)
        contents = _Contents()
        try:
            await self._appender.append(
                [(sleepers.place, contents.wake_up(due)) for sleepers, dues in woken for due in dues]
            )
        except (Overloaded, Unavailable) as error:
            _log.warning("wake-ups could not be appended", reason=str(error), actors=count)
            now_at = 0  # nobody heard us: all of them are to be woken again
        else:
            self._metrics.wake_ups_appended.labels(self._topic).inc(count)
            now_at = self._clock.now_at()
        for sleepers, dues in woken:
            if early := [actor for due_at, actor in dues if due_at > now_at]:  # our clock was ahead of the broker's
                sleepers.alarm.recall(early)

    def _choose(self, sleepers: Sleepers, now_at: int, sharing: int) -> list[Due]:
        """Return whom of a partition to wake; so many partitions share the allowance."""
        timers, alarm = sleepers.timers, sleepers.alarm
        chosen: list[Due] = []
        try:
            if timers.next_at() <= now_at:
                most = self._allowance.most(alarm.unanswered(), sharing)
                if alarm.needs_look(now_at, most):  # Of those it sees, so many may have been woken before.
                    alarm.look(timers.due(now_at, 2 * (alarm.unanswered() + most)), now_at)
                chosen = alarm.take(now_at, most)
        except PartitionStopped as error:  # the others' sleepers are woken all the same
            sleepers.fail(error)
            return []
        labels = (self._topic, str(sleepers.place[1]))
        is_due = timers.next_at() <= now_at
        self._metrics.timers_due.labels(*labels).set(alarm.unanswered() + alarm.waiting() if is_due else 0)
        self._metrics.wake_ups_unanswered.labels(*labels).set(alarm.unanswered())
        return chosen


class _Contents:
    """Makes the records of one ring. What many of them have in common is made once."""

    def __init__(self) -> None:
        self._values: dict[int, bytes] = {}  # by when they were due
        self._headers: dict[bytes, Headers] = {}  # by tenant

    def wake_up(self, due: Due) -> Content:
        due_at, actor = due
        value = self._values.get(due_at)
        if value is None:
            value = self._values[due_at] = _encode(WakeUp(due_at))
        tenant = tenant_of(actor)
        headers = self._headers.get(tenant)
        if headers is None:
            headers = self._headers[tenant] = (JSON_TYPE, ("tenant", tenant))
        return actor, value, headers
