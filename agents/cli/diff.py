"""`equeengage diff`: what is different between two versions of a journey?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.setup import Tenant, load_settings

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
    kafka: Annotated[
        bool, typer.Option("--kafka", help="The same from Kafka, where EQUEENGAGE_KAFKA__BOOTSTRAP says.")
    ] = False,
    tenant: Tenant = "default",
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As markdown with a diagram, for a pull request.")
    ] = False,
) -> None:
    """Say what is different between two versions of a journey: who enters, steps, times, ways, texts.

    With a data folder (also beside a running server), or with --kafka, it says how many runs wait at each step of earlier
    versions, and whether they finish there or move. Two folders are compared journey by journey. Nothing is changed anywhere.

    Examples:

      equeengage diff welcome@1 journeys/welcome.py --data data
      equeengage diff welcome@1 journeys/welcome.py --kafka
      equeengage diff ../main/journeys journeys --markdown
    """
    from agents.telling import as_markdown, show

    compared = _compared(old, new, data, kafka, tenant)
    if markdown:
        typer.echo(as_markdown(compared), nl=False)
    else:
        from rich.console import Console

        show(Console(), compared)


def _compared(old: str, new: str, data: Path | None, kafka: bool, tenant: str) -> "Comparisons":
    from agents.comparing import compare_sides, find_versions

    if data is None and not kafka:
        return compare_sides(find_versions(old, None, tenant), find_versions(new, None, tenant))
    from agents.cli.looking import looking

    with looking(load_settings(data=data), kafka) as sight:
        sides = find_versions(old, sight.definitions, tenant), find_versions(new, sight.definitions, tenant)
        return compare_sides(*sides, sight.count_runs(tenant))
