"""Recordings for tests: what a reader gives, in the shortest form, and the purchases of CDNOW."""

from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from agents.backtest.files import Files, find_files
from agents.backtest.recording import Recorded, Rejects

# 69,659 purchases of 23,570 customers of a record shop, January 1997 to June 1998. The package is never imported: it would
# need pandas and more.
CDNOW = Path(str(distribution("lifetimes").locate_file("lifetimes/datasets/CDNOW_master.txt")))


def read(place: Path, tenant: str = "default", **how: Any) -> tuple[list[Recorded], Rejects]:
    """Return what a file or a folder of files holds, and what could not be read."""
    rejects = Rejects()
    files = Files(find_files(place), tenant, **how)
    reported: list[int] = []
    recorded = list(files.read(rejects, reported.append))
    assert sum(reported) == files.size, "the progress ends where the files do"
    return recorded, rejects


def written(recorded: list[Recorded]) -> list[tuple[str, int, str]]:
    """Return (user, time, name or kind) of each."""
    return [(each.user, each.at, getattr(each.input, "name", type(each.input).__name__)) for each in recorded]
