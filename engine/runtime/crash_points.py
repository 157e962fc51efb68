"""Where a worker under test dies on purpose: `EQUEENGAGE_CRASHPOINT=name:n` ends it when it comes there the n-th time.

Only where `EQUEENGAGE_TEST_BUILD=1` is set as well. It ends as after SIGKILL: nothing is flushed, nobody is told. Without
both, coming to a point costs one comparison a batch.
"""

import os
import threading
from collections.abc import Mapping
from random import Random

POINTS = (
    "assigned",  # partitions were given to us, and nothing of them is open
    "standing by",  # part of a changelog is in the store of one who doesn't own the partition
    "taken over",  # which was given the partition, and nothing else has happened yet
    "recovering",  # part of a changelog is in the store
    "folded",  # a batch is folded, nothing of it is written
    "outputs sent",  # the broker has the outputs, in an open transaction
    "changelog sent",  # and the states
    "committed",  # the transaction is committed, the store knows nothing of it
    "writing",  # in the write to the store
    "written",  # the store has it; nothing in memory does
)
EXIT_CODE = 86
IN_THE_WRITE_SECONDS = 0.0002  # what a small write takes


class CrashPoint:
    """The one point at which this process ends, and how many times it may still pass it."""

    def __init__(self, name: str, times: int) -> None:
        self.name = name
        self._left = times

    def come(self) -> None:
        self._left -= 1
        if self._left == 0:
            if self.name == "writing":  # the write lets other threads run: one of them ends it all
                threading.Thread(target=_end_within, args=(IN_THE_WRITE_SECONDS,)).start()
            else:
                os._exit(EXIT_CODE)


def chosen(environment: Mapping[str, str]) -> CrashPoint | None:
    """Return the point that the environment names. Raises ValueError for one that doesn't exist."""
    given = environment.get("EQUEENGAGE_CRASHPOINT")
    if not given or environment.get("EQUEENGAGE_TEST_BUILD") != "1":
        return None
    name, _, times = given.rpartition(":")
    if name not in POINTS or not times.isdigit() or int(times) < 1:
        raise ValueError(f"EQUEENGAGE_CRASHPOINT={given} is not name:n, with a name of {', '.join(POINTS)}")
    return CrashPoint(name, int(times))


def reach(name: str) -> None:
    """Tell that the process has come to a point. It may not return."""
    if ARMED is not None and ARMED.name == name:
        ARMED.come()


def _end_within(seconds: float) -> None:
    threading.Event().wait(Random().random() * seconds)  # noqa: S311 - no secret
    os._exit(EXIT_CODE)


ARMED = chosen(os.environ)
