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
MOST_CPU_US, LEAST_OF_BARE, MOST_P99_MS = 15.0, 0.6, 100.0  # what ours is to reach
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
    shown = "\n\n".join(part for part in (table(rows), latencies(rows), aims(rows)) if part)
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


def aims(rows: Sequence[Row]) -> str:
    """Say of each aim whether it is reached, and who does better where it isn't; nothing if ours has no number."""
    passed = {row["contender"]: row for row in rows if row["verified"]}
    ours, bare = passed.get("ours"), passed.get("bare")
    if ours is None:
        return ""
    peers = [row for name, row in passed.items() if name not in ("ours", "bare")]
    cpu = float(ours["cpu_us_per_event"])
    said = [_aim(f"CPU <= {MOST_CPU_US:g} us per event", f"{_short(cpu)} us", cpu <= MOST_CPU_US)]
    for what, name, unit in (("CPU per event", "cpu_us_per_event", "us"), ("memory", "rss_mb", "MB")):
        less = [f"{row['contender']} {_short(row[name])} {unit}" for row in peers if row[name] <= ours[name]]
        said.append(_aim(f"less {what} than every peer", f"less or as much: {', '.join(less) or 'nobody'}", not less))
    if bare is not None:
        share = float(bare["cpu_us_per_event"]) / cpu
        said.append(_aim(f"CPU of the bare loop >= {LEAST_OF_BARE:g} of ours", f"{share:.2f}", share >= LEAST_OF_BARE))
    if "p99_ms" in ours:
        late = float(ours["p99_ms"])
        said.append(_aim(f"p99 <= {MOST_P99_MS:g} ms at 1,000 ev/s", f"{_short(late)} ms", late <= MOST_P99_MS))
    return "\n".join(["| aim | found | reached |", "|---|---|---|", *said])


def _aim(aim: str, found: str, reached: bool) -> str:
    return f"| {aim} | {found} | {'yes' if reached else '**no**'} |"


def _cell(row: Row, name: str) -> str:
    if name not in row:
        return ""
    low, high = row["ranges"][name]
    return f"{_short(row[name])} ({_short(low)} - {_short(high)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
