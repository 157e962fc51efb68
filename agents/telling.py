"""How the difference of versions is told: to somebody at a terminal, and in a pull request."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.comparing import Comparison, Comparisons
from engine.diagrams import difference_to_mermaid
from engine.diff import Change, Difference, Fate

NEEDS_VERSION = "both have the same number: once it is published, raise `version`, or publishing will be refused"
STYLES = {"added": "green", "removed": "red", "renamed": "blue", "changed": "yellow"}
LINES = {"+": "green", "-": "red", "@": "cyan"}


def show(console: Console, compared: Comparisons) -> None:
    """Print what is different, for a terminal."""
    for label in compared.only_old:
        console.print(Text(f"{label} is gone", "bold red"))
    for label in compared.only_new:
        console.print(Text(f"{label} is new", "bold green"))
    for comparison in compared.both:
        if not _is_dull(comparison, compared):
            _show_one(console, comparison)
    if dull := _dull(compared):
        console.print(Text(dull, "dim"))


def as_markdown(compared: Comparisons) -> str:
    """Return what is different as markdown: words, a diagram, the texts folded away, and who is concerned."""
    parts = [f"### {label} is gone\n" for label in compared.only_old]
    parts += [f"### {label} is new\n" for label in compared.only_new]
    parts += ["\n".join(_markdown(each)) for each in compared.both if not _is_dull(each, compared)]
    parts += [f"{dull}\n" for dull in [_dull(compared)] if dull]
    return "\n".join(parts)


def _is_dull(comparison: Comparison, compared: Comparisons) -> bool:
    """Is nothing different in one of several journeys?"""
    return comparison.difference.is_empty and len(compared.both) > 1


def _dull(compared: Comparisons) -> str:
    names = [each.difference.new.name for each in compared.both if _is_dull(each, compared)]
    return f"Nothing is different in {', '.join(names)}." if names else ""


def _show_one(console: Console, comparison: Comparison) -> None:
    difference = comparison.difference
    console.print(Text(_heading(difference), "bold"))
    if difference.is_empty:
        console.print(Text("  nothing is different", "dim"))
    if difference.needs_version:
        console.print(Text(f"  {NEEDS_VERSION}", "red"))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for change in [*difference.rules, *difference.steps]:
        table.add_row(Text(f"  {change.kind}", STYLES[change.kind]), change.place, Text(change.words))
    console.print(table)
    for text in difference.texts:
        console.print(Text(f"\n  {text.template}, {text.part}", "bold"))
        for line in text.lines:
            console.print(Text(f"  {line}", LINES.get(line[:1], "")), soft_wrap=True)
    if comparison.fates is not None:
        _show_fates(console, difference, comparison.fates)
    console.print()


def _show_fates(console: Console, difference: Difference, fates: Sequence[Fate]) -> None:
    if not fates:
        console.print(Text("\n  no runs wait in earlier versions", "dim"))
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("runs", "wait at", "the step", "they"):
        table.add_column(heading, justify="right" if heading == "runs" else "left")
    for fate in fates:
        state = Text(fate.state, STYLES[fate.kind] if fate.kind else "")
        table.add_row(f"{fate.runs:,}", f"v{fate.version} {fate.step}", state, fate.words)
    console.print()
    console.print(table)


def _markdown(comparison: Comparison) -> Iterator[str]:
    difference = comparison.difference
    yield f"### {_heading(difference)}\n"
    if difference.is_empty:
        yield "Nothing is different.\n"
    if difference.needs_version:
        yield f"**{NEEDS_VERSION[0].upper()}{NEEDS_VERSION[1:]}.**\n"
    if difference.rules:
        yield from (f"- **{change.place}**: {change.words}" for change in difference.rules)
        yield ""
    for place, changes in groupby(difference.steps, key=lambda change: change.place):
        yield _bullet(place, list(changes))
    if difference.steps:
        yield ""
    if difference.rules or difference.steps:
        yield f"```mermaid\n{difference_to_mermaid(difference)}```\n"
    for text in difference.texts:
        fence = _fence(text.lines)
        yield f"<details><summary>{text.template}, {text.part}</summary>\n\n{fence}diff"
        yield from text.lines
        yield f"{fence}\n\n</details>\n"
    if comparison.fates is not None:
        yield from _fates_in_markdown(comparison.fates)


def _bullet(place: str, changes: Sequence[Change]) -> str:
    kinds = ", ".join(dict.fromkeys(change.kind for change in changes))
    return f"- `{place}` {kinds}: {'; '.join(change.words for change in changes)}"


def _fates_in_markdown(fates: Sequence[Fate]) -> Iterator[str]:
    if not fates:
        yield "No runs wait in earlier versions.\n"
        return
    yield "| runs | wait at | the step | they |\n|---:|---|---|---|"
    yield from (f"| {fate.runs:,} | v{fate.version} `{fate.step}` | {fate.state} | {fate.words} |" for fate in fates)
    yield ""


def _heading(difference: Difference) -> str:
    old, new = difference.old, difference.new
    if old.label == new.label:
        return new.label
    return f"{old.label} → {f'v{new.version}' if old.name == new.name else new.label}"


def _fence(lines: Sequence[str]) -> str:
    """Return backticks enough to hold these lines."""
    longest = max((len(run) for line in lines for run in re.findall(r"`+", line)), default=0)
    return "`" * max(3, longest + 1)
