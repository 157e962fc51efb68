"""What every process counts and measures: all metrics, by name, in one place.

- The attribute is the name: `metrics.lag_records` is `equeengage_lag_records`; counters get `_total` behind it.
- Base units (seconds, bytes), said last. Help texts say what to do when the metric moves.
- Labels are few and bounded: tenant, journey, channel, status, reason, topic, partition. Never a user, an address or
  a message: one process would keep a series for each of them until it dies.
- The loops count while they fold and add once per batch (`Adder`); a histogram of waiting times is given the batch's
  oldest record, which makes its quantiles too high rather than too low.
- No global registry: each process makes one `Metrics` and passes it on.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

PREFIX = "equeengage"

LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LATENESS_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)
BATCH_RECORDS = (1, 10, 50, 100, 250, 500, 1000, 2000, 4000)


class Adder:
    """Adds to counters, whose series it remembers: looking one up takes longer than adding."""

    def __init__(self) -> None:
        self._series: dict[tuple[Counter, tuple[str, ...]], Callable[[float], None]] = {}

    def add(self, counter: Counter, counts: Mapping[tuple[str, ...], float]) -> None:
        """Add what a batch came to: label values, in the counter's order, to how many."""
        for labels, count in counts.items():
            add = self._series.get((counter, labels))
            if add is None:
                add = self._series[counter, labels] = counter.labels(*labels).inc
            add(count)


