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

The *alarm* decides who of the due is woken now: a bounded number of wake-ups is unanswered at a time, each is repeated
after a while, and no tenant's flood keeps the others waiting.

Both are told the time; neither asks for it.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from xxhash import xxh64_digest

from engine.runtime.store import KeyValueStore, Write, after_prefix

Due = tuple[int, bytes]  # when, actor
Changes = Mapping[bytes, tuple[int | None, int | None]]  # actor -> due before, due now

NEVER = (1 << 63) - 1
WATERMARK = b"timers-watermark"
REBUILT_AT_ONCE = 10_000  # entries per write while an index is rebuilt: under 1 MB


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
                writes.append((self._timers, self._key(now, actor), b""))
                if now < self.watermark:
                    self.watermark = now
        if writes and self.watermark != self._persisted:
            writes.append(self._watermark_write())
        return writes

    def due(self, now_at: int, limit: int) -> list[Due]:
        """Return up to `limit` actors whose timer is due: the earliest, and if there are more than half as many of
        them, those that became due last, too. So a backlog does not keep waiting who is due just now."""
        if now_at < self.watermark:
            return []
        earliest: list[Due] = []
        for at, actor in self._entries(self.watermark):
            if not earliest:
                self.watermark = at
            if at > now_at or len(earliest) == limit:
                break
            earliest.append((at, actor))
        else:
            if not earliest:
                self.watermark = NEVER
        if len(earliest) < limit:
            return earliest
        half = (limit + 1) // 2
        latest = list(islice(self._entries(earliest[half - 1][0], now_at, backwards=True), limit - half))
        head = earliest[:half]
        seen = set(head)
        return head + [due for due in reversed(latest) if due not in seen]

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
        self._store.write([*writes, self._watermark_write()])
        yield count

    def _entries(self, start_at: int, stop_at: int | None = None, *, backwards: bool = False) -> Iterator[Due]:
        """Yield the entries due from one instant through another, both included."""
        start = self._prefix + start_at.to_bytes(8)
        stop = self._end if stop_at is None else self._prefix + (stop_at + 1).to_bytes(8)
        cut = len(self._prefix)
        for key, _ in self._store.scan(self._timers, start, stop, backwards=backwards):
            yield int.from_bytes(key[cut : cut + 8]), key[cut + 16 :]

    def _key(self, at: int, actor: bytes) -> bytes:
        return self._prefix + at.to_bytes(8) + xxh64_digest(actor) + actor

    def _watermark_write(self) -> Write:
        self.is_complete = True
        self._persisted = self.watermark
        return self._meta, self._watermark_key, self.watermark.to_bytes(8)


class Alarm:
    """Who has been woken and has not answered yet. An answer is a fold that moves the actor's due, or clears it."""

    def __init__(self, limit: int = 1000, repeat_after_ms: int = 30_000) -> None:
        self.limit = limit
        self.repeat_after_ms = repeat_after_ms
        self._woken: dict[bytes, int] = {}  # actor -> when, the one woken first being first

    def choose(self, due: Iterable[Due], now_at: int) -> list[Due]:
        """Return who to wake now, one tenant after the other in turn, and remember them as woken."""
        room = self.room(now_at)
        waiting: dict[bytes, list[Due]] = {}  # tenant -> its due actors
        for at, actor in due:
            if actor not in self._woken:
                waiting.setdefault(actor.partition(b":")[0], []).append((at, actor))
        chosen: list[Due] = []
        turns = [iter(dues) for dues in waiting.values()]
        while turns and len(chosen) < room:
            turns = [turn for turn in turns if _take_turn(turn, chosen, room)]
        for _, actor in chosen:
            self._woken[actor] = now_at
        return chosen

    def settle(self, changes: Changes) -> None:
        """Take note of what a fold has done: whose due has moved, has answered."""
        if not self._woken:
            return
        for actor, (before, now) in changes.items():
            if before != now:
                self._woken.pop(actor, None)

    def room(self, now_at: int) -> int:
        """Return how many may be woken now. Who was woken long ago is forgotten: if still due, they are woken again."""
        while self._woken:
            actor, woken_at = next(iter(self._woken.items()))
            if now_at - woken_at < self.repeat_after_ms:
                break
            del self._woken[actor]
        return self.limit - len(self._woken)

    def unanswered(self) -> int:
        return len(self._woken)


def _take_turn(turn: Iterator[Due], chosen: list[Due], room: int) -> bool:
    """Move one actor to the chosen, if there is room; say whether there was one."""
    if len(chosen) == room:
        return False
    for due in turn:
        chosen.append(due)
        return True
    return False
