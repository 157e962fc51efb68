"""Where recorded inputs come from: a file, a folder of files, or the data folder of an embedded host."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agents.backtest.columns import Columns
from agents.backtest.files import Files, Format, find_files
from agents.backtest.host_log import HostLog, is_data_folder
from engine.definitions import thaw, thaw_policy
from engine.journey import Journey
from engine.policy import Policy
from engine.runtime.embedded.readonly import ReadOnlyLog
from engine.runtime.standings import Standings


@dataclass(frozen=True, slots=True)
class Source:
    """An opened recording, and the published definitions beside it, if it is a data folder."""

    recording: Files | HostLog
    log: ReadOnlyLog | None
    tenant: str

    def published(self, name: str, version: int) -> Journey | None:
        """Return a version that was published, or None. Raises JourneyError if this version of ours can't read it."""
        definition = self.log and self.log.definitions.find(f"{self.tenant}/journey/{name}@{version}")
        return thaw(definition) if definition else None

    def current_policy(self) -> Policy | None:
        """Return the policy that is current, if one was published."""
        if self.log is None:
            return None
        standing = Standings(self.log.definitions).of(self.tenant, "policy", "policy")
        definition = standing and self.log.definitions.find(f"{self.tenant}/policy/policy@{standing.version}")
        return thaw_policy(definition) if definition else None


@contextmanager
def open_source(
    place: Path, tenant: str, columns: Columns, format: Format | None = None, separator: str | None = None
) -> Iterator[Source]:
    """Open a recording. Raises InvalidInput where there is none, and PartitionStopped for a data folder of another format."""
    if is_data_folder(place):
        with ReadOnlyLog.open(place) as log:
            yield Source(HostLog(log, tenant), log, tenant)
    else:
        yield Source(Files(find_files(place), tenant, columns, format, separator), None, tenant)
