"""That dashboards and alerts ask only for what exists, and that Prometheus accepts and proves the rules."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram, Info

from engine.runtime.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/equeengage.json").read_text(encoding="utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

OF_SCRAPE = {"instance", "job", "process"}  # labels that the scrape adds, see prometheus.yml
OF_RESULT = {"le", "quantile"}


def series() -> dict[str, set[str]]:
    """Every series there can be, with its labels."""
    metrics = Metrics()
    found: dict[str, set[str]] = {"up": set()}
    for attribute, metric in vars(metrics).items():
        name = f"equeengage_{attribute}"
        if isinstance(metric, Counter):
            found[f"{name}_total"] = set(metric._labelnames)
        elif isinstance(metric, Histogram):
            for suffix in ("bucket", "sum", "count"):
                found[f"{name}_{suffix}"] = set(metric._labelnames)
        elif isinstance(metric, Gauge):
            found[name] = set(metric._labelnames)
        elif isinstance(metric, Info):
            found[f"{name}_info"] = {"version"}
    for family in metrics.registry.collect():
        if family.name.startswith(("process_", "python_")):
            found.update((sample.name, set(sample.labels)) for sample in family.samples)
    return found


SERIES = series()


def asked_by_alerts() -> list[tuple[str, str]]:
    return [(rule["alert"], rule["expr"]) for rule in RULES]


def asked_by_panels() -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


@pytest.mark.parametrize(("where", "expression"), [*asked_by_alerts(), *asked_by_panels()])
def test_only_metrics_and_labels_that_exist_are_asked_for(where: str, expression: str) -> None:
    names = set(re.findall(r"\b(?:equeengage|process|python)_\w+|\bup\b", re.sub(r'"[^"]*"|\{[^}]*\}', "", expression)))
    assert names, f"{where} asks for nothing of ours"
    assert names <= SERIES.keys()
    labels = set().union(*(SERIES[name] for name in names)) | OF_SCRAPE | OF_RESULT
    grouped = {label.strip() for by in re.findall(r"\bby \(([^)]*)\)", expression) for label in by.split(",")}
    assert grouped <= labels
    for name, selector in re.findall(r"(\w+)\{([^}]*)\}", expression):
        chosen = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", re.sub(r'"[^"]*"', '""', selector)))
        assert chosen <= SERIES[name] | OF_SCRAPE, name


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_explains_itself_and_its_legend_shows_labels_that_are_there(panel: dict[str, Any]) -> None:
    assert len(panel["description"].split()) >= 5
    assert panel["datasource"]["uid"] == "${datasource}"
    for target in panel["targets"]:
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        by = {label.strip() for by in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for label in by.split(",")}
        assert shown <= by | OF_SCRAPE | ({"topic"} if not by else set())


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_metric_is_on_the_dashboard() -> None:
    asked = " ".join(expression for _, expression in asked_by_panels())
    metrics = [name for name, value in vars(Metrics()).items() if isinstance(value, Counter | Gauge | Histogram | Info)]
    assert not [name for name in metrics if not re.search(rf"equeengage_{name}(_total|_bucket|_info)?\b", asked)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_the_case_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert len(rule["annotations"]["runbook"].split()) >= 10
    named = re.findall(r"\bequeengage_\w+", rule["annotations"]["runbook"] + rule["annotations"]["description"])
    for name in named:
        assert any(known == name or known.startswith(f"{name}_") for known in SERIES), name


def test_every_alert_is_tested() -> None:
    tested = (PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8")
    assert {rule["alert"] for rule in RULES} == set(re.findall(r'alertname="(\w+)"', tested))


@pytest.fixture
def promtool() -> str:
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("PROMTOOL IS MISSING, the alert rules were not checked; on Debian: apt install prometheus")
    return path


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_the_configuration(promtool: str) -> None:
    run(promtool, "check", "config", str(PROMETHEUS / "prometheus.yml"))


def test_alerts_fire_when_they_should_and_only_then(promtool: str) -> None:
    run(promtool, "test", "rules", str(PROMETHEUS / "alerts_test.yml"))


def test_what_the_dashboard_asks_is_valid(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$__\w+", "5m", expression)}
        for number, (_, expression) in enumerate(asked_by_panels())
    ]
    page = tmp_path / "panels.yml"
    page.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    run(promtool, "check", "rules", "--lint=none", str(page))


def test_prometheus_accepts_the_page_we_render(promtool: str) -> None:
    metrics = Metrics()
    metrics.fold_seconds.labels("events").observe(0.01)
    metrics.inputs_folded.labels("events", "event").inc()
    page, _ = metrics.render()
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    complaints = [line for line in done.stderr.decode().splitlines() if line.startswith("equeengage_")]
    assert not complaints
