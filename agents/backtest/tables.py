"""How a backtest looks in a terminal: the figures side by side, and who is treated differently, with an example each."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.backtest.figures import Figure, figures_of, notes_of
from agents.backtest.play import Played
from agents.trace import STYLES, FindJourney, Sentence, tell
from schemas.outputs import JournalEntry

MOST_SENTENCES = 10  # of each side of an example; the page has all


def show(console: Console, played: Played, find_journey: FindJourney) -> None:
    """Print a backtest."""
    comparison = played.comparison
    console.print(Text(f"{comparison.old.journey} against {comparison.new.journey}", "bold"))
    console.print(
        f"[dim]{comparison.inputs:,} recorded inputs of {comparison.users:,} users,"
        f" {comparison.first_at[:10]} to {comparison.last_at[:10]}[/]",
        highlight=False,
    )
    console.print()
    console.print(table_of(figures_of(comparison), (comparison.old.journey, comparison.new.journey)))
    _show_differences(console, played, find_journey)
    console.print()
    for note in notes_of(played):
        console.print(Text(f"· {note}", "dim"))


def table_of(figures: Iterable[Figure], headings: tuple[str, str]) -> Table:
    """Return the figures side by side under the names of both sides."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("")
    for heading in (*headings, "change"):
        table.add_column(heading, justify="right")
    group = ""
    for figure in figures:
        if group and figure.group != group:
            table.add_row()
        name, group = "" if figure.group == group else figure.group, figure.group
        table.add_row(
            Text(name, "bold"), Text(figure.label),
            figure.written(figure.old), figure.written(figure.new), Text(figure.change, _mood(figure.change)),
        )  # fmt: skip
    return table


def _mood(change: str) -> str:
    return "dim" if change == "=" else "cyan"


def _show_differences(console: Console, played: Played, find_journey: FindJourney) -> None:
    comparison = played.comparison
    console.print()
    if not comparison.differences:
        console.print(f"Nobody of {comparison.users:,} users is treated differently.", style="bold")
        return
    share = comparison.differing_users / comparison.users
    console.print(
        Text(f"{comparison.differing_users:,} users ({share:.1%}) are treated differently", "bold"), highlight=False
    )
    headings = (comparison.old.journey, comparison.new.journey)
    for difference in comparison.differences:
        story = played.stories[difference.example]
        show_example(console, difference, (story.old, story.new), headings, find_journey)


class Differing(Protocol):
    """Users who are treated differently in one way, and one of them."""

    @property
    def text(self) -> str: ...

    @property
    def users(self) -> int: ...

    @property
    def example(self) -> str: ...


def show_example(
    console: Console,
    difference: Differing,
    story: tuple[Sequence[JournalEntry], Sequence[JournalEntry]],
    headings: tuple[str, str],
    find_journey: FindJourney,
) -> None:
    """Print how many differ in one way, and what happened to one of them on both sides."""
    console.print()
    console.print(
        Text.assemble((f"{difference.users:,}", "bold cyan"), f" {difference.text}; for example {difference.example}:")
    )
    table = Table(box=None, padding=(0, 3, 0, 2), header_style="dim", expand=True)
    for heading in headings:
        table.add_column(heading, ratio=1)
    sides = [told(tell(entries, find_journey)) for entries in story]
    for old, new in zip_longest(*sides, fillvalue=Text("")):
        table.add_row(old, new)
    console.print(table)


def told(sentences: list[Sentence]) -> list[Text]:
    """Return the sentences as lines, the first ones if there are many."""
    if not sentences:
        return [Text("nothing", "dim")]
    lines = [Text.assemble((f"{date(each.at)}  ", "dim"), (each.text, STYLES[each.mood])) for each in sentences]
    if len(lines) > MOST_SENTENCES:
        lines[MOST_SENTENCES:] = [Text(f"and {len(lines) - MOST_SENTENCES} more", "dim")]
    return lines


def date(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M}"
