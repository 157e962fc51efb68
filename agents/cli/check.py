"""`equeengage check`: are the journeys of a folder in order?"""

from agents.cli.setup import Journeys, load_settings


def check(journeys: Journeys = None) -> None:
    """Check a folder of journeys without publishing anything.

    Loads every module, checks each journey and looks for its templates. Exits 1 at the first mistake, naming the file, the
    step and the nearest right name.

    Examples:

      equeengage check
      equeengage check --journeys ./my-journeys
    """
    from rich.console import Console
    from rich.table import Table

    from agents.cli.failure import Failed
    from agents.folder import read_folder
    from engine.definitions import freeze

    settings = load_settings(journeys=journeys)
    folder = read_folder(settings.journeys)
    if not folder.journeys:
        raise Failed(f"there is no journey in {folder.path}; a journey is a module with a Journey at its top level")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("journey", "begins with", "steps", "templates"):
        table.add_column(heading)
    for journey in folder.journeys:
        freeze("check", journey, folder.templates)
        table.add_row(
            journey.label, str(journey.entry), str(len(journey.steps)), ", ".join(journey.template_names()) or "none"
        )
    console = Console()
    console.print(table)
    unused = sorted(set(folder.templates) - {name for journey in folder.journeys for name in journey.template_names()})
    if unused:
        console.print(f"[yellow]no journey sends[/] {', '.join(unused)}", highlight=False)
    console.print(f"[green]{len(folder.journeys)} journeys are in order[/]", highlight=False)
