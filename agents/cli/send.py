"""`equeengage send`: one event about one user, by hand."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli.setup import Data, OnKafka, Tenant, is_on_kafka, load_settings, trace_command

if TYPE_CHECKING:
    pass


def send(
    user: Annotated[str, typer.Argument(help="Whom the event is about.", show_default=False)],
    event: Annotated[str, typer.Argument(help="The event's name.", show_default=False)],
    properties: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE", help="Its properties; values are JSON, else text.")
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option("--profile", "-p", metavar="NAME=VALUE", help="An attribute to set on the user; may be repeated."),
    ] = None,
    tenant: Tenant = "default",
    data: Data = None,
    kafka: OnKafka = False,
) -> None:
    """Send one event about one user, to try a journey out. Returns when it is durable.

    Examples:

      equeengage send ada signed_up -p email=ada@example.com -p first_name=Ada
      equeengage send ada cart_updated cart_id=c1 items=2
      equeengage trace ada
    """
    import asyncio

    from agents.cli.reach import reach
    from schemas.records import NewRecord

    settings = load_settings(data=data)
    value, identifier = _encode_event(event, _pairs(properties or []), _pairs(profile or []))
    check_tenant(tenant)
    record = NewRecord(
        "events",
        f"{tenant}:{user}".encode(),
        value,
        (("content-type", b"application/json"), ("tenant", tenant.encode())),
    )

    async def append() -> str:
        async with reach(settings, is_on_kafka(settings, kafka)) as reached:
            await reached.log.append([record])
            return reached.where

    where = asyncio.run(append())
    typer.echo(f"{event} #{identifier} about {user} was appended through {where}; see: {trace_command(user, data)}")


def _encode_event(name: str, properties: dict[str, Any], profile: dict[str, Any]) -> tuple[bytes, str]:
    import time

    import msgspec
    import uuid_utils

    from schemas.inputs import Event

    identifier = str(uuid_utils.uuid7())
    event = Event(identifier, name, time.time_ns() // 1_000_000, properties, profile)
    return msgspec.json.encode(event), identifier


def check_tenant(tenant: str) -> None:
    from engine.runtime.settings import TENANT

    if not TENANT.match(tenant):
        raise typer.BadParameter(f"{tenant!r} is not a tenant; tenants are written in [a-z0-9-]")


def _pairs(texts: list[str]) -> dict[str, Any]:
    """Read NAME=VALUE. Values that are JSON (2, true, null, "a text") are taken as such, all others as text."""
    import json

    pairs: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{text!r} is not written NAME=VALUE")
        try:
            pairs[name] = json.loads(value, parse_constant=lambda constant: constant)
        except ValueError:
            pairs[name] = value
    return pairs
