"""`equeengage check`: are the journeys of a folder in order?"""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.setup import Journeys, load_settings

if TYPE_CHECKING:
    from agents.checking import Checked


class Format(StrEnum):
    """How findings are told: to a person, to a program, to GitHub (as annotations of a pull request)."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


def check(
    journeys: Journeys = None,
    output: Annotated[Format, typer.Option("--format", help="How to tell what was found.")] = Format.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings, too.")] = False,
) -> None:
    """Check a folder of journeys without publishing anything.

    Loads every module and looks at each journey: its steps and times, its templates, the events and attributes it reads
    (against the schemas in the folder, if there are any), and the most messages one user can get from it. Exits with 1 if
    there are errors, else with 0. A module that can't be loaded ends the check at once.

    Examples:

      equeengage check
      equeengage check --journeys ./my-journeys --strict
      equeengage check --format github
    """
    from agents.checking import Unreadable, as_github, as_json, check_folder
    from engine.errors import JourneyError

    settings = load_settings(journeys=journeys)
    try:
        checked: Checked | Unreadable = check_folder(settings.journeys)
    except JourneyError as error:
        if output is Format.TEXT:
            raise
        checked = Unreadable(str(error))
    match output:
        case Format.TEXT:
            from agents.checking import show

            assert not isinstance(checked, Unreadable)
            show(checked)
        case Format.JSON:
            typer.echo(as_json(checked))
        case Format.GITHUB:
            for line in as_github(checked):
                typer.echo(line)
    if checked.errors or (strict and checked.warnings):
        raise typer.Exit(1)
