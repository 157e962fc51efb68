"""What `/metrics` promises to those who build dashboards and alerts on it."""

import re
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram, Info
from prometheus_client.parser import text_string_to_metric_families

from engine.runtime.metrics import Adder, Metrics

# What would give one series to each person, message or run.
UNBOUNDED = {"user", "user_id", "anonymous_id", "address", "email", "message", "message_id", "run", "event", "key"}


def samples(metrics: Metrics) -> dict[str, float]:
    """All samples of a rendered page, written as `name{label=value}`."""
    body, _ = metrics.render()
    return {
        f"{sample.name}{{{','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def own(metrics: Metrics) -> dict[str, Counter | Gauge | Histogram | Info]:
    return {
        name: metric for name, metric in vars(metrics).items() if isinstance(metric, Counter | Gauge | Histogram | Info)
    }


def test_two_processes_in_one_test_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.commits.labels("events", "0").inc(3)
    assert samples(one)["equeengage_commits_total{partition=0,topic=events}"] == 3
    assert "equeengage_commits_total{partition=0,topic=events}" not in samples(other)


def test_an_attribute_is_named_like_its_metric() -> None:
    metrics = Metrics()
    for attribute, metric in own(metrics).items():
        (family,) = metric.describe()
        assert family.name == f"equeengage_{attribute}"


def test_help_texts_are_sentences_and_say_more_than_the_name() -> None:
    for attribute, metric in own(Metrics()).items():
        text = next(iter(metric.describe())).documentation
        assert re.fullmatch(r"[A-Z0-9].+\.", text), f"{attribute}: {text}"
        assert len(text.split()) >= 5, f"{attribute}: {text}"


def test_no_label_grows_with_the_number_of_people() -> None:
    for attribute, metric in own(Metrics()).items():
        assert not UNBOUNDED & set(metric._labelnames), attribute


def test_every_metric_is_moved_by_somebody() -> None:
    """What is never set would stay at zero on the dashboard and say that all is well."""
    root = Path(__file__).parents[2]
    files = [path for folder in ("engine", "agents") for path in (root / folder).rglob("*.py")]
    sources = "\n".join(path.read_text(encoding="utf-8") for path in files if path.name != "metrics.py")
    own_methods = {"build", "disk_bytes", "disk_free_bytes"}  # set in metrics.py itself
    assert not [name for name in own(Metrics()) if name not in own_methods and not re.search(rf"\.{name}\b", sources)]
    assert re.search(r"\.watch_disk\(", sources)


def test_units_are_base_units_and_the_last_word() -> None:
    for attribute, metric in own(Metrics()).items():
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|total)(_|$)", attribute), attribute
        if isinstance(metric, Histogram):
            assert attribute.endswith(("_seconds", "_bytes", "_records")), attribute


def test_a_batch_is_added_at_once() -> None:
    metrics = Metrics()
    adder = Adder()
    adder.add(metrics.inputs_folded, {("events", "event"): 240, ("events", "receipt"): 10})
    adder.add(metrics.inputs_folded, {("events", "event"): 60})
    page = samples(metrics)
    assert page["equeengage_inputs_folded_total{kind=event,topic=events}"] == 300
    assert page["equeengage_inputs_folded_total{kind=receipt,topic=events}"] == 10


def test_the_page_tells_of_the_process_and_its_garbage_too() -> None:
    page = samples(Metrics())
    assert page["process_resident_memory_bytes{}"] > 1_000_000
    assert page["process_cpu_seconds_total{}"] > 0
    assert "python_gc_collections_total{generation=2}" in page
    assert any(name.startswith("equeengage_build_info{version=") for name in page)


def test_the_page_is_what_prometheus_reads_without_creation_times() -> None:
    metrics = Metrics()
    metrics.fold_seconds.labels("events").observe(0.003)
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=")
    assert b"_created" not in body
    page = samples(metrics)
    assert page["equeengage_fold_seconds_count{topic=events}"] == 1
    assert page["equeengage_fold_seconds_bucket{le=0.0025,topic=events}"] == 0
    assert page["equeengage_fold_seconds_bucket{le=0.005,topic=events}"] == 1


def test_a_partition_that_went_to_another_process_is_not_told_of_any_more() -> None:
    metrics = Metrics()
    for topic, number in (("events", 3), ("events", 4), ("messages.email", 3)):
        metrics.lag_records.labels(topic, str(number)).set(7)
    metrics.channel_retries_waiting.labels("email", "3").set(7)
    metrics.forget_partition("events", 3)
    metrics.forget_partition("events", 3)
    metrics.forget_partition("messages.email", 3)
    told = {name for name, value in samples(metrics).items() if value == 7 and name.startswith("equeengage_")}
    assert told == {"equeengage_lag_records{partition=4,topic=events}"}


def test_the_disk_is_measured_when_asked(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.watch_disk(tmp_path / "not made yet")
    page = samples(metrics)
    assert 0 < page["equeengage_disk_free_bytes{}"] < page["equeengage_disk_bytes{}"]
