"""`equeengage topics`: the topics on Kafka."""

from typing import Annotated

import typer

from agents.cli.setup import load_settings, silence_libraries


def create(
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
    """
    import asyncio

    from engine.runtime.kafka import topics

    silence_libraries()
    settings = load_settings().kafka
    if dry_run:
        for finding in asyncio.run(topics.compare(settings)):
            typer.echo(f"{finding.topic.name:40} {finding.state}" + (f": {finding.problem}" if finding.problem else ""))
        return
    created = asyncio.run(topics.create(settings))
    for name in created:
        typer.echo(f"{name} is new, with {settings.partitions} partitions")
    typer.echo(
        f"all topics are there and right at {settings.bootstrap}"
        if created
        else f"nothing to do at {settings.bootstrap}"
    )
