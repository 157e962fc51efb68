"""`equeengage publish`: make the journeys and the policy of a folder current."""

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
    """Publish the journeys and the policy of a folder: what is new or has a new version becomes current, all at once.

    A published version never changes; whoever is in it finishes there, or moves where the new version's `moves` say. Says
    what is different from the version before. Works while a server runs on the data folder, and without one. Publishing
    the same folder again changes nothing; what was rolled back stays so.

    Examples:

      equeengage publish --journeys ./my-journeys
      equeengage publish --journeys ./my-journeys --dry-run
      EQUEENGAGE_KAFKA__BOOTSTRAP=broker:9092 equeengage publish --journeys ./my-journeys
    """
    import asyncio

    from agents.cli.send import check_tenant

    for name in tenant or ():
        check_tenant(name)
    settings = load_settings(journeys=journeys, data=data)
    tenants = tenant or list(settings.write_keys) or ["default"]
    on_kafka = is_on_kafka(settings, kafka)
    publication, where = asyncio.run(_publish(settings, tenants, on_kafka, dry_run))
    for line in lines(publication):
        typer.echo(line)
    typer.echo(f"{'would publish' if dry_run else 'published'} {_counted(publication)} to {where}")


async def _publish(
    settings: "Settings", tenants: Sequence[str], on_kafka: bool, dry_run: bool
) -> "tuple[Publication, str]":
    from agents.cli.failure import Failed
    from agents.cli.reach import reach
    from agents.folder import read_folder
    from engine.runtime.publish import plan

    folder = read_folder(settings.journeys)
    if not folder.journeys and folder.policy is None:
        raise Failed(f"there is no journey in {folder.path}; a journey is a module with a Journey at its top level")
    async with reach(settings, on_kafka, make=not dry_run) as reached:
        publication = plan(tenants, folder.journeys, folder.templates, reached.definitions, folder.policy)
        if on_kafka:
            await _refuse_channels_without_topic(settings, publication)
        if publication.activations and not dry_run:
            await reached.log.append_atomically(publication.records(reached.log.partitions("events")))
        return publication, reached.where


async def _refuse_channels_without_topic(settings: "Settings", publication: "Publication") -> None:
    """A worker whose commands have no topic to go to could commit nothing more, and would stand still."""
    from agents.cli.failure import Failed
    from engine.journey import Journey
    from engine.runtime.kafka import topics

    wanted: dict[str, str] = {}
    for change in publication.changes:
        if change.kind in ("new", "updated") and isinstance(change.definition, Journey):
            for channel in change.definition.channels():
                wanted.setdefault(channel, change.definition.label)
    for channel in await topics.channels_without_topic(settings.kafka, wanted):
        raise Failed(
            f"{wanted[channel]} sends to the channel {channel!r}, whose topics don't exist on Kafka: workers would stand still"
            f" over its first message; make them with: equeengage topics create --channel {channel}"
        )


def lines(publication: "Publication") -> list[str]:
    """Say what a publication does: a line for each definition, and one for each thing that is different."""
    return [
        line for change in publication.changes for line in (str(change), *(f"    {each}" for each in change.details))
    ]


def _counted(publication: "Publication") -> str:
    count = sum(activated.kind == "journey" for activated in publication.activations)
    said = [f"{count} {'journey' if count == 1 else 'journeys'}"] if count else []
    if any(activated.kind == "policy" for activated in publication.activations):
        said.append("the policy")
    return " and ".join(said) or "nothing"
