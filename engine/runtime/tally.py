"""What a partition of users counts while it folds, and adds to the metrics once per batch."""

from collections import defaultdict
from typing import get_args

from engine.actor import Handled
from engine.runtime.metrics import Adder, Metrics
from schemas.inputs import UserInput
from schemas.outputs import JournalEntry

KINDS = {kind: kind.__name__.lower() for kind in get_args(UserInput)}
_BY_KIND = {
    "entered": lambda metrics: metrics.runs_entered,
    "goal": lambda metrics: metrics.goals_reached,
    "suspended": lambda metrics: metrics.runs_suspended,
}


class Tally:
    """The counts of the batch at hand. A batch that is folded again (its definition was missing) counts once."""

    def __init__(self, metrics: Metrics, topic: str, partition: int) -> None:
        self.metrics = metrics
        self.topic = topic
        self._add = Adder().add
        self._records = metrics.batch_records.labels(topic)
        self._fold_seconds = metrics.fold_seconds.labels(topic)
        self._commits = metrics.commits.labels(topic, str(partition))
        self._commit_seconds = metrics.commit_seconds.labels(topic)
        self._clock = metrics.partition_clock_seconds.labels(topic, str(partition))
        self.begin()

    def begin(self) -> None:
        """Forget what was counted since the last commit."""
        self.inputs: dict[type, int] = defaultdict(int)
        self.dropped: dict[tuple[str, ...], float] = defaultdict(int)
        self.dead: dict[tuple[str, ...], float] = defaultdict(int)
        self.runs: dict[str, dict[tuple[str, ...], float]] = {kind: defaultdict(int) for kind in _BY_KIND}
        self.exited: dict[tuple[str, ...], float] = defaultdict(int)
        self.messages: dict[tuple[str, ...], float] = defaultdict(int)
        self.blocked: dict[tuple[str, ...], float] = defaultdict(int)
        self.oldest_cause_at: int | None = None
        self.timers: set[tuple[str, int]] = set()  # run and due time of those that fired
        self.latest_timer_ms = 0

    def came_of_it(self, handled: Handled, timestamp: int) -> None:
        """Count what an input has led to, if anything. The input itself is for the caller to count, in `inputs`."""
        for message in handled.messages:
            self.messages[message.tenant, message.journey, message.channel] += 1
        if handled.messages and self.oldest_cause_at is None:
            self.oldest_cause_at = timestamp
        for entry in handled.journal:
            if entry.kind != "step":  # half of all entries, and not counted
                self._journaled(entry)
            if entry.cause == "timer":
                self.timers.add((entry.run, entry.at))
                self.latest_timer_ms = max(self.latest_timer_ms, timestamp - entry.at)

    def _journaled(self, entry: JournalEntry) -> None:
        match entry.kind:
            case "entered" | "goal" | "suspended":
                self.runs[entry.kind][entry.tenant, entry.journey] += 1
            case "exited":
                self.exited[entry.tenant, entry.journey, entry.reason] += 1
            case "blocked":
                self.blocked[entry.tenant, entry.journey, "", entry.reason] += 1
            case "dropped":
                self.dropped[self.topic, entry.reason] += 1

    def invalid(self) -> None:
        self.dropped[self.topic, "invalid"] += 1

    def forwarded(self) -> None:
        self.dropped[self.topic, "forwarded"] += 1

    def parked(self, error: Exception) -> None:
        self.dead[self.topic, type(error).__name__] += 1

    def folded(self, records: int, seconds: float) -> None:
        self._records.observe(records)
        self._fold_seconds.observe(seconds)

    def committed(self, wall_clock: int, partition_clock: int, seconds: float) -> None:
        """Add the batch to the metrics, now that it counts."""
        metrics, add = self.metrics, self._add
        add(metrics.inputs_folded, {(self.topic, KINDS[kind]): count for kind, count in self.inputs.items()})
        add(metrics.inputs_dropped, self.dropped)
        add(metrics.dead_letters, self.dead)
        for kind, counts in self.runs.items():
            add(_BY_KIND[kind](metrics), counts)
        add(metrics.runs_exited, self.exited)
        add(metrics.messages_asked, self.messages)
        add(metrics.messages_blocked, self.blocked)
        if self.timers:
            metrics.timers_fired.labels(self.topic).inc(len(self.timers))
            metrics.timer_lateness_seconds.labels(self.topic).observe(self.latest_timer_ms / 1000)
        self._commits.inc()
        self._commit_seconds.observe(seconds)
        self._clock.set(partition_clock / 1000)
        if self.oldest_cause_at is not None:
            metrics.event_to_command_seconds.observe(max(0, wall_clock - self.oldest_cause_at) / 1000)
