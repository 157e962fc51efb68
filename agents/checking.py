"""A folder of journeys, checked: what was found, where in which file, and how it is told."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agents.event_schemas import read_declarations
from agents.folder import Folder, read_folder
from engine.bound import bound
from engine.definitions import freeze
from engine.durations import days
from engine.errors import JourneyError
from engine.journey import Journey
from engine.lint import Finding, Surroundings, lint

CHANNELS = frozenset({"email", "webhook", "call"})  # those with a worker: `agents/channels/roster.py` makes them
WINDOWS = (7, 30)  # days for which the most messages are told


@dataclass(frozen=True, slots=True)
class Located:
    """A finding about a journey, and where it is written."""

    journey: Journey
    finding: Finding
    file: Path
    line: int


@dataclass(frozen=True)
class Checked:
    """All that was found in a folder."""

    folder: Folder
    findings: Sequence[Located]
    unused: Sequence[str]  # templates that no journey sends

    @property
    def errors(self) -> int:
        return sum(each.finding.severity == "error" for each in self.findings)

    @property
    def warnings(self) -> int:
        return sum(each.finding.severity == "warning" for each in self.findings)


@dataclass(frozen=True)
class Unreadable:
    """A folder that could not be read to its end; `text` begins with the file and, if it is known, the line."""

    text: str
    errors: int = 1
    warnings: int = 0


def check_folder(path: Path) -> Checked:
    """Return what is found in a folder. Raises JourneyError if it can't be read, or there is no journey in it."""
    folder = read_folder(path)
    if not folder.journeys:
        raise JourneyError(f"there is no journey in {path}; a journey is a module with a Journey at its top level")
    surroundings = Surroundings(
        folder.templates,
        read_declarations(path),
        frozenset(journey.name for journey in folder.journeys),
        CHANNELS,
        folder.policy,
    )
    found: list[Located] = []
    for journey in folder.journeys:
        findings = lint(journey, surroundings)
        if all(finding.severity != "error" for finding in findings):
            findings += _unpublishable(journey, folder)
        found += [Located(journey, finding, *_place(folder, journey, finding)) for finding in findings]
    sent = {name for journey in folder.journeys for name in journey.template_names()}
    return Checked(folder, found, sorted(set(folder.templates) - sent))


def show(checked: Checked) -> None:
    """Print what was found, for people."""
    console = Console()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("journey", "begins with", "steps", "templates", "messages at most"):
        table.add_column(heading, no_wrap=heading == "journey")
    for journey in checked.folder.journeys:
        table.add_row(
            journey.label,
            escape(str(journey.entry)),
            str(len(journey.steps)),
            ", ".join(journey.template_names()) or "none",
            _most(journey),
        )
    console.print(table)
    for each in checked.findings:
        color = "red" if each.finding.severity == "error" else "yellow"
        where = f"{each.file}:{each.line}" if each.line else str(each.file)
        console.print(f"\n[bold {color}]{each.finding.severity}[/] {escape(each.journey.label)}", highlight=False)
        console.print(f"  {escape(str(each.finding))}", highlight=False, soft_wrap=True)
        console.print(f"  [dim]{escape(where)}[/]", highlight=False, soft_wrap=True)
    if checked.findings:
        console.print()
    if checked.unused:
        console.print(f"[yellow]no journey sends[/] {', '.join(checked.unused)}", highlight=False)
    journeys = _count(len(checked.folder.journeys), "journey")
    if checked.findings:
        counted = f"{_count(checked.errors, 'error')}, {_count(checked.warnings, 'warning')}"
        console.print(f"[bold]{counted}[/] in {journeys}", highlight=False)
    else:
        verb = "is" if len(checked.folder.journeys) == 1 else "are"
        console.print(f"[green]{journeys} {verb} in order[/]", highlight=False)


