"""The rounds of chaos as a web page in one file: nothing is loaded from elsewhere, and no script runs."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #1c2430 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #dde2e8 }
th:first-child, td:first-child { text-align: left }
.good { color: #12702f } .bad { color: #b3261e; font-weight: 600 }
.bar { display: inline-block; height: .7em; background: #5b7fbf; vertical-align: baseline; margin-right: .5em }
details { margin: .6rem 0 } small { color: #5a6675 }
@media (prefers-color-scheme: dark) {
  body { background: #14181d; color: #e3e8ee } th, td { border-color: #333b45 } .good { color: #6fcf8b }
  .bad { color: #ff8a80 } small { color: #9aa7b5 }
}
"""
COUNTS = ("lost", "duplicated", "phantom", "early", "wrong_state")
COLUMNS = ("events", "expected", *COUNTS, "recovery_seconds")
HEADS = {"expected": "commands", "wrong_state": "wrong state", "recovery_seconds": "stood still, s"}
PIXELS_PER_SECOND = 12


def page(rounds: Sequence[dict[str, Any]]) -> str:
    """Return the page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Chaos</title>'
        f"<style>{STYLE}</style></head><body>{''.join(_body(rounds))}</body></html>\n"
    )


def _body(rounds: Sequence[dict[str, Any]]) -> Iterator[str]:
    clean = sum(row["clean"] for row in rounds)
    faults = sum(len(row["faults"]) for row in rounds)
    yield f"<h1>{faults} faults in {len(rounds)} rounds</h1>"
    verdict = "good" if clean == len(rounds) else "bad"
    yield f'<p class="{verdict}">{clean} of {len(rounds)} rounds are clean: what stands on Kafka and in the stores is '
    yield "exactly what must have come of the events.</p>"
    yield "<table><thead><tr><th>round</th>"
    yield from (f"<th>{HEADS.get(name, name)}</th>" for name in COLUMNS)
    yield "</tr></thead><tbody>"
    for row in rounds:
        yield f"<tr><td>{row['round']} <small>seed {row['seed']}, {row['workers']} workers</small></td>"
        yield from (_cell(name, row[name]) for name in COLUMNS)
        yield "</tr>"
    yield "</tbody></table><h2>What was done</h2>"
    yield "<p>Beside each fault: how long it took until every partition had committed again.</p>"
    for row in rounds:
        is_open = "" if row["clean"] else " open"
        yield f"<details{is_open}><summary>Round {row['round']}: {len(row['faults'])} faults</summary>"
        yield f"<p>All the while: {escape(', '.join(row['conditions']))}. The ingress answered: {_answers(row)}.</p>"
        yield from (f'<p class="bad">{escape(complaint)}</p>' for complaint in row["complaints"])
        yield "<table><tbody>"
        yield from (_fault(fault) for fault in row["faults"])
        yield "</tbody></table></details>"


def _cell(name: str, value: float) -> str:
    kind = ("bad" if value else "good") if name in COUNTS else ""
    return f'<td class="{kind}">{value:,}</td>'


def _answers(row: dict[str, Any]) -> str:
    """How often it said what; 0 stands for no answer in time."""
    said = [f"{times:,} x {'nothing' if status == '0' else status}" for status, times in row["answers"].items()]
    return ", ".join(said) or "nothing"


def _fault(fault: dict[str, Any]) -> str:
    seconds = fault["recovery_seconds"]
    width = 0 if seconds is None else max(1, round(seconds * PIXELS_PER_SECOND))
    shown = (
        "the round was over" if seconds is None else f'<span class="bar" style="width:{width}px"></span>{seconds:g} s'
    )
    whom = f" <small>{escape(fault['whom'])}</small>"
    return f"<tr><td>{fault['at_seconds']:.1f} s: {escape(fault['name'])}{whom}</td><td>{shown}</td></tr>"
