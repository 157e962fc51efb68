"""The embedded host's own log as a recording: what was really folded, at the times of its records.

Read while the server runs, as it was when opened. The log forgets what is older than its retention, and so does this.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from agents.backtest.recording import Recorded, Rejects
from engine.errors import InvalidInput
from engine.runtime.embedded.readonly import ReadOnlyLog
from engine.runtime.intake import input_of
from schemas.inputs import UserInput

REPORT_EVERY = 1000  # records


def is_data_folder(place: Path) -> bool:
    """Is this the data folder of an embedded host?"""
    return (place / "store").is_dir()


@dataclass(frozen=True, slots=True)
class HostLog:
    """One tenant's part of the log in a data folder."""

    log: ReadOnlyLog
    tenant: str

    @property
    def size(self) -> int:
        """What `read` reports in all: records."""
        return sum(end - start for start, end in map(self.log.offsets, ["events"] * self._count, range(self._count)))

    @property
    def _count(self) -> int:
        return self.log.partitions("events")

    def read(self, rejects: Rejects, progress: Callable[[int], None]) -> Iterator[Recorded]:
        """Yield the inputs of the tenant's users, one partition after the other, and report how many records were read."""
        wanted = f"{self.tenant}:".encode()
        for partition in range(self._count):
            number = 0
            for number, record in enumerate(self.log.read_partition("events", partition), 1):
                if number % REPORT_EVERY == 0:
                    progress(REPORT_EVERY)
                if record.key is None or not record.key.startswith(wanted):
                    continue
                try:
                    input = input_of(record)
                    user = record.key[len(wanted) :].decode()
                except (InvalidInput, UnicodeDecodeError) as error:
                    rejects.add(f"partition {partition}, offset {record.offset}", str(error))
                    continue
                if isinstance(input, USER_INPUTS):
                    yield Recorded(user, record.timestamp, input)
            progress(number % REPORT_EVERY)


USER_INPUTS = get_args(UserInput)
