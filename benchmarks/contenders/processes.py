"""What a process has used, together with the processes that it has started and those that these have."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

TICKS_PER_SECOND = 100


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of all of them so far; those that have ended and were waited for count, too.

    Raises OSError if the process itself is gone.
    """
    ticks = _ticks(pid)
    for child in _started_by(pid):
        with contextlib.suppress(OSError):  # it has ended just now: at the next look its parent is charged for it
            ticks += _ticks(child)
    return ticks / TICKS_PER_SECOND


def _started_by(pid: int) -> Iterator[int]:
    """Yield the children that live, and theirs."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                yield child
                yield from _started_by(child)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15])  # user, system, and both of children waited for
