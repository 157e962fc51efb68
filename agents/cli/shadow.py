"""`equeengage shadow ...`: a version runs beside the active one, unseen, and a report says what it would have done."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.setup import Data, OnKafka, Tenant, is_on_kafka, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agents.shadows import Stories
    from agents.trace import FindJourney
    from engine.divergence import Report
    from engine.journey import Journey
    from engine.runtime.host import Definitions
    from engine.runtime.settings import Settings
    from schemas.definitions import Standing
    from schemas.records import Record

REPORT_EVERY = 1000  # records

Name = Annotated[str, typer.Argument(help="The journey.", show_default=False)]


def start(
    version: Annotated[
        str, typer.Argument(help="A module, a JSON file, folder:name, or name@version.", show_default=False)
    ],
    tenant: Tenant = "default",
    data: Data = None,
    kafka: OnKafka = False,
) -> None:
    """Let a version run as a shadow: beside the active one, on what really happens, and nobody notices.

    It meets every user as if it had been activated now. No message, call, event or question to a quota leaves it. The
    version need not be published, and may be changed and started again under the same number.

    Examples:

      equeengage shadow start journeys/welcome.py
      equeengage shadow start journeys:cart_abandonment --data data
      equeengage shadow start cart_abandonment@2
    """
    from agents.cli.journey import act
    from agents.shadows import find_frozen
    from engine.runtime.shadowing import begin

    act(lambda published, now: begin(published, tenant, find_frozen(version, published, tenant), now), data, kafka)


def stop(name: Name, tenant: Tenant = "default", data: Data = None, kafka: OnKafka = False) -> None:
    """End a journey's shadow. Its report stays as long as the journal is kept.

    Examples:

      equeengage shadow stop welcome
    """
    from agents.cli.journey import act
    from engine.runtime.shadowing import end

    act(lambda published, now: end(published, tenant, name, now), data, kafka)


def list_shadows(tenant: Tenant = "default", data: Data = None, kafka: OnKafka = False) -> None:
    """List the shadows that run: of which journey, which version, since when.

    Examples:

      equeengage shadow list
    """
    from agents.cli.looking import looking
    from engine.runtime.publish import shown
    from engine.runtime.shadowing import running

    settings = load_settings(data=data)
    with looking(settings, is_on_kafka(settings, kafka)) as sight:
        found = list(running(sight.definitions, tenant))
    for name, standing in found:
        typer.echo(f"{name} v{standing.version} runs as a shadow since {shown(standing.since_at)}")
    if not found:
        typer.echo(f"no shadow runs for the tenant {tenant!r}")


def report(
    name: Name,
    tenant: Tenant = "default",
    as_json: Annotated[bool, typer.Option("--json", help="For other programs, with the examples' journals.")] = False,
    data: Data = None,
    kafka: OnKafka = False,
) -> None:
    """Compare what the active version did with what its shadow would have done, since that began.

    Entries, messages, ends and goals of both, and who is treated differently, with an example of each kind. Reads the
    journal, also beside a running server; on Kafka from when the shadow began.

    Examples:

      equeengage shadow report welcome
      equeengage shadow report welcome --json | jq .differing_users
    """
    from rich.console import Console

    from agents import shadows

    settings = load_settings(data=data)
    read = _from_kafka if is_on_kafka(settings, kafka) else _from_folder
    found, stories, find_journey = read(settings, tenant, name)
    if as_json:
        typer.echo(shadows.as_json(found, stories))
    else:
        shadows.show(Console(), found, stories, find_journey)


def _from_folder(settings: "Settings", tenant: str, name: str) -> "tuple[Report, Stories, FindJourney]":
    from agents.cli.failure import Failed
    from agents.cli.progress import showing_progress
    from agents.shadows import read_report
    from engine.runtime.embedded.readonly import ReadOnlyLog

    if not settings.data.is_dir():
        raise Failed(f"there is no data folder {settings.data}; name it with --data DIR")
    with ReadOnlyLog.open(settings.data) as log, showing_progress() as progress:
        known = _known(log.definitions, tenant, name)
        partitions = range(log.partitions("journal"))
        size = sum(end - begin for begin, end in (log.offsets("journal", number) for number in partitions))

        def journal() -> "Iterator[Iterable[Record]]":
            progress.begin("reading the journal", size)
            for number in partitions:
                yield _counted(log.read_partition("journal", number), progress.advance)

        return *read_report(journal, tenant, name), known.find_journey


def _from_kafka(settings: "Settings", tenant: str, name: str) -> "tuple[Report, Stories, FindJourney]":
    import asyncio

    from agents.cli.progress import showing_progress
    from agents.cli.reach import reach
    from agents.shadows import SLACK_MS, read_report
    from engine.runtime.kafka.log import KafkaLog

    async def read_definitions() -> "_Known":
        async with reach(settings, on_kafka=True) as reached:
            return _known(reached.definitions, tenant, name)

    known = asyncio.run(read_definitions())
    log = KafkaLog(settings.kafka)
    with showing_progress() as progress:

        def journal() -> "Iterator[Iterable[Record]]":
            progress.begin("reading the journal", settings.kafka.partitions)
            for number in range(settings.kafka.partitions):
                yield log.read_partition("journal", number, known.standing.since_at - SLACK_MS)
                progress.advance(1)

        return *read_report(journal, tenant, name), known.find_journey


def _counted(records: "Iterable[Record]", advance: "Callable[[int], None]") -> "Iterator[Record]":
    number = 0
    for number, record in enumerate(records, 1):
        if number % REPORT_EVERY == 0:
            advance(REPORT_EVERY)
        yield record
    advance(number % REPORT_EVERY)


@dataclass(frozen=True)
class _Known:
    """What the definitions say of a shadow: how it stands, and how versions are looked up, its own too."""

    standing: "Standing"
    find_journey: "FindJourney"


def _known(definitions: "Definitions", tenant: str, name: str) -> _Known:
    """Raises Failed if no shadow ever ran."""
    from agents.cli.failure import Failed
    from agents.cli.trace import finder
    from engine.runtime.shadowing import body_of, running, standing_of

    standing = standing_of(definitions, tenant, name)
    if standing is None:
        names = ", ".join(each for each, _ in running(definitions, tenant))
        hint = f"those that run: {names}" if names else "begin one with: equeengage shadow start JOURNEY"
        raise Failed(f"the tenant {tenant!r} has no shadow of {name!r}; {hint}")
    shadow = body_of(definitions, tenant, name, standing)
    published = finder(tenant, {definition.key: definition for definition in definitions.all()})

    def find(journey: str, version: int) -> "Journey | None":
        if shadow is not None and (journey, version) == (shadow.name, shadow.version):
            return shadow
        return published(journey, version)

    return _Known(standing, find)
