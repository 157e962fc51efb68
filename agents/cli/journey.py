"""`equeengage journey ...`: what is current, and what operators do to journeys while users are in them."""

from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.setup import Data, OnKafka, Tenant, is_on_kafka, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.runtime.controls import Act, Action
    from engine.runtime.host import Definitions

Name = Annotated[str, typer.Argument(help="The journey.", show_default=False)]


def list_journeys(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Whose. [default: all]", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    data: Data = None,
    kafka: OnKafka = False,
) -> None:
    """List the journeys and policies that were published: the current version, since when, whether paused or closed.

    Examples:

      equeengage journey list
      equeengage journey list --json | jq 'select(.state != "running")'
    """
    import asyncio

    import msgspec
    from rich.console import Console
    from rich.table import Table

    from agents.cli.reach import reach
    from engine.runtime.controls import state_of
    from engine.runtime.publish import shown
    from engine.runtime.standings import Standings

    settings = load_settings(data=data)

    async def read() -> "tuple[Standings, str]":
        async with reach(settings, is_on_kafka(settings, kafka)) as reached:
            return Standings(reached.definitions), reached.where

    known, where = asyncio.run(read())
    found = [(name, standing) for name, standing in known.all() if tenant in (None, name[0])]
    if as_json:
        for (owner, kind, name), standing in found:
            told = {
                "tenant": owner, "kind": kind, "name": name, "version": standing.version,
                "since_at": standing.since_at or None, "state": state_of(standing).split()[0].rstrip(","),
                "paused_at": standing.paused_at or None, "closed_at": standing.closed_at or None,
                "versions": known.versions(owner, kind, name),
            }  # fmt: skip
            typer.echo(msgspec.json.encode(told))
        return
    if not found:
        typer.echo(f"nothing is published in {where}")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("tenant", "journey", "version", "since", "state", "other versions"):
        table.add_column(heading, no_wrap=heading in ("journey", "version"))
    for (owner, kind, name), standing in found:
        others = [f"v{each}" for each in known.versions(owner, kind, name) if each != standing.version]
        since = shown(standing.since_at) if standing.since_at else ""
        called = name if kind == "journey" else f"the {kind}"
        table.add_row(owner, called, f"v{standing.version}", since, state_of(standing), ", ".join(others))
    Console(highlight=False).print(table)


def pause(name: Name, tenant: Tenant = "default", data: Data = None, kafka: OnKafka = False) -> None:
    """Pause a journey: runs stay where they are, their timers wait, and nobody enters.

    Examples:

      equeengage journey pause cart_abandonment
      equeengage journey resume cart_abandonment
    """
    _control("pause", name, tenant, data, kafka)


def resume(name: Name, tenant: Tenant = "default", data: Data = None, kafka: OnKafka = False) -> None:
    """Let a paused journey go on. What was due in between happens now, each at its own time.

    A message that would go out later than its step's max_lateness (a day, unless the step says otherwise) is dropped: a
    backlog floods nobody. For a single run that an error has suspended: equeengage resume USER RUN.

    Examples:

      equeengage journey resume cart_abandonment
    """
    _control("resume", name, tenant, data, kafka)


def stop(name: Name, tenant: Tenant = "default", data: Data = None, kafka: OnKafka = False) -> None:
    """Stop a journey: every run ends, wherever it is, and nobody enters any more.

    What was handed to a channel already still goes out. A new version, or a rollback, opens the journey again.

    Examples:

      equeengage journey stop cart_abandonment
    """
    _control("stop", name, tenant, data, kafka)


def retire(name: Name, tenant: Tenant = "default", data: Data = None, kafka: OnKafka = False) -> None:
    """Retire a journey: nobody enters any more, and who is in it finishes.

    A new version, or a rollback, opens the journey again.

    Examples:

      equeengage journey retire black_friday
    """
    _control("retire", name, tenant, data, kafka)


def rollback(
    name: Name,
    version: Annotated[int, typer.Argument(help="A version that was published.", show_default=False)],
    tenant: Tenant = "default",
    data: Data = None,
    kafka: OnKafka = False,
) -> None:
    """Make a version that was published before the current one again. Runs finish on the version they are in.

    It stays so when the folder is published again, until a new version comes or a rollback to a later one.

    Examples:

      equeengage journey list
      equeengage journey rollback cart_abandonment 2
    """
    from engine.runtime.controls import rollback

    act(lambda published, now: rollback(published, tenant, "journey", name, version, now), data, kafka)


def _control(action: "Action", name: str, tenant: str, data: "Path | None", kafka: bool) -> None:
    from engine.runtime.controls import control

    act(lambda published, now: control(published, tenant, name, action, now), data, kafka)


def act(decide: "Callable[[Definitions, int], Act]", data: "Path | None", kafka: bool) -> None:
    """Do what an operator asks for, at once in every partition, and say so."""
    import asyncio
    import time

    from agents.cli.reach import reach

    settings = load_settings(data=data)

    async def append() -> "tuple[Act, str]":
        async with reach(settings, is_on_kafka(settings, kafka)) as reached:
            decided = decide(reached.definitions, time.time_ns() // 1_000_000)
            records = decided.publication.records(reached.log.partitions("events"))
            if records:
                await reached.log.append_atomically(records)
            return decided, f"; appended through {reached.where}" if records else ""

    decided, where = asyncio.run(append())
    typer.echo(f"{decided.words}{where}")
