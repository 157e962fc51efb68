"""`equeengage diff`: what is different between two versions of a journey?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.setup import Tenant

if TYPE_CHECKING:
    from agents.comparing import Comparisons


def diff(
    old: Annotated[
        str, typer.Argument(help="A module, a JSON file, a folder, folder:name, or name@version.", show_default=False)
    ],
    new: Annotated[str, typer.Argument(help="What to compare it with.", show_default=False)],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A data folder: what was published, and who waits where.", show_default=False),
    ] = None,
    tenant: Tenant = "default",
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As markdown with a diagram, for a pull request.")
    ] = False,
) -> None:
    """Say what is different between two versions of a journey: who enters, steps, times, ways, texts.

    With a data folder (also beside a running server) it says how many runs wait at each step of earlier versions, and
    whether they finish there or move. Two folders are compared journey by journey. Nothing is changed anywhere.

    Examples:

      equeengage diff welcome@1 journeys/welcome.py --data data
      equeengage diff ../main/journeys journeys --markdown
    """
    from agents.telling import as_markdown, show

    compared = _compared(old, new, data, tenant)
    if markdown:
        typer.echo(as_markdown(compared), nl=False)
    else:
        from rich.console import Console

        show(Console(), compared)


def _compared(old: str, new: str, data: Path | None, tenant: str) -> "Comparisons":
    from agents.cli.progress import counting
    from agents.comparing import compare_sides, find_versions

    if data is None:
        return compare_sides(find_versions(old, None, tenant), find_versions(new, None, tenant))
    from agents.cli.failure import Failed
    from engine.runtime.embedded.census import count_runs
    from engine.runtime.embedded.readonly import ReadOnlyLog

    if not data.is_dir():
        raise Failed(f"there is no data folder {data}; name it with --data DIR")
    with ReadOnlyLog.open(data) as log:
        sides = find_versions(old, log, tenant), find_versions(new, log, tenant)
        with counting("users looked at") as told:
            return compare_sides(*sides, count_runs(log, tenant, told))
