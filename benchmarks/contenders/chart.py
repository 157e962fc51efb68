"""How the contest looks: CPU per event of each contender as bars, benchmarks/contest.svg."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from benchmarks.contenders.results import Row

CHART = Path(__file__).parents[1] / "contest.svg"
WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 760, 200, 90, 20, 10, 44
TICKS = (1, 3, 10, 30, 100, 300, 1000)
COLORS = {"ours": "#2f6fde", "bare": "#9aa4b2"}
OTHERS = "#c98a3c"


def draw(rows: Sequence[Row]) -> None:
    """Write the picture: the whole run as a bar, its range as a line, its second half as a mark. The axis is logarithmic."""
    passed = sorted((row for row in rows if row["verified"]), key=lambda row: float(row["cpu_us_per_event"]))
    if passed:
        CHART.write_text(_picture(passed))


def _picture(rows: Sequence[Row]) -> str:
    height = TOP + len(rows) * (BAR + GAP) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        '<text x="10" y="20" font-weight="bold">CPU per event, microseconds (logarithmic; less is better)</text>',
        '<text x="10" y="36" font-size="11" fill="#555">bar: whole run; line: its range; dark mark: second half alone</text>',
    ]
    for tick in TICKS:
        x = _x(tick)
        parts.append(f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{height - 24}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle" fill="#555">{tick}</text>')
    for number, row in enumerate(rows):
        parts += _bar(row, TOP + 6 + number * (BAR + GAP))
    return "\n".join([*parts, "</svg>", ""])


def _bar(row: Row, y: int) -> list[str]:
    median, (low, high) = row["cpu_us_per_event"], row["ranges"]["cpu_us_per_event"]
    color, middle = COLORS.get(row["contender"], OTHERS), y + BAR // 2
    parts = [
        f'<text x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(row["contender"])}</text>',
        f'<rect x="{LEFT}" y="{y}" width="{_x(median) - LEFT:.0f}" height="{BAR}" fill="{color}"/>',
        f'<line x1="{_x(low)}" y1="{middle}" x2="{_x(high)}" y2="{middle}" stroke="#222" stroke-width="2"/>',
        f'<text x="{max(_x(median), _x(high)) + 6:.0f}" y="{middle + 4}">{median:,.1f}</text>',
    ]
    if warm := row.get("cpu_us_per_event_warm"):
        x, looks = _x(warm), 'stroke="#111" stroke-width="2" stroke-dasharray="3 2"'
        parts.append(f'<line x1="{x}" y1="{y + 2}" x2="{x}" y2="{y + BAR - 2}" {looks}/>')
    return parts


def _x(value: float) -> float:
    """Where a value lies on the axis from 1 to 1000."""
    share = math.log10(max(value, TICKS[0])) / math.log10(TICKS[-1])
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)
