"""`equeengage resume`: let a suspended run go on."""

from typing import Annotated

import typer

from agents.cli.setup import Data, OnKafka, Tenant, is_on_kafka, load_settings, trace_command


def resume(
    user: Annotated[str, typer.Argument(help="Whose run it is.", show_default=False)],
    run: Annotated[
        str, typer.Argument(help="The run, as `equeengage trace USER --json` names it.", show_default=False)
    ],
    tenant: Tenant = "default",
    data: Data = None,
    kafka: OnKafka = False,
) -> None:
    """Let a run that was suspended by an error enter its step once more, after the cause is mended.

    Examples:

      equeengage trace ada --json
      equeengage resume ada welcome.1.k3vq2mzt7xw4a6bd
    """
    import asyncio

    import msgspec

    from agents.cli.reach import reach
    from schemas.inputs import Resumed
    from schemas.records import NewRecord

    settings = load_settings(data=data)
    record = NewRecord(
        "events",
        f"{tenant}:{user}".encode(),
        msgspec.json.encode(Resumed(run)),
        (("content-type", b"application/json"), ("tenant", tenant.encode())),
    )

    async def append() -> str:
        async with reach(settings, is_on_kafka(settings, kafka)) as reached:
            await reached.log.append([record])
            return reached.where

    where = asyncio.run(append())
    typer.echo(f"that {run} may go on was appended through {where}; see: {trace_command(user, data)}")
