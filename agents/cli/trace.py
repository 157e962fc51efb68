"""`equeengage trace`: one user's story."""

from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.setup import Data, OnKafka, Tenant, is_on_kafka, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.journey import Journey
    from engine.runtime.embedded.readonly import ReadOnlyLog
    from engine.runtime.kafka.log import KafkaLog
    from engine.runtime.settings import Settings
    from schemas.definitions import Definition
    from schemas.outputs import JournalEntry


def trace(
    user: Annotated[str, typer.Argument(help="Whose story.", show_default=False)],
    tenant: Tenant = "default",
    as_json: Annotated[
        bool, typer.Option("--json", help="The entries of the journal, one JSON object a line.")
    ] = False,
    utc: Annotated[bool, typer.Option("--utc", help="Times in UTC instead of local time.")] = False,
    data: Data = None,
    kafka: OnKafka = False,
) -> None:
    """Tell one user's story: which journeys they entered and why, what they were sent, what became of it.

    What happened under other ids that turned out to be the same person is part of it, whichever of them you name.
    Reads the journal, also beside a running server. On Kafka it scans the one partition of the journal the user is in.

    Examples:

      equeengage trace ada
      equeengage trace ada --json | jq .reason
    """
    from datetime import UTC

    import msgspec
    from rich.console import Console

    from agents.cli.failure import Failed
    from agents.trace import show, tell

    settings = load_settings(data=data)
    on_kafka = is_on_kafka(settings, kafka)
    entries, definitions = (_from_kafka if on_kafka else _from_folder)(settings, tenant, user)
    if as_json:
        for entry in entries:
            typer.echo(msgspec.json.encode(entry))
        return
    if not entries:
        folds = "worker" if on_kafka else "server"
        raise Failed(
            f"the journal says nothing about {user!r} of the tenant {tenant!r}; is the id written right, and does a {folds}"
            " run that folds what was sent?"
        )
    story = tell(entries, finder(tenant, definitions))
    show(Console(), f"What happened to {user}", story, UTC if utc else None)


def _from_folder(settings: "Settings", tenant: str, user: str) -> "tuple[list[JournalEntry], dict[str, Definition]]":
    from agents.cli.failure import Failed
    from agents.person import gather
    from engine.runtime.embedded.readonly import ReadOnlyLog

    if not settings.data.is_dir():
        raise Failed(f"there is no data folder {settings.data}; name it with --data DIR")
    with ReadOnlyLog.open(settings.data) as log:
        definitions = {definition.key: definition for definition in log.definitions.all()}
        return gather(lambda who: _entries(log, tenant, who), user), definitions


def _from_kafka(settings: "Settings", tenant: str, user: str) -> "tuple[list[JournalEntry], dict[str, Definition]]":
    """Scan the one partition of the journal that the user is in, and show how far that has come."""
    import asyncio

    from rich.console import Console
    from rich.progress import Progress

    from agents.cli.reach import reach
    from agents.person import gather
    from engine.runtime.kafka.log import KafkaLog

    async def read_definitions() -> "dict[str, Definition]":
        async with reach(settings, on_kafka=True) as reached:
            return {definition.key: definition for definition in reached.definitions.all()}

    definitions = asyncio.run(read_definitions())
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading the journal", total=None)
        log = KafkaLog(settings.kafka, progress=lambda read, end: progress.update(task, completed=read, total=end))
        return gather(lambda who: _entries(log, tenant, who), user), definitions


def _entries(log: "ReadOnlyLog | KafkaLog", tenant: str, user: str) -> "Iterator[JournalEntry]":
    """Yield the entries of one id, in the order of the log."""
    from schemas.journal import read_entries

    key = f"{tenant}:{user}".encode()
    for record in log.read("journal", key):
        if record.key == key:
            for entry in read_entries(record.value):
                if not entry.shadow:  # that only would have happened
                    yield entry


def finder(tenant: str, definitions: "dict[str, Definition]") -> "Callable[[str, int], Journey | None]":
    """Return how a version of a journey is looked up; what can't be read by this version isn't found."""
    from functools import cache

    from engine.definitions import thaw
    from engine.errors import JourneyError

    @cache
    def find(name: str, version: int) -> "Journey | None":
        definition = definitions.get(f"{tenant}/journey/{name}@{version}")
        try:
            return None if definition is None else thaw(definition)
        except JourneyError:
            return None

    return find
