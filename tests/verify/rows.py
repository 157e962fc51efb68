"""How the verifier says what it has found: a table, with the first few of each fault by name."""

from dataclasses import dataclass, field
from typing import Any, Literal

Fault = Literal["lost", "duplicated", "phantom", "early", "wrong"]
FAULTS: tuple[Fault, ...] = ("lost", "duplicated", "phantom", "early", "wrong")
SHOWN = 5  # of a row's faults, by name


@dataclass
class Row:
    """One kind of thing: how much of it there must be and is, and what is not as it must be."""

    name: str
    expected: int = 0
    found: int = 0
    counts: dict[Fault, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    notes: list[str] = field(default_factory=list)

    def note(self, fault: Fault, what: str, times: int = 1) -> None:
        self.counts[fault] += times
        if len(self.notes) < SHOWN:
            self.notes.append(f"{fault}: {what[:300]}")

    @property
    def faults(self) -> int:
        return sum(self.counts.values())


@dataclass
class Verdict:
    """All rows. `waiting`: runs that have not ended, so that a later look would find more."""

    rows: list[Row]
    waiting: int = 0

    @property
    def is_clean(self) -> bool:
        return not any(row.faults for row in self.rows)

    def total(self, fault: Fault) -> int:
        return sum(row.counts[fault] for row in self.rows)

    def faults(self) -> dict[str, int]:
        """How many there are of each fault."""
        return {fault: self.total(fault) for fault in FAULTS}

    def commands(self) -> int:
        """How many commands must be there."""
        return sum(row.expected for row in self.rows if row.name.startswith("commands "))

    def table(self) -> str:
        """The rows as text, and beneath them what was found amiss."""
        heads = ["", "expected", "found", "lost", "duplicated", "phantom", "early", "wrong state"]
        lines = [[row.name, str(row.expected), str(row.found), *map(str, row.counts.values())] for row in self.rows]
        width = max(len(line[0]) for line in [heads, *lines])
        shown = ["  ".join([line[0].ljust(width), *(cell.rjust(11) for cell in line[1:])]) for line in [heads, *lines]]
        notes = [f"  {row.name}: {note}" for row in self.rows for note in row.notes]
        result = "clean" if self.is_clean else "NOT CLEAN"
        waits = f"; {self.waiting} runs have not ended" if self.waiting else ""
        return "\n".join([*shown, *notes, result + waits])

    def as_json(self) -> dict[str, Any]:
        rows = [{"name": row.name, "expected": row.expected, "found": row.found, **row.counts} for row in self.rows]
        return {"clean": self.is_clean, "waiting": self.waiting, "rows": rows}
