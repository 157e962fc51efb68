"""`equeengage erase`: forget a user."""

from typing import Annotated

import typer

from agents.cli.setup import Data, OnKafka, Tenant, is_on_kafka, load_settings


def erase(
    user: Annotated[str, typer.Argument(help="Who is to be forgotten.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    tenant: Tenant = "default",
    data: Data = None,
    kafka: OnKafka = False,
) -> None:
    """Forget a user: profile, runs, timers and history go, and whatever comes for this id later is dropped. For good.
    Ids that stand for the user (an anonymous id, an earlier id) are forgotten with them.

    A mark stays, so that the id stays forgotten. Records of the log that name the user (events, journal, commands that are
    on their way to a channel) go when their retention is over, and not before.

    Examples:

      equeengage erase ada
      equeengage erase ada --tenant shop --yes
    """
    import asyncio
    import time

    import msgspec

    from agents.cli.failure import Failed
    from agents.cli.reach import reach
    from agents.cli.send import check_tenant
    from schemas.inputs import Erased
    from schemas.records import NewRecord

    check_tenant(tenant)
    settings = load_settings(data=data)
    if not yes:
        if not _is_asked_of_a_person():
            raise Failed("this can't be undone; say so with --yes", exit_code=2)
        typer.confirm(f"Forget {user!r} of the tenant {tenant!r}? This can't be undone", abort=True)
    record = NewRecord(
        "events",
        f"{tenant}:{user}".encode(),
        msgspec.json.encode(Erased(f"erase-{time.time_ns() // 1_000_000}")),
        (("content-type", b"application/json"), ("tenant", tenant.encode())),
    )

    async def append() -> str:
        async with reach(settings, is_on_kafka(settings, kafka)) as reached:
            await reached.log.append([record])
            return reached.where

    typer.echo(f"that {user} is to be forgotten was appended through {asyncio.run(append())}")


def _is_asked_of_a_person() -> bool:
    import sys

    return sys.stdin.isatty()
