"""Plots as inline SVG: no script, nothing from elsewhere; colours come from the page, so they follow light and dark.

Series come in pairs, the old version and the new one, and have the classes `old` and `new`. What a mark means is its title,
which browsers show when it is pointed at.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from html import escape
from math import ceil, floor, log10

WIDE, NARROW, HEIGHT = 1030, 486, 230  # a whole row of the page, half of one
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 28  # around the plot: numbers to the left, dates below
DAYS_SHOWN = 120  # more are gathered into weeks
DATE_WIDTH = 90
ROW, LABEL, NUMBER = 36, 178, 58  # of horizontal bars: height of a row, width of its label and of its numbers


def over_time(
    old: Mapping[str, int], new: Mapping[str, int], names: tuple[str, str], what: str, across: int = NARROW
) -> str:
    """Return two lines over days, or over weeks where there are many days. Keys are ISO dates."""
    days = sorted({*old, *new})
    if not days:
        return _empty(what)
    first, last = date.fromisoformat(days[0]), date.fromisoformat(days[-1])
    step = 7 if (last - first).days > DAYS_SHOWN else 1
    count = (last - first).days // step + 1
    series = [_gathered(side, first, step, count) for side in (old, new)]
    top, ticks = _scale(max(max(values) for values in series))
    width = across - LEFT - RIGHT

    def x(index: int) -> float:
        return LEFT + (width * index / (count - 1) if count > 1 else width / 2)

    parts = [*_grid(ticks, top, across), *_dates(first, step, count, x(0), x(count - 1))]
    for values, side in zip(series, ("old", "new"), strict=True):
        points = [f"{x(index):.1f},{_y(value, top):.1f}" for index, value in enumerate(values)]
        if side == "new":
            area = f"{x(0):.1f},{_y(0, top):.1f} {' '.join(points)} {x(count - 1):.1f},{_y(0, top):.1f}"
            parts.append(f'<polygon class="area new" points="{area}"/>')
        parts.append(f'<polyline class="line {side}" points="{" ".join(points)}"/>')
    for index in range(count):
        begin = first + timedelta(days=index * step)
        counts = f"{series[0][index]:,} in {names[0]}, {series[1][index]:,} in {names[1]}"
        title = f"{'week of ' if step > 1 else ''}{begin:%d %b %Y}: {counts}"
        slot = width / count
        parts.append(
            f'<rect class="slot" x="{x(index) - slot / 2:.1f}" y="{TOP}" width="{slot:.1f}" height="{HEIGHT - TOP - BOTTOM}">'
            f"<title>{escape(title)}</title></rect>"
        )
    return _svg(across, HEIGHT, f"{what} per {'week' if step > 1 else 'day'}", parts)


def columns(old: Mapping[int, int], new: Mapping[int, int], names: tuple[str, str], what: str, last: int) -> str:
    """Return pairs of columns over small numbers. `last` stands for itself and all above."""
    if not old and not new:
        return _empty(what)
    numbers = range(1, max([*old, *new]) + 1)
    top, ticks = _scale(max([*old.values(), *new.values()]))
    slot = (NARROW - LEFT - RIGHT) / len(numbers)
    wide = min(22.0, slot * 0.38)
    parts = list(_grid(ticks, top, NARROW))
    for place, number in enumerate(numbers):
        middle = LEFT + slot * (place + 0.5)
        label = f"{number}+" if number == last else str(number)
        parts.append(f'<text class="tick middle" x="{middle:.1f}" y="{HEIGHT - 10}">{label}</text>')
        for side, values, name, at in (("old", old, names[0], middle - wide - 1), ("new", new, names[1], middle + 1)):
            value = values.get(number, 0)
            y = _y(value, top)
            parts.append(
                f'<rect class="bar {side}" x="{at:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{_y(0, top) - y:.1f}" rx="2">'
                f"<title>{value:,} users get {label} from {escape(name)}</title></rect>"
            )
    return _svg(NARROW, HEIGHT, what, parts)


def rows(pairs: Sequence[tuple[str, float, float]], names: tuple[str, str], what: str) -> str:
    """Return pairs of horizontal bars, each with its label and its two numbers."""
    if not pairs:
        return _empty(what)
    most = max(max(old, new) for _, old, new in pairs) or 1
    room = NARROW - LABEL - NUMBER
    parts = []
    for place, (label, old, new) in enumerate(pairs):
        y = place * ROW
        shown = label if len(label) <= 26 else f"{label[:25]}…"
        parts.append(
            f'<text class="label" x="{LABEL - 12}" y="{y + ROW / 2 + 1}">{escape(shown)}<title>{escape(label)}</title></text>'
        )
        for side, value, name, at in (("old", old, names[0], y + 4), ("new", new, names[1], y + ROW / 2)):
            wide = room * value / most
            parts.append(
                f'<rect class="bar {side}" x="{LABEL}" y="{at}" width="{max(wide, 1):.1f}" height="{ROW / 2 - 5}" rx="2">'
                f"<title>{escape(f'{label}: {value:,.0f} in {name}')}</title></rect>"
                f'<text class="number" x="{LABEL + wide + 7:.1f}" y="{at + 10}">{value:,.0f}</text>'
            )
    return _svg(NARROW, len(pairs) * ROW, what, parts)


def _gathered(side: Mapping[str, int], first: date, step: int, count: int) -> list[int]:
    values = [0] * count
    for day, value in side.items():
        values[(date.fromisoformat(day) - first).days // step] += value
    return values


def _scale(most: float) -> tuple[float, list[float]]:
    """Return the upper end of an axis and its ticks: three to six round numbers."""
    if most <= 0:
        return 1, [0, 1]
    rough = most / 4
    power = 10 ** floor(log10(rough))
    step = max(1.0, next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough))
    top = step * ceil(most / step)
    return top, [step * index for index in range(round(top / step) + 1)]


def _y(value: float, top: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)


def _grid(ticks: Sequence[float], top: float, across: int) -> Iterator[str]:
    for tick in ticks:
        y = _y(tick, top)
        yield f'<line class="grid" x1="{LEFT}" x2="{across - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick end" x="{LEFT - 8}" y="{y + 4:.1f}">{_short(tick)}</text>'


def _dates(first: date, step: int, count: int, left: float, right: float) -> Iterator[str]:
    """Yield as many dates below the plot as there is room for, evenly spread from the first."""
    stride = ceil(count / max(1, (right - left) // DATE_WIDTH))
    for index in range(0, count, stride):
        x = left + (right - left) * (index / (count - 1) if count > 1 else 0)
        anchor = "middle" if 0 < index < count - 1 or count == 1 else "start" if index == 0 else "end"
        day = first + timedelta(days=index * step)
        yield f'<text class="tick {anchor}" x="{x:.1f}" y="{HEIGHT - 8}">{day:%d %b %y}</text>'


def _short(number: float) -> str:
    if number >= 1_000_000:
        return f"{number / 1_000_000:g}M"
    return f"{number / 1000:g}k" if number >= 1000 else f"{number:g}"


def _svg(across: int, height: float, what: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {across} {height:g}" role="img" aria-label="{escape(what)}" preserveAspectRatio="xMinYMin meet">'
        f"{''.join(parts)}</svg>"
    )


def _empty(what: str) -> str:
    return f'<p class="none">No {escape(what)} in either version.</p>'
