"""How many calls of one provider may begin each second and be under way at once, in this process.

All partitions of a channel share one `Pace`. A partition takes a turn before it begins a call; who is refused stands in
line, and is told when it may ask again. One turn is kept for each partition ahead in the line, so that a busy partition
can't keep the others waiting for ever.

A *lane* is whose slowness must not slow down others: where each tenant has an endpoint of its own, the tenant. One lane
has at most half of the calls under way. If they take long, it is *clogged*: what waits for it should be put aside, and
not wait where others have to pass.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

SLOW_SECONDS: Final = 2.0
_BURST_SECONDS: Final = 0.2  # After a pause this much of a second's calls may begin at once: a commit takes that long.


class Turn:
    """The right to make one call, until it is ended or given back."""

    __slots__ = ("began", "lane")

    def __init__(self, lane: str | None, began: float) -> None:
        self.lane = lane
        self.began = began


class Pace:
    """Turns to be taken, at most `concurrency` at once and `per_second` a second. For one event loop."""

    def __init__(self, concurrency: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.concurrency = concurrency
        self._lane_limit = max(1, concurrency // 2)
        self._per_second = per_second
        self._clock = clock
        self._burst = max(1.0, per_second * _BURST_SECONDS)
        self._tokens = self._burst
        self._filled_at = clock()
        self._taken = 0
        self._lanes: defaultdict[str, dict[Turn, None]] = defaultdict(dict)  # the oldest turn first
        self._line: dict[Callable[[], None], None] = {}  # in the order of coming

    @property
    def taken(self) -> int:
        return self._taken

    def take(self, tell: Callable[[], None], lane: str | None = None) -> Turn | None:
        """Take a turn, or stand in line: then ask again when `tell` is called or `seconds_until_turn` have passed."""
        self._fill()
        free = min(self.concurrency - self._taken, int(self._tokens))
        if free <= self._ahead(tell) or self._is_full(lane):
            self._line.setdefault(tell)
            return None
        self._line.pop(tell, None)
        self._taken += 1
        self._tokens -= 1
        turn = Turn(lane, self._clock())
        if lane is not None:
            self._lanes[lane][turn] = None
        return turn

    def is_clogged(self, lane: str | None) -> bool:
        """Has a lane all the calls it may have under way, and do they take long?"""
        if lane is None or not self._is_full(lane):
            return False
        return self._clock() - next(iter(self._lanes[lane])).began > SLOW_SECONDS

    def end(self, turn: Turn) -> None:
        """A call that had a turn is over."""
        self._taken -= 1
        if turn.lane is not None:
            turns = self._lanes[turn.lane]
            del turns[turn]
            if not turns:
                del self._lanes[turn.lane]
        self._tell()

    def give_back(self, turn: Turn) -> None:
        """A turn was taken and not used."""
        self._tokens += 1
        self.end(turn)

    def leave(self, tell: Callable[[], None]) -> None:
        """Stand in line no longer."""
        self._line.pop(tell, None)
        self._tell()

    def seconds_until_turn(self, tell: Callable[[], None]) -> float:
        """How long the pace keeps this one waiting; 0 if only calls under way do."""
        self._fill()
        return max(0.0, (1 + self._ahead(tell) - self._tokens) / self._per_second)

    def _is_full(self, lane: str | None) -> bool:
        return lane is not None and len(self._lanes.get(lane, ())) >= self._lane_limit

    def _ahead(self, tell: Callable[[], None]) -> int:
        """How many stand in line before this one."""
        for place, waiting in enumerate(self._line):
            if waiting == tell:
                return place
        return len(self._line)

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now

    def _tell(self) -> None:
        for tell, _ in zip(tuple(self._line), range(self.concurrency - self._taken), strict=False):
            tell()