def as_json(checked: Checked | Unreadable) -> str:
    """Return what was found as one JSON object: `journeys`, `findings`, and how many `errors` and `warnings` there are."""
    told: dict[str, Any] = {"journeys": [], "findings": [], "errors": checked.errors, "warnings": checked.warnings}
    if isinstance(checked, Unreadable):
        file, line, text = _split(checked.text)
        told["findings"] = [
            {"severity": "error", "rule": "unreadable", "journey": None, "place": None, "problem": text, "remedy": "",
             "file": file or None, "line": line or None},
        ]  # fmt: skip
    else:
        told["journeys"] = [_journey_told(checked.folder, journey) for journey in checked.folder.journeys]
        told["findings"] = [_told(each) for each in checked.findings]
        told["unused_templates"] = checked.unused
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()


def as_github(checked: Checked | Unreadable) -> Iterator[str]:
    """Yield the findings as workflow commands, which GitHub shows at the lines they are about."""
    if isinstance(checked, Unreadable):
        file, line, text = _split(checked.text)
        yield _command("error", file, line, "journeys", text)
        return
    for each in checked.findings:
        title = f"{each.journey.label}: {each.finding.rule}"
        yield _command(each.finding.severity, str(each.file), each.line, title, str(each.finding))


def _unpublishable(journey: Journey, folder: Folder) -> list[Finding]:
    try:
        freeze("check", journey, folder.templates)
    except JourneyError as error:
        return [Finding("error", "unpublishable", "journey", str(error), "it can't be published like this")]
    return []


def _place(folder: Folder, journey: Journey, finding: Finding) -> tuple[Path, int]:
    """Return the file that a finding is about, and the line (0: not known): a template's, or where its step is written."""
    template = folder.path / "templates" / finding.place
    if "." in finding.place and template.is_file():
        return template, finding.line
    file = folder.files.get(journey.name, folder.path)
    return file, _line_of(file, finding.place) if file.is_file() else 0


def _line_of(file: Path, place: str) -> int:
    """Return the first line on which a name stands as a key of a table (`"remind":`) or as an argument (`exit_on=`)."""
    name = re.escape(place)
    pattern = re.compile(rf"""["']{name}["']\s*:|\b{name}\s*=[^=]""")
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if pattern.search(line):
            return number
    return 0


def _most(journey: Journey) -> str:
    told = []
    each = ""
    for window in WINDOWS:
        found = bound(journey, days(window))
        most = found.most if found.most is not None else found.each
        told.append("any number" if most is None else str(most))
        each = f" for each {journey.key}" if found.most is None and found.each is not None else each
    if told[0] == told[-1]:
        return f"{told[0]} in {WINDOWS[-1]} days{each}"
    return ", ".join(f"{most} in {window} days" for most, window in zip(told, WINDOWS, strict=True)) + each


def _journey_told(folder: Folder, journey: Journey) -> dict[str, Any]:
    bounds = {}
    for window in WINDOWS:
        found = bound(journey, days(window))
        bounds[f"{window} days"] = {"most": found.most, "each": found.each, "why": found.why}
    file = folder.files.get(journey.name)
    return {"name": journey.name, "version": journey.version, "file": str(file), "most_messages": bounds}


def _told(each: Located) -> dict[str, Any]:
    finding = each.finding
    return {
        "severity": finding.severity, "rule": finding.rule, "journey": each.journey.name, "version": each.journey.version,
        "place": finding.place, "problem": finding.problem, "remedy": finding.remedy,
        "file": str(each.file), "line": each.line or None,
    }  # fmt: skip


def _split(text: str) -> tuple[str, int, str]:
    """Return file, line (0: not known) and the rest of a JourneyError's text."""
    found = re.match(r"(?P<file>[^:\n]+\.(?:py|json|html|txt))(?::(?P<line>\d+))?: (?P<rest>.*)", text, re.DOTALL)
    return (found["file"], int(found["line"] or 0), found["rest"]) if found else ("", 0, text)


def _command(severity: str, file: str, line: int, title: str, text: str) -> str:
    fields = [f"file={_escaped(file)}"] if file else []
    fields += [f"line={line}"] if line else []
    fields.append(f"title={_escaped(title)}")
    data = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{severity} {','.join(fields)}::{data}"


def _escaped(text: str) -> str:
    for character, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"), (":", "%3A"), (",", "%2C")):
        text = text.replace(character, code)
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
