"""What is kept of the contest, benchmarks/results.json, and how it is shown: a table in Markdown."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.figures import machine

Row = dict[str, Any]

RESULTS = Path(__file__).parents[1] / "results.json"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- what the contest found -->", "<!-- until here it is written by the contest -->"
LATENCIES = ("p50_ms", "p99_ms", "latency")  # measured apart from the rest
PERCENTILES = ("p50_ms", "p99_ms", "p999_ms", "sent_late_p99_ms")
COLUMNS = {
    "cpu_us_per_event": "CPU us/event",
    "cpu_us_per_event_warm": "second half",
    "wall_us_per_event": "wall us/event",
    "rss_mb": "peak MB",
    "kafka_bytes_per_event": "bytes to Kafka/event",
}


def read() -> list[Row]:
    """Return the rows that are kept; none if there is no file yet."""
    rows: list[Row] = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    return rows


def keep(row: Row) -> None:
    """Put a row into the file, dated, in place of what the contender had there."""
    row = {**row, "machine": machine(), "date": datetime.now(UTC).strftime("%Y-%m-%d")}
    rows = [each for each in read() if each["contender"] != row["contender"]]
    before: Row = next((each for each in read() if each["contender"] == row["contender"]), {})
    kept: Row = {name: before[name] for name in LATENCIES if name in before and row["verified"]}
    rows.append({**kept, **row})
    RESULTS.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def show() -> str:
    """Put the tables into README.md, between the two marks there, and return them."""
    rows = read()
    shown = f"{table(rows)}\n\n{latencies(rows)}".strip()
    page = README.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        README.write_text(f"{before}{begin}\n\n{shown}\n\n{end}{after}")
    return shown


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table, the cheapest first; who failed stands below with the reason."""
    passed = sorted((row for row in rows if row["verified"]), key=lambda row: float(row["cpu_us_per_event"]))
    lines = [f"| contender | {' | '.join(COLUMNS.values())} | events |", f"|---|{'---|' * (len(COLUMNS) + 1)}"]
    for row in passed:
        cells = [_cell(row, name) for name in COLUMNS]
        lines.append(f"| {row['contender']} ({row['mode']}) | {' | '.join(cells)} | {row['events']:,} |")
    nothing = " |" * len(COLUMNS)
    lines += [f"| {row['contender']}: no number, {row['reason']} |{nothing}" for row in rows if not row["verified"]]
    return "\n".join(lines)


def latencies(rows: Sequence[Row]) -> str:
    """Return the latencies as a Markdown table; nothing if there are none yet."""
    lines = []
    for row in rows:
        for each in row.get("latency", []) if row["verified"] else []:
            load = each["load"] if "ev/s" in each["load"] else f"{each['load']}: {each['rate_per_second']:,} ev/s"
            figures = " | ".join(_short(each[name]) for name in PERCENTILES) if "p50_ms" in each else each["reason"]
            lines.append(f"| {row['contender']} | {load} | {figures} |")
    if not lines:
        return ""
    head = ["| contender | load | p50 ms | p99 ms | p99.9 ms | sent late, p99 ms |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *lines])


def _cell(row: Row, name: str) -> str:
    if name not in row:
        return ""
    low, high = row["ranges"][name]
    return f"{_short(row[name])} ({_short(low)} - {_short(high)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
