"""`equeengage draw`: a journey as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.setup import Data, Journeys, OnKafka, Tenant, is_on_kafka, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.journey import Journey
    from engine.runtime.settings import Settings
    from engine.runtime.states import Place


def draw(
    journey: Annotated[
        str | None,
        typer.Argument(
            help="Which journey, or name@version for one that was published; all of the folder if left out.",
            show_default=False,
        ),
    ] = None,
    journeys: Journeys = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to a file instead of the screen.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Steps and ways as JSON, for an editor.")] = False,
    counts: Annotated[
        bool, typer.Option("--counts", help="Show how many runs are at each step: from the data folder, or on Kafka.")
    ] = False,
    data: Data = None,
    kafka: OnKafka = False,
    tenant: Tenant = "default",
) -> None:
    """Draw journeys as mermaid state diagrams, which GitHub, GitLab and most editors show as pictures.

    Counts, and versions that were published (name@version), are read also while a server or workers run. On Kafka the
    counts are as of the workers' last commits; the users' changelogs are read for them, which takes a while.

    Examples:

      equeengage draw welcome
      equeengage draw --journeys ./my-journeys -o journeys.md
      equeengage draw welcome --counts --data data
      EQUEENGAGE_KAFKA__BOOTSTRAP=broker:9092 equeengage draw welcome@2 --counts
    """
    import msgspec

    from engine.diagrams import to_data, to_mermaid

    settings = load_settings(journeys=journeys, data=data)
    found, places = _found(settings, journey, tenant, counts, is_on_kafka(settings, kafka))
    here = {
        each.name: None if places is None else {
            step: runs for (name, version, step), runs in places.items() if (name, version) == (each.name, each.version)
        }
        for each in found
    }  # fmt: skip
    if as_json:
        shown = [to_data(each, here[each.name]) for each in found]
        text = (
            msgspec.json.format(msgspec.json.encode(shown if journey is None else shown[0]), indent=2).decode() + "\n"
        )
    else:
        drawn = [to_mermaid(each, here[each.name]) for each in found]
        is_page = (output is not None and output.suffix == ".md") or len(drawn) > 1
        text = "\n".join(f"```mermaid\n{picture}```\n" for picture in drawn) if is_page else "".join(drawn)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")
        typer.echo(f"{output} has {len(found)} {'diagram' if len(found) == 1 else 'diagrams'}")
    for each in found if places is not None else ():
        if line := _others(each, places or {}):
            typer.echo(line, err=True)


def _found(
    settings: "Settings", name: str | None, tenant: str, counted: bool, on_kafka: bool
) -> "tuple[list[Journey], Mapping[Place, int] | None]":
    """Return the journeys to draw, and how many runs are where if that is asked for."""
    is_published = name is not None and "@" in name
    if not is_published and not counted:
        return _in_folder(settings, name), None
    from agents.cli.looking import looking
    from agents.comparing import find_versions

    with looking(settings, on_kafka) as sight:
        if is_published:
            found = [version.journey for version in find_versions(str(name), sight.definitions, tenant)]
        else:
            found = _in_folder(settings, name)
        return found, sight.count_runs(tenant) if counted else None


def _in_folder(settings: "Settings", name: str | None) -> "list[Journey]":
    from difflib import get_close_matches

    from agents.cli.failure import Failed
    from agents.folder import read_folder

    folder = read_folder(settings.journeys)
    names = [each.name for each in folder.journeys]
    if name is not None and name not in names:
        near = get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'none'}"
        raise Failed(f"there is no journey {name!r} in {folder.path}; {hint}")
    return [each for each in folder.journeys if name in (None, each.name)]


def _others(journey: "Journey", places: "Mapping[Place, int]") -> str:
    """Say where else runs of the journey are, if they are in other versions than the one that is drawn."""
    versions: dict[int, int] = {}
    for (name, version, _), runs in places.items():
        if name == journey.name and version != journey.version:
            versions[version] = versions.get(version, 0) + runs
    told = [f"{runs} in {journey.name}@{version}" for version, runs in sorted(versions.items())]
    return f"runs of {journey.name} that are not shown: {', '.join(told)}" if told else ""
