"""How a channel worker delivers: one partition of `messages.<channel>`, from command to receipt.

A turn: take what providers answered, begin what is due and what was asked for, make both durable in one commit, and
only then call. So

- a message whose id was seen is dropped: commands may come twice, messages may not;
- nothing blocks its neighbours: calls are under way together, "later" becomes an entry in the store, and a template
  that is missing or broken costs its own message only;
- no call begins later than half the session timeout after its attempt was committed: by then another worker may own
  the partition, and would find the attempt open;
- an attempt found open at the start is a call that was cut off: unknown, and treated as `deliveries` says.

A clean stop begins nothing new, gives the calls under way a few seconds, and commits what they came to.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog

from agents.channels import deliveries
from agents.channels.deliveries import Accepted, Conclusion, Delivery, KeptBack, Later, NotBegun, Outcome, Refused
from agents.channels.ledger import Ledger
from agents.channels.pacing import Pace, Turn
from engine.errors import PermanentFailure, TemporaryFailure, UnknownOutcome
from engine.runtime import tracing
from engine.runtime.dead_letters import DEAD_LETTERS, park
from engine.runtime.host import Batch, Definitions, Fenced, PartitionHost, Suppressions
from engine.runtime.metrics import Metrics
from schemas.definitions import Definition
from schemas.journal import LINES_TYPE, write_entries
from schemas.outputs import JournalEntry, Message, Suppression
from schemas.records import JSON_TYPE, Headers, NewRecord, Record

POLL_RECORDS: Final = 200  # a record is up to 36 kB: 7 MB waiting in memory at most
TURN_CALLS: Final = 50  # begun in one turn; more would delay the commit of what has been answered
IDLE_SECONDS: Final = 1.0  # without anything to do
FORGOTTEN_PER_TURN: Final = 200
CLOGGED_SECONDS: Final = 60.0  # what a slow receiver's messages are put aside for: a million waiting cost 2 % of a core
CALL_SECONDS: Final = 120.0  # channels have tighter limits of their own; this one is for their bugs
TEMPLATE_PATIENCE: Final = timedelta(seconds=30)  # for a template that was published a moment ago
EMPTY: Final = Definition("", "template", "", 0, "", msgspec.Raw(b"{}"))

_log = structlog.get_logger(__name__)
_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder().encode

Content = TypeVar("Content")


class Channel(Protocol[Content]):
    """One way to reach people. `Content` is what `render` makes and `deliver` sends."""

    name: str
    idempotent: bool  # the provider recognises a command's id that comes twice
    needs_template: bool  # else `render` is given an empty one
    concurrency: int  # how many calls may be under way at once in this process: what its `Pace` is made with

    def target(self, message: Message) -> str:
        """Where the message goes, as suppressions name it. Raises PermanentFailure if it can't go anywhere."""
        ...

    def lane(self, message: Message) -> str | None:
        """Whose slowness must not slow down the others; None where all go through the same door."""
        ...

    def render(self, message: Message, template: Definition) -> Content:
        """Make what the person receives. Whatever it raises fails the message."""
        ...

    async def deliver(self, message: Message, content: Content) -> str | Accepted:
        """Hand the message over; return what the provider said, with an answer for the run if there is one.

        Raises TemporaryFailure, PermanentFailure, or UnknownOutcome where it was handed over and no answer came. May be
        cancelled at any time."""
        ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...


class _Call:
    """An attempt that is committed with this turn, and what will be sent."""

    __slots__ = ("content", "delivery", "turn")

    def __init__(self, delivery: Delivery, content: Any, turn: Turn) -> None:
        self.delivery = delivery
        self.content = content
        self.turn = turn


