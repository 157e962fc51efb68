"""Shadows on the command line: which version is meant, and what the journal says of one that runs."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from agents.backtest.figures import Figure, by_reason
from agents.backtest.tables import show_example, table_of
from agents.backtest.versions import PUBLISHED
from agents.comparing import find_versions
from agents.trace import FindJourney
from engine.definitions import freeze
from engine.divergence import Divergence, Report
from engine.errors import JourneyError
from engine.runtime.host import Definitions
from engine.runtime.publish import shown
from schemas.definitions import Definition
from schemas.journal import read_entries
from schemas.outputs import JournalEntry
from schemas.records import Record

SLACK_MS = 600_000  # the clocks of brokers may lie so far behind ours

Stories = dict[str, tuple[list[JournalEntry], list[JournalEntry]]]  # user -> what happened, what would have happened
ReadJournal = Callable[[], Iterable[Iterable[Record]]]  # the partitions' records, once more each time


def find_frozen(text: str, published: Definitions, tenant: str) -> Definition:
    """Return the version that is meant, frozen: in a file, a folder (`journeys:welcome`), or published (`welcome@3`).

    Raises JourneyError that says what is there instead.
    """
    if not Path(text).exists() and PUBLISHED.match(text):
        definition = published.find(f"{tenant}/journey/{text}")
        if definition is None:
            raise JourneyError(f"{text} was not published for the tenant {tenant!r}; see: equeengage journey list")
        return definition
    versions = find_versions(text, None, tenant)
    if len(versions) > 1:
        names = [each.journey.name for each in versions]
        raise JourneyError(f"{text} has several journeys: {', '.join(names)}; say which: {text}:{names[0]}")
    return freeze(tenant, versions[0].journey, versions[0].texts)[-1]


def read_report(read: ReadJournal, tenant: str, journey: str) -> tuple[Report, Stories]:
    """Return what the journal says of a journey and its shadow, and the stories of the examples."""
    counted = _read(read, Divergence(tenant, journey)).report()
    examples = {difference.example for difference in counted.differences}
    told = _read(read, Divergence(tenant, journey, examples)).stories() if examples else {}
    return counted, told


def _read(read: ReadJournal, divergence: Divergence) -> Divergence:
    wanted = f'"{divergence.journey}"'.encode()
    for records in read():
        divergence.begin_partition()
        for record in records:
            if (
                record.value is not None and wanted in record.value
            ):  # most are of other journeys, and needn't be decoded
                for entry in read_entries(record.value):
                    divergence.give(entry)
    return divergence


def figures_of(report: Report) -> Iterator[Figure]:
    """Yield the figures in the order in which they are shown."""
    active, shadow = report.active, report.shadow
    yield Figure("Entries", "runs begun", active.entered, shadow.entered)
    yield Figure("Entries", "users who entered", active.users_entered, shadow.users_entered)
    yield from by_reason("Entries", "not entered: ", active.not_entered, shadow.not_entered)
    yield Figure("Messages", "messages", active.sent, shadow.sent)
    yield from by_reason("Messages", "by ", active.messages, shadow.messages)
    yield from by_reason("Messages", "", active.templates, shadow.templates)
    yield Figure("Messages", "users who get any", active.users_messaged, shadow.users_messaged)
    yield from by_reason("Kept back", "", active.blocked, shadow.blocked)
    yield from by_reason("Kept back", "held: ", active.held, shadow.held)
    yield from by_reason("Ends", "", active.exits, shadow.exits)
    yield from by_reason("Ends", "error: ", active.suspended, shadow.suspended)
    yield Figure("Goal", "goals reached", active.goals, shadow.goals)
    if active.goal_value or shadow.goal_value:
        yield Figure("Goal", "their value", active.goal_value, shadow.goal_value, "amount")
    if active.calls or shadow.calls:
        yield Figure("Messages", "calls of other systems", active.calls, shadow.calls)


def notes_of(report: Report) -> Iterator[str]:
    """Yield what whoever reads the figures should know."""
    if report.began_at is None:
        yield "The shadow began before what the journal still holds: both sides are counted from there on."
    yield (
        "Nobody got a message of the shadow. What it would have sent is heard of only where the active version sent the"
        " same: the other messages count as never opened."
    )
    if report.shadow.suspended:
        yield 'Errors of the shadow harm nobody; the journal has them, marked with: "shadow": true.'


def show(console: Console, report: Report, stories: Stories, find_journey: FindJourney) -> None:
    """Print a report."""
    versions = ", ".join(f"v{version}" for version in report.active_versions) or "nothing active"
    headings = (f"active {versions}", f"shadow v{report.shadow_version}")
    console.print(Text(f"{report.journey}: {headings[0]} beside its {headings[1]}", "bold"))
    since = "" if report.began_at is None else f" since {shown(report.began_at)}"
    until = f", ended; last heard of {shown(report.last_at)}" if report.has_ended and report.last_at else ""
    console.print(Text(f"{report.users:,} users{since}{until}", "dim"))
    console.print()
    console.print(table_of(figures_of(report), headings))
    console.print()
    if report.differences:
        share = report.differing_users / report.users
        console.print(Text(f"{report.differing_users:,} users ({share:.1%}) are treated differently", "bold"))
    else:
        console.print(Text(f"Nobody of {report.users:,} users is treated differently.", "bold"))
    for difference in report.differences:
        show_example(console, difference, stories[difference.example], headings, find_journey)
    console.print()
    for note in notes_of(report):
        console.print(Text(f"· {note}", "dim"))


def as_json(report: Report, stories: Stories) -> bytes:
    """Return the report for other programs, with the entries of the examples."""
    told = msgspec.to_builtins(report)
    for difference in told["differences"]:
        active, shadow = stories[difference["example"]]
        difference["story"] = {"active": msgspec.to_builtins(active), "shadow": msgspec.to_builtins(shadow)}
    return msgspec.json.format(msgspec.json.encode(told), indent=2)
