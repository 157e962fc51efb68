"""`equeengage draw`: a journey as a picture."""

from pathlib import Path
from typing import Annotated

import typer

from agents.cli.setup import Journeys, load_settings


def draw(
    journey: Annotated[
        str | None, typer.Argument(help="Which journey; all of the folder if left out.", show_default=False)
    ] = None,
    journeys: Journeys = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to a file instead of the screen.", show_default=False)
    ] = None,
) -> None:
    """Draw journeys as mermaid state diagrams, which GitHub, GitLab and most editors show as pictures.

    Examples:

      equeengage draw welcome
      equeengage draw --journeys ./my-journeys -o journeys.md
    """
    from difflib import get_close_matches

    from agents.cli.failure import Failed
    from agents.folder import read_folder
    from engine.diagrams import to_mermaid

    folder = read_folder(load_settings(journeys=journeys).journeys)
    names = [each.name for each in folder.journeys]
    if journey is not None and journey not in names:
        near = get_close_matches(journey, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'none'}"
        raise Failed(f"there is no journey {journey!r} in {folder.path}; {hint}")
    drawn = [to_mermaid(each) for each in folder.journeys if journey in (None, each.name)]
    if (output is not None and output.suffix == ".md") or len(drawn) > 1:
        text = "\n".join(f"```mermaid\n{picture}```\n" for picture in drawn)
    else:
        text = "".join(drawn)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
        typer.echo(f"{output} has {len(drawn)} {'diagram' if len(drawn) == 1 else 'diagrams'}")
