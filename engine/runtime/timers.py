"""Which actors have a timer due, and which of them are woken now.

The *index* holds one entry per actor, its earliest due, keyed `due | hash(actor) | actor` in order of time. It is derived
from the states: a fold says "due before, due now" for each actor it changed, and the entries change in the same atomic
write as the states. So only a fold deletes an entry; waking somebody deletes nothing, and a wake-up that gets lost is
simply repeated.

Deleted entries leave tombstones, which a scan from the beginning would have to pass again and again (47 ms a tick). So
the index keeps a low *watermark*: no entry is due before it. It is where the next scan begins, and while it lies in the
future there is nothing to scan. Once the entry it points to is gone, the next scan moves it to the first that is left; a
fold that adds an earlier entry moves it back in the same write. What is persisted may lag behind what is known, never
the other way round.

A herd may be due in one millisecond, and its tombstones would lie behind the watermark. So a scan also remembers, in memory,
the very entry it began with, and the last one it found going backwards: what comes to lie before the one or behind the
other moves it.

The *alarm* decides who of the due is woken now: a bounded number of wake-ups is unanswered at a time, each is repeated
after a while, and no tenant's flood keeps the others waiting.

Both are told the time; neither asks for it.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice

from xxhash import xxh64_digest

from engine.runtime.store import KeyValueStore, Write, after_prefix

Due = tuple[int, bytes]  # when, actor
Changes = Mapping[bytes, tuple[int | None, int | None]]  # actor -> due before, due now

NEVER = (1 << 63) - 1
WATERMARK = b"timers-watermark"
REBUILT_AT_ONCE = 10_000  # entries per write while an index is rebuilt: under 1 MB
LOOKS_AGAIN_AFTER_MS = 1000  # how long who is due just now may wait to be seen, behind a backlog that was seen before


class TimerIndex:
    """The index of one partition, in a family of its own; `prefix` tells partitions that share a store apart.

    `is_complete` is False where no index has ever been written, or a rebuild was interrupted: call `rebuild`.
    """

    def __init__(self, store: KeyValueStore, timers: str = "timers", meta: str = "meta", prefix: bytes = b"") -> None:
        self._store = store
        self._timers, self._meta = timers, meta
        self._prefix, self._end = prefix, after_prefix(prefix)
        self._watermark_key = WATERMARK + prefix
        persisted = store.get(meta, self._watermark_key)
        self.is_complete = persisted is not None
        self.watermark = int.from_bytes(persisted) if persisted is not None else 0
        self._persisted = self.watermark
        self._first = self._last = self._gap_end = b""
        self._forget_what_looks_found()

    def writes(self, changes: Changes) -> list[Write]:
        """Return what to write, in the same atomic write as the states that the changes come from.

        Write it before anything else is asked of the index: from now on it counts on these entries being there.
        """
        assert self.is_complete, "an index is rebuilt before it is used"
        writes: list[Write] = []
        for actor, (before, now) in changes.items():
            if before == now:
                continue
            if before is not None:
                writes.append((self._timers, self._key(before, actor), None))
            if now is not None:
                key = self._key(now, actor)
                writes.append((self._timers, key, b""))
                if now < self.watermark:
                    self.watermark = now
                if key < self._first:
                    self._first = key
                if self._last < key < self._gap_end:
                    self._last = key
        if writes and self.watermark != self._persisted:
            writes.append(self._watermark_write())
        return writes

    def due(self, now_at: int, limit: int) -> list[Due]:
        """Return up to `limit` actors whose timer is due, in order of time: the earliest, and if there are more than half
        as many of them, those that became due last, too. So a backlog does not keep waiting who is due just now."""
        if now_at < self.watermark:
            return []
        end = self._prefix + (now_at + 1).to_bytes(8)
        half = (limit + 1) // 2
        earliest = [key for key, _ in islice(self._store.scan(self._timers, self._first, end), half)]
        self._first = earliest[0] if earliest else self._next_after(end)
        self.watermark = self._entry(self._first)[0]
        if len(earliest) < half:
            return [self._entry(key) for key in earliest]
        latest = list(islice(self._latest_first(earliest[-1] + b"\0", end), limit - half))
        if latest:
            self._last, self._gap_end = latest[0], end
        return [self._entry(key) for key in chain(earliest, reversed(latest))]

    def next_at(self) -> int:
        """Return the instant before which nothing is due; NEVER if nobody waits."""
        return self.watermark

    def rebuild(self, states: Iterable[tuple[bytes, bytes]]) -> Iterator[int]:
        """Write the index anew from the states of the users; yield how many states were read so far, now and then.

        A user's key is `u` and the actor; its state begins with a format byte and the earliest due, 8 bytes, 0 for none.
        """
        self.is_complete = False
        self._store.write([(self._meta, self._watermark_key, None)])
        self._store.delete_range(self._timers, self._prefix, self._end or b"\xff" * 32)
        writes: list[Write] = []
        earliest, count = NEVER, 0
        for count, (key, state) in enumerate(states, 1):
            at = int.from_bytes(state[1:9])
            if at:
                earliest = min(earliest, at)
                writes.append((self._timers, self._key(at, key[1:]), b""))
            if len(writes) == REBUILT_AT_ONCE or count % REBUILT_AT_ONCE == 0:
                self._store.write(writes)
                writes = []
                yield count
        self.watermark = earliest
        self._forget_what_looks_found()
        self._store.write([*writes, self._watermark_write()])
        yield count

    def _next_after(self, end: bytes) -> bytes:
        """Return the first entry from there on: where the next scan begins."""
        for key, _ in self._store.scan(self._timers, end, self._end):
            return key
        return self._prefix + NEVER.to_bytes(8)

    def _latest_first(self, start: bytes, end: bytes) -> Iterator[bytes]:
        """Yield the entries with start <= key < end, the last one first, without going through the gap again."""
        for begin, stop in ((max(start, self._gap_end), end), (start, min(self._last + b"\0", end))):
            if begin < stop:
                yield from (key for key, _ in self._store.scan(self._timers, begin, stop, backwards=True))

    def _forget_what_looks_found(self) -> None:
        self._first = self._prefix + self.watermark.to_bytes(8)  # no entry is before it
        self._last = self._gap_end = b""  # nor between the two of these

    def _entry(self, key: bytes) -> Due:
        cut = len(self._prefix)
        return int.from_bytes(key[cut : cut + 8]), key[cut + 16 :]

    def _key(self, at: int, actor: bytes) -> bytes:
        return self._prefix + at.to_bytes(8) + xxh64_digest(actor) + actor

    def _watermark_write(self) -> Write:
        self.is_complete = True
        self._persisted = self.watermark
        return self._meta, self._watermark_key, self.watermark.to_bytes(8)


class Alarm:
    """Who has been woken and has not answered yet, and who was seen to be due and waits for that.

    An answer is a fold that moves the actor's due, or clears it. Whoever is seen waits in the line of their tenant, and the
    tenants have their turns. A look replaces the lines; in between, `settle` takes out who needs it no more. So nothing is
    lost by what the lines have wrong: an entry that is still in the index is seen again.
    """

    def __init__(self, limit: int = 1000, repeat_after_ms: int = 30_000) -> None:
        self.limit = limit
        self.repeat_after_ms = repeat_after_ms
        self._woken: dict[bytes, int] = {}  # actor -> when, the one woken first being first
        self._lines: deque[tuple[bytes, deque[Due]]] = deque()  # tenant and who of it waits; whose turn it is first
        self._in_line: set[bytes] = set()
        self._looked_at = 0
        self._answered = 0

    def choose(self, due: Iterable[Due], now_at: int) -> list[Due]:
        """Look, and return who to wake now: as many as the limit allows."""
        self.room(now_at)
        self.look(due, now_at)
        return self.take(now_at, self.limit)

    def needs_look(self, now_at: int, most: int) -> bool:
        """Say whether to look who is due before the next are taken: all were taken that were seen, or it is a while ago."""
        most = min(self.limit, most)
        room = self.room(now_at, most)
        if not self._in_line:
            return room > 0 and 2 * room >= most  # not for a few: a look passes all who were woken
        return room > 0 and now_at - self._looked_at >= LOOKS_AGAIN_AFTER_MS

    def look(self, due: Iterable[Due], now_at: int) -> None:
        """Take note of who is due, instead of who was before."""
        lines: dict[bytes, deque[Due]] = {tenant: deque() for tenant, _ in self._lines}  # whose turn it was keeps it
        self._in_line.clear()
        for each in due:
            actor = each[1]
            if actor not in self._woken:
                lines.setdefault(actor.partition(b":")[0], deque()).append(each)
                self._in_line.add(actor)
        self._lines = deque((tenant, line) for tenant, line in lines.items() if line)
        self._looked_at = now_at

    def take(self, now_at: int, most: int) -> list[Due]:
        """Return who to wake now, one tenant after the other in turn, and remember them as woken. `most` may be unanswered
        then."""
        room = self.room(now_at, most)
        chosen: list[Due] = []
        lines, in_line = self._lines, self._in_line
        while lines and len(chosen) < room:
            tenant, line = lines.popleft()
            while line:
                due = line.popleft()
                if due[1] in in_line:
                    in_line.remove(due[1])
                    self._woken[due[1]] = now_at
                    chosen.append(due)
                    break
            if line:
                lines.append((tenant, line))
        return chosen

    def settle(self, changes: Changes) -> None:
        """Take note of what a fold has done: whose due has moved, has answered."""
        if not self._woken and not self._in_line:
            return
        for actor, (before, now) in changes.items():
            if before == now:
                continue
            if self._woken.pop(actor, None) is not None:
                self._answered += 1
            else:
                self._in_line.discard(actor)

    def recall(self, actors: Iterable[bytes]) -> None:
        """These were not woken after all, or too early: they may be woken again at once, after another look."""
        for actor in actors:
            self._woken.pop(actor, None)
        self._lines.clear()
        self._in_line.clear()

    def room(self, now_at: int, most: int | None = None) -> int:
        """Return how many may be woken now. Who was woken long ago is forgotten: if still due, they are woken again."""
        while self._woken:
            actor, woken_at = next(iter(self._woken.items()))
            if now_at - woken_at < self.repeat_after_ms:
                break
            del self._woken[actor]
        return (self.limit if most is None else min(self.limit, most)) - len(self._woken)

    def unanswered(self) -> int:
        return len(self._woken)

    def waiting(self) -> int:
        """Return how many were seen to be due and are not woken yet."""
        return len(self._in_line)

    def count_answered(self) -> int:
        """Return how many have answered since this was asked last."""
        answered, self._answered = self._answered, 0
        return answered
