"""`equeengage explain`: why a user is, or isn't, in a journey."""

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
from agents.cli.setup import Data, Journeys, Tenant, is_on_kafka, load_settings

if TYPE_CHECKING:
    from engine.explain import Explanation


def explain(
    user: Annotated[str, typer.Argument(help="Whose story.", show_default=False)],
    journey: Annotated[str, typer.Argument(help="Which journey, by its name.", show_default=False)],
    at: Annotated[
        str | None, typer.Option("--at", help="As of this time; else of the last record.", show_default=False)
    ] = None,
    tenant: Tenant = "default",
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
    utc: Annotated[bool, typer.Option("--utc", help="Times in UTC instead of local time.")] = False,
    data: Data = None,
    events: Annotated[
        Path | None,
        typer.Option(
            "--events", help="Read a recorded file, or a folder of files, instead of the log.", show_default=False
        ),
    ] = None,
    journeys: Journeys = None,
    format: FileFormat = None,
    separator: Separator = None,
    user_column: UserColumn = None,
    time_column: TimeColumn = None,
    time_format: TimeFormat = None,
    event_column: EventColumn = None,
    event: EventName = None,
    id_column: IdColumn = None,
    profile_column: ProfileColumn = None,
) -> None:
    """Explain why a user is, or isn't, in a journey: every entry that was considered, and what each condition saw.

    Folds the user's inputs once more, watching, from the log of the embedded host (also beside a running server) or from a
    recorded file with the journeys of a folder. Where a single condition stood in the way it says so, having tried it.

    Examples:

      equeengage explain ada welcome
      equeengage explain ada welcome --at 2026-05-01T12:00 --json
      equeengage explain 00014 win_back --events orders.csv --event order_placed --journeys ./my-journeys
    """
    from datetime import UTC

    from rich.console import Console

    from agents.backtest.columns import Columns
    from agents.backtest.recording import Rejects
    from agents.backtest.sources import open_source
    from agents.cli.failure import Failed
    from agents.cli.progress import showing_progress
    from agents.explain.histories import from_log, from_recording
    from agents.explain.telling import document, show
    from engine.explain import explain as explain_user

    settings = load_settings(data=data, journeys=journeys)
    until_at = None if at is None else read_instant(at, "--at")
    columns = Columns(
        user_column, time_column, event_column, event, id_column, time_format, tuple(profile_column or ())
    )
    place = settings.data if events is None else events
    if events is None and is_on_kafka(settings, asked=False):
        kafka = settings.kafka
        raise Failed(
            f"on Kafka, write the topic to a file (kcat -b {kafka.bootstrap} -C -e -J -t {kafka.prefix}.events"
            " > events.ndjson) and name it with --events events.ndjson"
        )
    if events is None and not place.is_dir():
        raise Failed(f"there is no data folder {place}; name it with --data DIR, or a recorded file with --events FILE")
    rejects = Rejects()
    with open_source(place, tenant, columns, check_format(format), separator) as source, showing_progress() as progress:
        progress.begin("reading", source.recording.size)
        if source.log is not None:
            history = from_log(source.log, tenant, user, progress.advance)
        else:
            history = from_recording(source.recording, settings.journeys, tenant, user, rejects, progress.advance)
        explanation = explain_user(
            tenant, user, journey, history.happenings,
            catalog=history.catalog, until_at=until_at, alone=not history.is_log,
        )  # fmt: skip
    _check_journey(explanation, journey)
    if until_at is not None:
        history.kept = None  # as of another time
    if as_json:
        typer.echo(document(explanation, history), nl=False)
    else:
        show(Console(), explanation, history, UTC if utc else None)


def _check_journey(explanation: "Explanation", journey: str) -> None:
    """Raise Failed for a journey that never was active, with the nearest that was."""
    from difflib import get_close_matches

    from agents.cli.failure import Failed

    if explanation.versions:
        return
    near = get_close_matches(journey, explanation.active, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(explanation.active) or 'none'}"
    raise Failed(f"there is no journey {journey!r}; {hint}")
