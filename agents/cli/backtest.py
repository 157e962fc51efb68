"""`equeengage backtest`: two versions of a journey, or of all journeys, on recorded events."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.reading import (
    EventColumn,
    EventName,
    FileFormat,
    IdColumn,
    ProfileColumn,
    Separator,
    TimeColumn,
    TimeFormat,
    UserColumn,
    check_format,
    read_instant,
)
from agents.cli.setup import Tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agents.backtest.sources import Source
    from engine.journey import Journey

LARGE_BYTES = 20_000_000  # below that, starting processes takes longer than they save
PEOPLE, RESULT = "How people take messages", "What comes out"


def backtest(
    old: Annotated[
        str, typer.Argument(help="A module, a JSON file, folder:name, name@version, or a folder.", show_default=False)
    ],
    new: Annotated[
        str, typer.Argument(help="What to compare it with; for a folder, another folder.", show_default=False)
    ],
    events: Annotated[
        Path, typer.Option("--events", help="A file of events, a folder of them, or a data folder.", show_default=False)
    ],
    tenant: Tenant = "default",
    until: Annotated[
        str | None,
        typer.Option("--until", help="Let time run on until this date; else to the last record.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, max=64, help="Processes; else one a core for large files.", show_default=False
        ),
    ] = None,
    format: FileFormat = None,
    separator: Separator = None,
    user_column: UserColumn = None,
    time_column: TimeColumn = None,
    time_format: TimeFormat = None,
    event_column: EventColumn = None,
    event: EventName = None,
    id_column: IdColumn = None,
    profile_column: ProfileColumn = None,
    reachable: Annotated[
        bool,
        typer.Option("--reachable", help="Give everybody an address on every channel.", rich_help_panel=PEOPLE),
    ] = False,
    opens: Annotated[float, typer.Option(help="Share of messages that are opened.", rich_help_panel=PEOPLE)] = 0.0,
    clicks: Annotated[float, typer.Option(help="Share that is clicked.", rich_help_panel=PEOPLE)] = 0.0,
    bounces: Annotated[float, typer.Option(help="Share that bounces.", rich_help_panel=PEOPLE)] = 0.0,
    price: Annotated[
        list[str] | None,
        typer.Option(
            help="What a message costs: email=0.001; may be repeated.", rich_help_panel=RESULT, show_default=False
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option("--json", help="Write the result as JSON.", rich_help_panel=RESULT, show_default=False),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", help="Write a page with plots, in one file.", rich_help_panel=RESULT, show_default=False
        ),
    ] = None,
) -> None:
    """Play recorded events through two versions of a journey, and show what differs.

    Given two folders, all their journeys are played together, with their policies: who gets what, when everything competes
    for the same caps. Both sides are folded by the code that also runs in production. Receipts are scripted; what people
    did stays as it was recorded. Events come as NDJSON (our form, or Segment's), CSV, Parquet, or from the log of the
    embedded host.

    Examples:

      equeengage backtest journeys/win_back.py win_back_v2.py --events data
      equeengage backtest ../main/journeys journeys --events data
      equeengage backtest old.py new.py --events orders.csv --event order_placed --user-column customer --html report.html
    """
    from rich.console import Console

    from agents.backtest.columns import Columns
    from agents.backtest.page import page_of
    from agents.backtest.play import Plan, play
    from agents.backtest.report import report_of
    from agents.backtest.shares import best_fold
    from agents.backtest.sources import open_source
    from agents.backtest.tables import show
    from agents.backtest.versions import find_sides
    from agents.cli.failure import Failed
    from agents.cli.progress import showing_progress
    from engine.backtest import World
    from engine.reactions import Reactions
    from engine.simulator import REACHABLE

    columns = Columns(
        user_column, time_column, event_column, event, id_column, time_format, tuple(profile_column or ())
    )
    prices = dict(_price(text) for text in price or ())
    until_at = None if until is None else read_instant(until, "--until")
    try:
        world = World(tenant, Reactions(opens, clicks, bounces), REACHABLE if reachable else {})
    except ValueError as error:
        raise Failed(f"--opens, --clicks, --bounces: {error}", exit_code=2) from None
    with open_source(events, tenant, columns, check_format(format), separator) as source:
        published = source.published if source.log is not None else None
        sides = find_sides(old, new, published, source.current_policy())
        plan = Plan(*sides, world, until_at, prices)
        with showing_progress() as progress:
            played = play(plan, source.recording, progress, best_fold(_workers(workers, source)))
    find_journey = _among([journey for side in sides for journey in side.counted])
    show(Console(), played, find_journey)
    for place, text in ((json, report_of), (html, page_of)):
        if place is not None:
            place.write_text(text(played, find_journey), "utf-8")
            typer.echo(f"{place} is written")


def _among(versions: "Sequence[Journey]") -> "Callable[[str, int], Journey | None]":
    return lambda name, version: next((each for each in versions if (each.name, each.version) == (name, version)), None)


def _workers(asked: int | None, source: "Source") -> int:
    """Return in how many processes to play. A log is read by one: it grows, and all must read the same."""
    import os

    from agents.cli.failure import Failed

    if source.log is not None:
        if asked is not None and asked > 1:
            raise Failed("--workers: a data folder is read by one process", exit_code=2)
        return 1
    return asked or (os.cpu_count() or 1 if source.recording.size > LARGE_BYTES else 1)


def _price(text: str) -> tuple[str, float]:
    from agents.cli.failure import Failed

    channel, equals, amount = text.partition("=")
    try:
        if not channel or not equals or not 0 <= float(amount) < 1e9:
            raise ValueError
    except ValueError:
        raise Failed(f"--price: {text!r} is not written CHANNEL=AMOUNT, such as email=0.001", exit_code=2) from None
    return channel, float(amount)