class ChannelPartition:
    """Delivers what one partition asks for, until it is stopped, cancelled or fenced."""

    def __init__(
        self,
        host: PartitionHost,
        channel: Channel[Any],
        definitions: Definitions,
        suppressions: Suppressions,
        metrics: Metrics,
        pace: Pace,
        clock: Callable[[], int],
        retention: timedelta = timedelta(days=7),
        session_timeout_seconds: float = 10.0,
        drain_seconds: float | None = None,
    ) -> None:
        """`clock` tells milliseconds since the epoch; `retention` is how long the log keeps commands; at a stop, calls
        under way have `drain_seconds` to end."""
        self._host = host
        self._channel = channel
        self._definitions = definitions
        self._suppressions = suppressions
        self._metrics = metrics
        self._pace = pace
        self._clock = clock
        self._remember_ms = int((retention + timedelta(days=1)).total_seconds() * 1000)  # logs delete by whole segments
        self._begin_within_seconds = session_timeout_seconds / 2
        # Less than half the session timeout, or the partition would be lost before the outcomes are committed.
        self._drain_seconds = 0.4 * session_timeout_seconds if drain_seconds is None else drain_seconds
        self._ledger = Ledger(host.store)
        self._backlog: deque[tuple[Record, Message | Exception]] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._finished: deque[tuple[Delivery, Outcome]] = deque()
        self._nudged = asyncio.Event()
        self._turns_held: set[Turn] = set()  # taken, and the call has not begun
        self._refused_turn = False  # something is ready to begin and waits for its turn
        self._retries_first = False
        self._stopping = False
        self._waiting = metrics.channel_retries_waiting.labels(channel.name, str(host.number))

    async def run(self) -> None:
        """Deliver until `stop()` or cancellation, both of which let the calls under way come to an end first.

        Raises what the host raises: Fenced, when the partition was lost; then the calls under way are cut off.
        """
        # Turns are a task of their own: a cancellation must not fall between a commit and the calls it was made for,
        # or they would be found open and be reported as unknown although they never began.
        turns = asyncio.create_task(self._turns(), name=f"deliver {self._host.topic} {self._host.number}")
        try:
            await asyncio.shield(turns)
        except asyncio.CancelledError:
            self.stop()
            await asyncio.wait({turns}, timeout=2 * self._drain_seconds)
            turns.cancel()
            await asyncio.gather(turns, return_exceptions=True)
            raise

    def stop(self) -> None:
        """Begin nothing new; `run` returns when the calls under way have ended."""
        self._stopping = True
        self._nudge()

    async def _turns(self) -> None:
        try:
            await self._recover()
            while not self._stopping:
                await self._turn()
                await self._wait()
        except Fenced:
            raise
        except Exception:  # The broker or the disk, say. The calls under way have nothing to do with it.
            with suppress(Exception):
                await self._drain()
            raise
        else:
            await self._drain()
        finally:
            self._pace.leave(self._nudge)
            for turn in self._turns_held:
                self._pace.end(turn)
            await self._cut_off()
            self._waiting.set(0)  # it is another's to count now

    async def _recover(self) -> None:
        """Treat the calls that were cut off as unknown, and count what waits."""
        for delivery in self._ledger.interrupted():  # at most `concurrency` of them
            self._finished.append((delivery, deliveries.Unknown("the worker stopped during the call")))
        waiting = 0
        for _ in self._ledger.waiting():
            waiting += 1
            if waiting % 1000 == 0:  # half a microsecond each: a million would hold up heartbeats
                await asyncio.sleep(0)
        self._waiting.set(waiting)

    async def _turn(self) -> None:
        self._nudged.clear()
        batch = Batch(through=-1)
        finished, self._finished = self._finished, deque()
        try:
            for delivery, outcome in finished:
                self._conclude(delivery, outcome, self._clock(), batch)
            calls = await self._begin(batch)
            self._ledger.forget(self._clock(), FORGOTTEN_PER_TURN)
            committed_at = time.monotonic()
            await self._commit(batch)
            if calls:
                await self._host.durable()
        except Exception:
            self._ledger.take_changes()  # of attempts that will not be made
            self._finished.extendleft(reversed(finished))
            raise
        for call in calls:
            self._start(call, committed_at)

    async def _commit(self, batch: Batch) -> None:
        batch.states = self._ledger.take_changes()
        if batch.states or batch.outputs or batch.through >= 0:
            await self._host.commit(batch)
            self._metrics.commits.labels(self._host.topic, str(self._host.number)).inc()

    def _start(self, call: _Call, committed_at: float) -> None:
        in_flight = self._metrics.channel_calls_in_flight.labels(self._channel.name)

        def end(task: asyncio.Task[None]) -> None:  # not in the task itself: one cut off at once never runs
            self._calls.discard(task)
            in_flight.dec()
            self._pace.end(call.turn)
            self._nudge()

        in_flight.inc()
        self._turns_held.discard(call.turn)  # from here on it is the call's
        task = asyncio.create_task(self._call(call, committed_at))
        self._calls.add(task)
        task.add_done_callback(end)

    async def _wait(self) -> None:
        """Until there is something to do: an answer, a command, a retry, a turn."""
        now = self._clock()
        due_at = self._ledger.next_due_at()
        if self._finished or self._nudged.is_set() or self._stopping:
            return
        if self._refused_turn:
            timeout = self._pace.seconds_until_turn(self._nudge) or IDLE_SECONDS
            await _wait_for(self._nudged, timeout)
            return
        if self._backlog or (due_at is not None and due_at <= now):
            return
        timeout = IDLE_SECONDS if due_at is None else min(IDLE_SECONDS, (due_at - now) / 1000)
        for record in await self._host.poll(POLL_RECORDS, timeout):
            self._backlog.append((record, self._read(record)))

    async def _begin(self, batch: Batch) -> list[_Call]:
        """Go through due retries and commands by turns, and collect the calls that may be made."""
        calls: list[_Call] = []
        retries = deque(self._ledger.due(self._clock(), TURN_CALLS))
        self._refused_turn = False
        for _ in range(POLL_RECORDS):
            if not (retries or self._backlog) or len(calls) == TURN_CALLS:
                break
            self._retries_first = not self._retries_first
            from_retries = bool(retries) and (self._retries_first or not self._backlog)
            message = retries[0].message if from_retries else self._backlog[0][1]
            lane = self._channel.lane(message) if isinstance(message, Message) else None
            is_clogged = self._pace.is_clogged(lane)
            turn = None if is_clogged else self._pace.take(self._nudge, lane)
            if turn is not None:
                self._turns_held.add(turn)
            elif not is_clogged:
                self._refused_turn = True
                break
            delivery = self._take_retry(retries.popleft()) if from_retries else self._receive(batch)
            call = None if delivery is None else await self._prepare(delivery, turn, batch)
            if call is not None:
                calls.append(call)
            elif turn is not None:
                self._turns_held.discard(turn)
                self._pace.give_back(turn)
            await asyncio.sleep(0)  # Rendering takes a millisecond: the process has others to serve.
        return calls

    def _read(self, record: Record) -> Message | Exception:
        try:
            message = _decode(record.value or b"")
        except (ValueError, msgspec.MsgspecError) as error:
            return error
        if message.channel == self._channel.name:
            return message
        return ValueError(f"a command for the channel {message.channel!r} in {self._host.topic}")

    def _receive(self, batch: Batch) -> Delivery | None:
        """Take the next command; None if it is none, or was seen before."""
        record, message = self._backlog.popleft()
        batch.through = record.offset
        if isinstance(message, Exception):
            batch.outputs.append(park(DEAD_LETTERS, record, str(message), self._host.topic, self._host.number))
            self._metrics.dead_letters.labels(self._host.topic, "malformed").inc()
            _log.error("a command that can't be read was parked", topic=self._host.topic, offset=record.offset)
            return None
        if self._ledger.knows(message.tenant, message.id):
            self._metrics.channel_duplicates_dropped.labels(self._channel.name).inc()
            return None
        carried = tracing.carried(record.headers)
        now = self._clock()
        self._metrics.channel_pacing_seconds.labels(self._channel.name).observe(max(0, now - record.timestamp) / 1000)
        return Delivery(message, now, traceparent=carried[1].decode("ascii", "replace") if carried else "")

    def _take_retry(self, delivery: Delivery) -> Delivery:
        self._waiting.dec()
        return delivery

    async def _prepare(self, delivery: Delivery, turn: Turn | None, batch: Batch) -> _Call | None:
        """Collect the attempt, or what became of the message instead. Without a turn its lane is clogged."""
        message = delivery.message
        content = await self._render(delivery) if turn is not None else Later("slow", CLOGGED_SECONDS)
        now = self._clock()
        if turn is None or isinstance(content, Accepted | Refused | KeptBack | Later):
            self._conclude(delivery, content, now, batch)
            return None
        calling, entry = deliveries.attempt(delivery, now)
        self._ledger.put(calling, delivery)
        batch.outputs.append(_told(message, entry, delivery.traceparent))
        self._metrics.channel_attempts.labels(self._channel.name).inc()
        return _Call(calling, content, turn)

    async def _render(self, delivery: Delivery) -> Any:
        """What to send, or the outcome that makes sending needless."""
        message = delivery.message
        if deliveries.is_expired(message, self._clock()):
            return KeptBack("late")
        template = self._template_of(message)
        if template is None:
            missing = f"the template {message.template!r} is not among the definitions"
            waited_ms = self._clock() - delivery.began_at
            return Refused(missing) if waited_ms >= TEMPLATE_PATIENCE.total_seconds() * 1000 else Later(missing)
        try:
            target = self._channel.target(message)
            content = self._channel.render(message, template)
        except PermanentFailure as failure:
            return Refused(str(failure), failure.bounced)
        except Exception as error:  # Templates and what is put into them are others' work: any error is the message's.
            return Refused(f"cannot be rendered: {error}"[:500])
        topic = "transactional" if message.transactional else message.topic
        scope = await self._suppressions.scope(message.tenant, message.channel, target, topic)
        if scope is not None:
            self._metrics.channel_suppressed.labels(self._channel.name).inc()
            return KeptBack(f"suppressed: {scope}")
        return content

    def _template_of(self, message: Message) -> Definition | None:
        if not self._channel.needs_template:
            return EMPTY
        return self._definitions.find(f"{message.tenant}/template/{message.template}")

    async def _call(self, call: _Call, committed_at: float) -> None:
        """One call of the provider; its outcome is collected for the next turn. Cut off, it stays open in the store,
        and is unknown to whoever finds it there."""
        outcome = await self._deliver(call, committed_at)
        self._finished.append((call.delivery, outcome))

    async def _deliver(self, call: _Call, committed_at: float) -> Outcome:
        message = call.delivery.message
        headers: Headers = (tracing.record_header(call.delivery.traceparent),) if call.delivery.traceparent else ()
        is_late = time.monotonic() - committed_at > self._begin_within_seconds
        if is_late or deliveries.is_expired(message, self._clock()):
            return NotBegun()
        with (
            tracing.span(f"deliver {self._channel.name}", headers, tracing.CLIENT),
            self._metrics.channel_call_seconds.labels(self._channel.name).time(),
        ):
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    said = await self._channel.deliver(message, call.content)
                    return said if isinstance(said, Accepted) else Accepted(said)
            except TemporaryFailure as failure:
                return Later(str(failure), failure.retry_after_seconds)
            except PermanentFailure as failure:
                return Refused(str(failure), failure.bounced, failure.gone)
            except UnknownOutcome as failure:
                return deliveries.Unknown(str(failure))
            except TimeoutError:
                return deliveries.Unknown(f"no answer within {CALL_SECONDS:g} s")
            except Exception as error:  # A bug of the channel's: whether the message went out can't be told.
                _log.exception("a channel raised what it must not", channel=message.channel, message=message.id)
                return deliveries.Unknown(f"{type(error).__name__}: {error}"[:500])

    def _conclude(self, delivery: Delivery, outcome: Outcome, now: int, batch: Batch) -> None:
        """Collect what an outcome makes of a delivery."""
        message = delivery.message
        conclusion = deliveries.conclude(delivery, outcome, now, self._channel.idempotent)
        if conclusion.delivery is None:
            self._ledger.finish(delivery, now + self._remember_ms)
        else:
            self._ledger.put(conclusion.delivery, delivery)
            self._waiting.inc()
        if conclusion.receipt is not None:
            receipt = _encode(conclusion.receipt)
            batch.outputs.append(_record("events", message, receipt, JSON_TYPE, delivery.traceparent))
        if conclusion.journal is not None:
            batch.outputs.append(_told(message, conclusion.journal, delivery.traceparent))
        if isinstance(outcome, Refused) and outcome.gone:
            batch.outputs.append(self._suppress(message, outcome.reason, now))
        self._count(conclusion)

    def _suppress(self, message: Message, reason: str, now: int) -> NewRecord:
        """Nobody is there, or wants anything: no more goes to this address on this channel; others aren't touched."""
        target = self._channel.target(message)
        key = f"{message.tenant}:{message.channel}:all:{target}"
        _log.warning("a receiver is gone and gets nothing more", suppression=key, tenant=message.tenant, reason=reason)
        return NewRecord(
            "suppressions",
            key.encode(),
            _encode(Suppression("all", now, reason)),
            _headers(JSON_TYPE, message.tenant, ""),
        )

    def _count(self, conclusion: Conclusion) -> None:
        if conclusion.receipt is not None:
            self._metrics.channel_outcomes.labels(self._channel.name, conclusion.receipt.status).inc()
        if conclusion.delivery is not None:
            self._metrics.channel_retries.labels(self._channel.name).inc()

    async def _drain(self) -> None:
        """Let the calls under way end, cut off those that don't, and commit what is known."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=self._drain_seconds)
        await self._cut_off()
        batch = Batch(through=-1)
        for delivery, outcome in self._finished:
            self._conclude(delivery, outcome, self._clock(), batch)
        self._finished.clear()
        await self._commit(batch)
        await self._host.durable()

    async def _cut_off(self) -> None:
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _nudge(self) -> None:
        self._nudged.set()
        self._host.wake()


def _told(message: Message, entry: JournalEntry, traceparent: str) -> NewRecord:
    [line] = write_entries([entry])
    return _record("journal", message, line, LINES_TYPE, traceparent)


def _record(topic: str, message: Message, value: bytes, type: tuple[str, bytes], traceparent: str) -> NewRecord:
    key = f"{message.tenant}:{message.user}".encode()
    return NewRecord(topic, key, value, _headers(type, message.tenant, traceparent))


def _headers(type: tuple[str, bytes], tenant: str, traceparent: str) -> Headers:
    headers = (type, ("tenant", tenant.encode()))
    return (*headers, tracing.record_header(traceparent)) if traceparent else headers


async def _wait_for(event: asyncio.Event, timeout_seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_seconds)
