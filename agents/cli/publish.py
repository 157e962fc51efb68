"""`equeengage publish`: make the journeys of a folder current."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.setup import Data, Journeys, OnKafka, is_on_kafka, load_settings

if TYPE_CHECKING:
    from engine.runtime.publish import Publication
    from engine.runtime.settings import Settings


def publish(
    journeys: Journeys = None,
    data: Data = None,
    kafka: OnKafka = False,
    tenant: Annotated[
        list[str] | None,
        typer.Option("--tenant", help="For whom; may be repeated. [default: all that have write keys]"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be published, and publish nothing.")
    ] = False,
) -> None:
    """Publish the journeys of a folder: what is new or has a new version becomes current, all at once or not at all.

    A published version never changes; whoever is in it finishes there. Works while a server runs on the data folder, and
    without one. Publishing the same folder again changes nothing.

    Examples:

      equeengage publish --journeys ./my-journeys
      equeengage publish --journeys ./my-journeys --dry-run
      EQUEENGAGE_KAFKA__BOOTSTRAP=broker:9092 equeengage publish --journeys ./my-journeys
    """
    import asyncio

    settings = load_settings(journeys=journeys, data=data)
    tenants = tenant or list(settings.write_keys) or ["default"]
    on_kafka = is_on_kafka(settings, kafka)
    publication, where = asyncio.run(_publish(settings, tenants, on_kafka, dry_run))
    for line in lines(publication):
        typer.echo(line)
    count = len(publication.activations)
    what = f"{count} {'journey' if count == 1 else 'journeys'}" if count else "nothing"
    typer.echo(f"{'would publish' if dry_run else 'published'} {what} to {where}")


async def _publish(
    settings: "Settings", tenants: Sequence[str], on_kafka: bool, dry_run: bool
) -> "tuple[Publication, str]":
    from agents.cli.failure import Failed
    from agents.cli.reach import reach
    from agents.folder import read_folder
    from engine.runtime.publish import plan

    folder = read_folder(settings.journeys)
    if not folder.journeys:
        raise Failed(f"there is no journey in {folder.path}; a journey is a module with a Journey at its top level")
    async with reach(settings, on_kafka, make=not dry_run) as reached:
        publication = plan(tenants, folder.journeys, folder.templates, reached.definitions)
        if publication.activations and not dry_run:
            await reached.log.append_atomically(publication.records(reached.log.partitions("events")))
        return publication, reached.where


def lines(publication: "Publication") -> list[str]:
    """Say what a publication does, a line for each journey."""
    return [str(change) for change in publication.changes]
