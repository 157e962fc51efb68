"""What a backtest of many events costs: `equeengage backtest` as a process of its own, from NDJSON to the report."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.figures import Figure

EXAMPLE = Path(__file__).parent.parent / "journeys" / "cart_abandonment.py"
BEGIN = 1_767_225_600_000
DAYS = 60
EVENTS_PER_USER = 10
NAMES = ("page_viewed",) * 12 + ("product_viewed",) * 4 + ("cart_updated",) * 3 + ("order_placed",)


def measure(events: int) -> list[Figure]:
    """Return the pace, the CPU per event and the memory of a backtest, of which it is checked that it was played."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        carts = _write(folder / "events.ndjson", events)
        (folder / "later.py").write_text(
            EXAMPLE.read_text().replace("version=3", "version=4").replace("hours(1)", "hours(4)")
        )
        options = ["--opens", "0.3", "--clicks", "0.05", "--json", "report.json", "--html", "report.html"]
        equeengage = str(Path(sys.executable).with_name("equeengage"))
        command = [equeengage, "backtest", str(EXAMPLE), "later.py", "--events", "events.ndjson", "--workers", "1"]
        began = time.perf_counter()
        with subprocess.Popen([*command, *options], cwd=folder, stdout=subprocess.DEVNULL) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        took = time.perf_counter() - began
        assert process.returncode == 0
        _verify(json.loads((folder / "report.json").read_text()), events, carts)
    cpu_us = (used.ru_utime + used.ru_stime) * 1e6 / events
    return [
        Figure(f"backtest of {events:,} events, pace", "events/s", [events / took], lower=False),
        Figure("... CPU for both versions, reading and report included", "us/event", [cpu_us]),
        Figure(f"... most memory, {events // EVENTS_PER_USER:,} users", "MB", [used.ru_maxrss / 1024]),
    ]


def _write(file: Path, events: int) -> int:
    """Write events of a shop in order of time; return how many carts must have begun a run: each has an id of its own."""
    dice = random.Random(1)
    users = events // EVENTS_PER_USER
    carts = 0
    with file.open("w") as lines:
        for number in range(events):
            name = dice.choice(NAMES)
            items = dice.randrange(4)
            event = {
                "user": f"user-{dice.randrange(users):07d}",
                "type": "event",
                "id": f"message-{number:024x}",
                "name": name,
                "occurred_at": BEGIN + number * DAYS * 86_400_000 // events,
                "properties": {
                    "cart_id": f"c{number}",
                    "items": items,
                    "total": 12.5,
                    "url": f"https://x.example/{number}",
                },
                "profile": {"email": "ann@example.com"},
            }
            carts += name == "cart_updated" and items > 0
            lines.write(json.dumps(event) + "\n")
    return carts


def _verify(report: dict[str, Any], events: int, carts: int) -> None:
    assert report["inputs"] == events
    for version in ("old", "new"):
        assert report[version]["entered"] == carts, f"{report[version]['entered']} runs, {carts} carts"
    assert report["old"]["templates"]["email:cart_reminder"] > 0.99 * carts
