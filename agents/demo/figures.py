"""What the demo's view shows in numbers, read from the metrics of the server.

Rates are over the last ten seconds. Quantiles come from the histogram's buckets, so they are as exact as those are.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from engine.runtime.metrics import Metrics

WINDOW_SECONDS = 10.0
TREND = 40  # seconds of the little chart


@dataclass(frozen=True)
class Figures:
    """One look at the server."""

    uptime_seconds: float = 0.0
    events: int = 0
    events_per_second: float = 0.0
    trend: tuple[float, ...] = ()  # events in each of the last seconds, oldest first
    entered: dict[str, int] = field(default_factory=dict)  # journey -> runs that began
    exited: int = 0
    goals: int = 0
    messages: dict[str, int] = field(default_factory=dict)  # state -> how many
    p50_seconds: float | None = None
    p99_seconds: float | None = None

    @property
    def runs(self) -> int:
        return sum(self.entered.values())


class Meter:
    """Turns the server's counters into figures. Look once a second."""

    def __init__(self, metrics: Metrics, started_at: float) -> None:
        self.metrics = metrics
        self.started_at = started_at
        self._looks: deque[tuple[float, int]] = deque(maxlen=TREND + 1)

    def look(self, now: float) -> Figures:
        """Return the figures at `now`, a monotonic instant in seconds."""
        counts = _Counts(self.metrics)
        events = int(counts.total("ingress_events_accepted"))
        self._looks.append((now, events))
        return Figures(
            uptime_seconds=now - self.started_at,
            events=events,
            events_per_second=self._rate(now, events),
            trend=tuple(
                max(0.0, (b[1] - a[1]) / max(b[0] - a[0], 1e-3))
                for a, b in zip(self._looks, list(self._looks)[1:], strict=False)
            ),
            entered={name: int(count) for name, count in counts.by("runs_entered", "journey").items()},
            exited=int(counts.total("runs_exited")),
            goals=int(counts.total("goals_reached")),
            messages=self._messages(counts),
            p50_seconds=counts.quantile("event_to_command_seconds", 0.5),
            p99_seconds=counts.quantile("event_to_command_seconds", 0.99),
        )

    def _rate(self, now: float, events: int) -> float:
        for at, count in self._looks:
            if now - at <= WINDOW_SECONDS:
                return (events - count) / (now - at) if now > at else 0.0
        return 0.0

    @staticmethod
    def _messages(counts: "_Counts") -> dict[str, int]:
        outcomes = counts.by("channel_outcomes", "status")
        links = {kind[:1]: count for kind, count in counts.by("links_followed", "kind").items()}
        states = {"asked for": counts.total("messages_asked"), "accepted": outcomes.pop("accepted", 0)}
        states |= {"opened": links.get("o", 0), "clicked": links.get("c", 0)}
        states["kept back"] = counts.total("messages_blocked") + outcomes.pop("dropped", 0)
        states |= outcomes
        return {state: int(count) for state, count in states.items()}


class _Counts:
    """The samples of all metrics at one moment, by name."""

    def __init__(self, metrics: Metrics) -> None:
        self.samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for metric in metrics.registry.collect():
            for sample in metric.samples:
                self.samples.setdefault(sample.name.removeprefix("equeengage_"), []).append(
                    (sample.labels, sample.value)
                )

    def total(self, name: str) -> float:
        return sum(value for _, value in self.samples.get(f"{name}_total", ()))

    def by(self, name: str, label: str) -> dict[str, float]:
        sums: dict[str, float] = {}
        for labels, value in self.samples.get(f"{name}_total", ()):
            sums[labels[label]] = sums.get(labels[label], 0) + value
        return sums

    def quantile(self, name: str, share: float) -> float | None:
        buckets: dict[float, float] = {}
        for labels, value in self.samples.get(f"{name}_bucket", ()):
            bound = float(labels["le"])
            buckets[bound] = buckets.get(bound, 0) + value
        return quantile(sorted(buckets.items()), share)


def quantile(buckets: Iterable[tuple[float, float]], share: float) -> float | None:
    """Return the quantile from cumulative buckets (bound, count), ascending; None without observations.

    Within a bucket observations are taken to be spread evenly; beyond the last finite bound the bound is returned.
    """
    ladder: list[Any] = list(buckets)
    if not ladder or not ladder[-1][1]:
        return None
    wanted = share * ladder[-1][1]
    below, reached = 0.0, 0.0
    for bound, count in ladder:
        if count >= wanted:
            if bound == float("inf"):
                return below
            return float(below + (bound - below) * ((wanted - reached) / (count - reached) if count > reached else 1.0))
        below, reached = bound, count
    return below
