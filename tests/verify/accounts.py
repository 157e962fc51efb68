"""What can be counted without the engine: where every run is that began, and whether every link was answered.

A run that changes its actor in a merge may be lost or doubled on the way; who folds the same log with the same engine would
not see that. So here only records are counted: a run begins once, and then it has ended once, or is live in one state.
"""

from collections import Counter

import msgspec

from engine.runtime import states
from schemas.journal import read_entries
from tests.verify.evidence import Evidence
from tests.verify.rows import Row


def accounts(evidence: Evidence) -> list[Row]:
    """Return a row of the runs, and one of the links if there were any."""
    runs, links = runs_row(evidence), links_row(evidence)
    return [runs, links] if links.expected or links.found else [runs]


def runs_row(evidence: Evidence) -> Row:
    """Every run that entered has left once, or is in one actor's state."""
    row = Row("runs")
    entered: Counter[str] = Counter()
    accounted: Counter[str] = Counter()
    for records in evidence.journal.values():
        for record in records:
            for entry in read_entries(record.value):
                if entry.shadow:
                    continue
                if entry.kind == "entered":
                    entered[entry.run] += 1
                elif entry.kind == "exited":
                    accounted[entry.run] += 1
    for records in evidence.changelog.values():
        for key, value in {record.key: record.value for record in records}.items():
            if key is not None and value is not None and key.startswith(states.USER) and b"/" not in key.split(b":")[0]:
                accounted.update(run.id for run in states.decode_user(value).runs)
    _count(row, entered, accounted)
    return row


def links_row(evidence: Evidence) -> Row:
    """Every actor that was asked to stand for a user has handed over, or refused, once."""
    row = Row("links")
    asked: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    for records in evidence.events.values():
        for record in records:
            value = record.value or b""
            if record.key is None or not value.startswith((b'{"type":"linked"', b'{"type":"absorbed"')):
                continue
            tenant, _, id = record.key.decode().partition(":")
            input = msgspec.json.decode(value)
            if input["type"] == "linked":
                asked[f"{tenant}: {id} to {input['user']}"] += 1
            elif not input.get("left"):
                answered[f"{tenant}: {input['alias']} to {id}"] += 1
    _count(row, asked, answered)
    return row


def _count(row: Row, wanted: Counter[str], found: Counter[str]) -> None:
    row.expected, row.found = wanted.total(), found.total()
    for each, times in (wanted - found).items():
        row.note("lost", each, times)
    for each, times in (found - wanted).items():
        row.note("duplicated" if each in wanted else "phantom", each, times)
