"""`equeengage topics`: the topics on Kafka."""

import re
from typing import Annotated

import typer

from agents.cli.setup import load_settings, silence_libraries

CHANNEL = r"[a-z][a-z0-9_]{0,31}"


def create(
    channel: Annotated[
        list[str] | None,
        typer.Option("--channel", metavar="NAME", help="Topics for a channel of yours, too; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is there and what is missing, and make nothing.")
    ] = False,
) -> None:
    """Make the topics that are missing on Kafka, as they must be, and check those that are there.

    The broker is EQUEENGAGE_KAFKA__BOOTSTRAP, the number of partitions EQUEENGAGE_KAFKA__PARTITIONS (default 24, chosen
    once), the number of copies EQUEENGAGE_KAFKA__REPLICATION (default 1; take 3 in production).

    Examples:

      EQUEENGAGE_KAFKA__BOOTSTRAP=127.0.0.1:9092 equeengage topics create
      equeengage topics create --dry-run
      equeengage topics create --channel sms --channel push
    """
    import asyncio

    from engine.runtime.kafka import topics

    for name in channel or []:
        if not re.fullmatch(CHANNEL, name):
            raise typer.BadParameter(f"{name!r} is not a channel; channels are written in [a-z0-9_], like sms")
    silence_libraries()
    settings = load_settings().kafka
    channels = dict.fromkeys([*topics.CHANNELS, *(channel or [])])
    if dry_run:
        for finding in asyncio.run(topics.compare(settings, channels)):
            typer.echo(f"{finding.topic.name:40} {finding.state}" + (f": {finding.problem}" if finding.problem else ""))
        return
    created = asyncio.run(topics.create(settings, channels))
    for name in created:
        typer.echo(f"{name} is new, with {settings.partitions} partitions")
    typer.echo(
        f"all topics are there and right at {settings.bootstrap}"
        if created
        else f"nothing to do at {settings.bootstrap}"
    )
