"""How a command is told to read recorded events: options that several commands share."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from agents.backtest.files import Format

READING = "How the file is read"


def _option(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel=READING, show_default=False)


FileFormat = Annotated[str | None, _option("ndjson, csv or parquet, where the name doesn't tell.")]
Separator = Annotated[str | None, _option("Between the cells of CSV; ' ' also for several.")]
UserColumn = Annotated[str | None, _option("The column that says whose it is.")]
TimeColumn = Annotated[str | None, _option("The column that says when.")]
TimeFormat = Annotated[str | None, _option("Such as %Y%m%d, where it isn't ISO 8601.")]
EventColumn = Annotated[str | None, _option("The column with the event's name.")]
EventName = Annotated[str | None, _option("The name of all events, where no column says it.")]
IdColumn = Annotated[str | None, _option("The column with the event's id.")]
ProfileColumn = Annotated[list[str] | None, _option("A column that is set in the profile; may be repeated.")]


def check_format(text: str | None) -> "Format | None":
    """Return the format. Raises Failed for one that isn't known."""
    from agents.backtest.files import FORMATS
    from agents.cli.failure import Failed

    found = next((format for format in FORMATS.values() if format == text), None)
    if text is not None and found is None:
        raise Failed(f"--format: {text!r} is none of ndjson, csv and parquet", exit_code=2)
    return found


def read_instant(text: str, option: str) -> int:
    """Return a time that was given, ms. Raises Failed if it can't be read."""
    from agents.cli.failure import Failed
    from agents.ingress import timestamps
    from agents.ingress.refusals import Refusal

    try:
        return timestamps.read(text)
    except Refusal as refusal:
        raise Failed(f"{option}: {refusal.detail}", exit_code=2) from None
