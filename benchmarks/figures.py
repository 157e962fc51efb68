"""How a measurement is repeated, summed up, and said with the machine it was made on."""

import json
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PARTS = ("aiohttp", "aiokafka", "faust-streaming", "msgspec", "rocksdict", "uvloop")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: all its repeats, and the aim if there is one. `lower` says which way is better."""

    name: str
    unit: str
    values: Sequence[float]
    aim: float | None = None
    lower: bool = True

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def reached(self) -> bool | None:
        if self.aim is None:
            return None
        return self.median <= self.aim if self.lower else self.median >= self.aim

    def row(self) -> str:
        """The figure as a row of a Markdown table: median, range, aim, whether it was reached."""
        aim = "" if self.aim is None else f"{'<=' if self.lower else '>='} {_short(self.aim)}"
        verdict = {True: "yes", False: "**no**", None: ""}[self.reached]
        spread = f"{_short(min(self.values))} - {_short(max(self.values))}"
        return f"| {self.name} | {_short(self.median)} {self.unit} | {spread} | {aim} | {verdict} |"


HEAD = "| what | median | range | aim | reached |\n|---|---|---|---|---|"


def report(title: str, figures: Sequence[Figure], results: Path) -> None:
    """Print the table and keep the figures under `title` in the results file, with the date and the machine."""
    print(f"\n## {title}\n\n{HEAD}")
    for figure in figures:
        print(figure.row())
    print(flush=True)
    kept = json.loads(results.read_text()) if results.exists() else {}
    kept[title] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {part: version(part) for part in PARTS},
        "figures": [
            {"name": each.name, "unit": each.unit, "median": each.median, "values": list(each.values), "aim": each.aim}
            for each in figures
        ],
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(kept, indent=1) + "\n")


def machine() -> str:
    cores = subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout.strip()
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{cores} cores, {model}, Python {platform.python_version()}"


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def cpu_seconds(pid: int) -> float:
    """Return the user and system time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def resident_bytes(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
