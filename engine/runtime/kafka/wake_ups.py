"""When idle actors are woken: the clock that says so, and the wake-ups that are appended.

Whether a timer is due is decided by the time of the log, in the fold; a wake-up only gives an actor a record. So its
clock is the broker's, as far as acknowledged append times tell it, and always a little behind; one too early is repeated.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import time

import msgspec
import structlog

from engine.runtime.host import Overloaded, PartitionStopped, Unavailable
from engine.runtime.intake import tenant_of
from engine.runtime.kafka.appender import Appender
from engine.runtime.kafka.transactions import Content, Place
from engine.runtime.metrics import Metrics
from engine.runtime.timers import Alarm, Due, TimerIndex
from schemas.inputs import WakeUp

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


class WakeUps:
    """Appends wake-ups for the partitions of a process."""

    def __init__(self, appender: Appender, clock: BrokerClock, metrics: Metrics, topic: str) -> None:
        self._appender = appender
        self._clock = clock
        self._metrics = metrics
        self._topic = topic

    async def ring(self, partitions: Iterable[Sleepers]) -> None:
        """Wake who is due, as many as each partition's alarm allows, and return when that is acknowledged."""
        now_at = self._clock.now_at()
        woken: list[tuple[Sleepers, Due]] = []
        for sleepers in partitions:
            try:
                due = sleepers.timers.due(now_at, 2 * sleepers.alarm.limit)
            except PartitionStopped as error:  # the others' sleepers are woken all the same
                sleepers.fail(error)
                continue
            woken += ((sleepers, each) for each in sleepers.alarm.choose(due, now_at))
            labels = (self._topic, str(sleepers.place[1]))
            self._metrics.timers_due.labels(*labels).set(len(due))
            self._metrics.wake_ups_unanswered.labels(*labels).set(sleepers.alarm.unanswered())
        if not woken:
            return
        try:
            await self._appender.append([(sleepers.place, _wake_up(due)) for sleepers, due in woken])
        except (Overloaded, Unavailable) as error:
            _log.warning("wake-ups could not be appended", reason=str(error), actors=len(woken))
            now_at = 0  # nobody heard us: all of them are to be woken again
        else:
            self._metrics.wake_ups_appended.labels(self._topic).inc(len(woken))
            now_at = self._clock.now_at()
        for sleepers, (due_at, actor) in woken:
            if due_at > now_at:  # the clock we had was ahead of the broker's
                sleepers.alarm.settle({actor: (due_at, None)})


def _wake_up(due: Due) -> Content:
    due_at, actor = due
    return actor, _encode(WakeUp(due_at)), (("content-type", b"application/json"), ("tenant", tenant_of(actor)))