class Metrics:
    """The metrics of one process. `render` answers `GET /metrics`."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._add_process()
        self._add_ingress()
        self._add_log()
        self._add_partitions()
        self._add_journeys()
        self._add_timers()
        self._add_channels()

    def render(self) -> tuple[bytes, str]:
        """The body of `/metrics` and its content type."""
        return generate_latest(_WithoutCreationTimes(self.registry)), CONTENT_TYPE_LATEST

    def watch_disk(self, folder: Path) -> None:
        """Report the size and the free bytes of the disk that holds `folder`, or will hold it, as they are when asked."""
        places = (folder.absolute(), *folder.absolute().parents)

        def place() -> Path:
            return next(place for place in places if place.exists())

        self.disk_bytes.set_function(lambda: shutil.disk_usage(place()).total)
        self.disk_free_bytes.set_function(lambda: shutil.disk_usage(place()).free)

    def forget_partition(self, topic: str, partition: int) -> None:
        """Drop what is measured of a partition that has gone to another process: its last values would stay for ever."""
        for gauge in (
            self.partition_stopped,
            self.partition_clock_seconds,
            self.lag_records,
            self.timers_due,
            self.wake_ups_unanswered,
        ):
            gauge.remove(topic, str(partition))
        if topic.startswith("messages."):
            self.channel_retries_waiting.remove(topic.removeprefix("messages."), str(partition))

    # Below: one method a part of the system, in the order in which an event passes through it.

    def _add_process(self) -> None:
        self.build = self._info("build", "Which version runs. Different versions side by side: a rollout is under way.")
        self.build.info({"version": _installed_version()})
        self.disk_bytes = self._gauge("disk_bytes", "The size of the disk that holds the data folder.")
        self.disk_free_bytes = self._gauge(
            "disk_free_bytes",
            "What is left of that disk. Below a tenth: enlarge it, or lower retention; a full disk stops the log.",
        )

    def _add_ingress(self) -> None:
        self.ingress_requests = self._counter(
            "ingress_requests",
            "HTTP requests answered. 401: a client has a wrong key; 429: see rejected events; 5xx: read our log.",
            "route status",
        )
        self.ingress_request_seconds = self._histogram(
            "ingress_request_seconds",
            "From a request's first byte to its answer. Rises with log_append_seconds: look there first.",
            LATENCY_SECONDS,
            "route",
        )
        self.ingress_events_accepted = self._counter(
            "ingress_events_accepted",
            "Events that are durable and were answered with 2xx. Falls to zero: the clients or the way to us broke.",
            "tenant",
        )
        self.ingress_events_invalid = self._counter(
            "ingress_events_invalid",
            "Events put into events.invalid. Rises: read that topic, its records name what is wrong; tell the tenant.",
            "tenant reason",
        )
        self.ingress_events_rejected = self._counter(
            "ingress_events_rejected",
            "Events answered with 429 or 503; SDKs send them again. Lasts: the disk or the broker is too slow.",
            "reason",
        )
        self.ingress_events_in_flight = self._gauge(
            "ingress_events_in_flight",
            "Events that wait to be durable. Near its limit: 429s are next; see log_append_seconds.",
        )
        self.links_followed = self._counter(
            "links_followed",
            "Signed links asked for: open, click, unsubscribe. Unsubscribes leap: see what was just published.",
            "tenant kind",
        )
        self.links_refused = self._counter(
            "links_refused",
            "Links with a wrong signature. Some are scanners; many: the link secret was changed while mails were out.",
            "kind",
        )
        self.link_receipts_lost = self._counter(
            "link_receipts_lost",
            "Opens and clicks not written down because the log was full. The readers got their page; see the log.",
            "kind",
        )

    def _add_log(self) -> None:
        self.log_records_appended = self._counter(
            "log_records_appended", "Records appended, by topic: what the log grows by.", "topic"
        )
        self.log_append_seconds = self._histogram(
            "log_append_seconds",
            "From handing over records until they are durable. Rises: the disk (embedded) or the broker is slow.",
            LATENCY_SECONDS,
        )
        self.log_sync_seconds = self._histogram(
            "log_sync_seconds",
            "One fsync of the embedded log. Above 50 ms for long: the disk is shared or failing.",
            LATENCY_SECONDS,
        )

    def _add_partitions(self) -> None:
        self.partitions_owned = self._gauge(
            "partitions_owned",
            "Partitions this process folds. In all less than the topic has: some are not served, see the log.",
            "topic",
        )
        self.partition_stopped = self._gauge(
            "partition_stopped",
            "1 where a partition stands still until an operator has looked: its log line says why and what to do.",
            "topic partition",
        )
        self.partition_clock_seconds = self._gauge(
            "partition_clock_seconds",
            "The time a partition has come to, since the epoch. Far behind without lag: nothing arrives there.",
            "topic partition",
        )
        self.lag_records = self._gauge(
            "lag_records",
            "Records in a partition not folded yet. Grows: add workers; in one partition only: a hot user or a stop.",
            "topic partition",
        )
        self.commits = self._counter(
            "commits",
            "Batches made durable. None while there is lag: the loop hangs or the broker refuses; see the log.",
            "topic partition",
        )
        self.commit_seconds = self._histogram(
            "commit_seconds",
            "One commit: outputs, states and position. Rises: the broker's or the disk's writes are slow.",
            LATENCY_SECONDS,
            "topic",
        )
        self.fold_seconds = self._histogram(
            "fold_seconds",
            "Folding one batch, without the commit. Rises at equal batch_records: a costly journey, or a full CPU.",
            LATENCY_SECONDS,
            "topic",
        )
        self.batch_records = self._histogram(
            "batch_records",
            "Records in a batch. At the limit all the time: the partition is working through a backlog.",
            BATCH_RECORDS,
            "topic",
        )
        self.partitions_fenced = self._counter(
            "partitions_fenced",
            "Partitions another worker took over while we held them. Outside a rollout: this process stalls.",
            "topic",
        )
        self.partition_failures = self._counter(
            "partition_failures",
            "Times a partition was closed by an error and opened again. Keeps rising: the log has the error.",
            "topic",
        )
        self.rebalances = self._counter(
            "rebalances",
            "Assignments of partitions. Keeps rising: workers come and go; look for restarts and long stalls.",
        )
        self.recovery_left_records = self._gauge(
            "recovery_left_records",
            "Records of a changelog still to be read before a partition goes on. Doesn't fall: the broker is slow.",
            "topic partition",
        )
        self.standby_lag_records = self._gauge(
            "standby_lag_records",
            "What a takeover here would still have to read of a changelog. Grows: too much for one standby, start more.",
            "topic partition",
        )
        self.stores_set_aside = self._counter(
            "stores_set_aside",
            "Stores found damaged, moved aside and made again from their changelogs. Any: check that machine's disk.",
            "topic",
        )
        self.recovery_records = self._counter(
            "recovery_records",
            "Records read from changelogs to rebuild stores. Unasked for: a data folder was lost.",
            "topic",
        )
        self.recovery_seconds = self._histogram(
            "recovery_seconds",
            "Rebuilding one partition's store. Long: keep data folders over restarts, or run standbys.",
            LATENESS_SECONDS,
            "topic",
        )

    def _add_journeys(self) -> None:
        self.inputs_folded = self._counter(
            "inputs_folded", "Inputs given to actors, by kind. The work that was done.", "topic kind"
        )
        self.inputs_dropped = self._counter(
            "inputs_dropped",
            "Inputs that changed nothing. reason=duplicate rises: a producer repeats itself; others: see the journal.",
            "topic reason",
        )
        self.dead_letters = self._counter(
            "dead_letters",
            "Records parked because folding them raised. Any: our bug; read dead-letters, fix, and append them again.",
            "topic reason",
        )
        self.runs_entered = self._counter(
            "runs_entered", "Runs that began. Falls to zero: the entry's event no longer comes.", "tenant journey"
        )
        self.runs_exited = self._counter(
            "runs_exited",
            "Runs that ended, and how. A new reason takes over: look at the journey.",
            "tenant journey reason",
        )
        self.runs_suspended = self._counter(
            "runs_suspended",
            "Runs stopped by an exception in a step. Any: fix what the journal entry shows, then resume them.",
            "tenant journey",
        )
        self.goals_reached = self._counter(
            "goals_reached",
            "Runs whose goal happened. Falls against runs_entered: the journey works less.",
            "tenant journey",
        )
        self.messages_asked = self._counter(
            "messages_asked",
            "Commands given to channels. Leaps: look at what was just published and at who enters it.",
            "tenant journey channel",
        )
        self.messages_blocked = self._counter(
            "messages_blocked",
            "Messages kept back. reason=late: there was an outage or a pause; no_address: profiles lack the attribute.",
            "tenant journey channel reason",
        )
        self.event_to_command_seconds = self._histogram(
            "event_to_command_seconds",
            "From an event's append until its commands can be read; the batch's oldest. Rises: see lag_records.",
            LATENCY_SECONDS,
        )

    def _add_timers(self) -> None:
        self.timers_fired = self._counter(
            "timers_fired",
            "Timers fired in the fold. None for long while timers_due is not 0: wake-ups do not arrive.",
            "topic",
        )
        self.timers_due = self._gauge(
            "timers_due",
            "Actors whose timer was due when last looked. Stays high: more falls due than is folded; see lag_records.",
            "topic partition",
        )
        self.wake_ups_appended = self._counter(
            "wake_ups_appended",
            "Wake-ups appended for actors nobody hears from. Far above timers_fired: the loop is behind.",
            "topic",
        )
        self.wake_ups_unanswered = self._gauge(
            "wake_ups_unanswered",
            "Wake-ups not folded yet, at most 1,000 a partition. At the limit: the partition is behind or stopped.",
            "topic partition",
        )
        self.timer_lateness_seconds = self._histogram(
            "timer_lateness_seconds",
            "From when a timer was due until it fired; the batch's latest. Rises: people wait, see lag_records.",
            LATENESS_SECONDS,
            "topic",
        )

    def _add_channels(self) -> None:
        self.channel_attempts = self._counter(
            "channel_attempts", "Calls of the provider begun. Far above outcomes: it keeps saying 'later'.", "channel"
        )
        self.channel_outcomes = self._counter(
            "channel_outcomes",
            "What became of messages. bounced, failed rise: see addresses, credentials; unknown: see the journal.",
            "channel status",
        )
        self.channel_duplicates_dropped = self._counter(
            "channel_duplicates_dropped", "Commands seen before. Some after a restart are right.", "channel"
        )
        self.channel_suppressed = self._counter(
            "channel_suppressed",
            "Messages not sent because the address is suppressed. Leaps: exclude such people in the journey's entry.",
            "channel",
        )
        self.channel_calls_in_flight = self._gauge(
            "channel_calls_in_flight", "Calls of the provider under way. At its limit: the provider is slow.", "channel"
        )
        self.channel_retries = self._counter(
            "channel_retries",
            "Times the provider said 'later'. Keeps rising: it is down or limits us; lower the pace.",
            "channel",
        )
        self.channel_retries_waiting = self._gauge(
            "channel_retries_waiting",
            "Messages that wait for another try. Grows: the provider is down; they go out when it is back.",
            "channel partition",
        )
        self.channel_call_seconds = self._histogram(
            "channel_call_seconds", "One call of the provider. Rises: it is slow; ask it.", LATENCY_SECONDS, "channel"
        )
        self.channel_pacing_seconds = self._histogram(
            "channel_pacing_seconds",
            "How long a message waited for its turn. Rises: the pace is too low; raise it if you may.",
            LATENESS_SECONDS,
            "channel",
        )

    def _counter(self, name: str, help_text: str, labels: str = "") -> Counter:
        return Counter(f"{PREFIX}_{name}", help_text, labels.split(), registry=self.registry)

    def _gauge(self, name: str, help_text: str, labels: str = "") -> Gauge:
        return Gauge(f"{PREFIX}_{name}", help_text, labels.split(), registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...], labels: str = "") -> Histogram:
        return Histogram(f"{PREFIX}_{name}", help_text, labels.split(), buckets=buckets, registry=self.registry)

    def _info(self, name: str, help_text: str) -> Info:
        return Info(f"{PREFIX}_{name}", help_text, registry=self.registry)


class _WithoutCreationTimes(Collector):
    """The registry less the client library's `_created` samples, which double the series and which nobody asks for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def _installed_version() -> str:
    try:
        return version(PREFIX)
    except PackageNotFoundError:  # Run from a tree that was never installed.
        return "unknown"
