"""Where a user's history comes from: the log of the embedded host, or a recorded file; and from when on it is known.

The log holds everything that was folded, with the activations of definitions and what operators did between. It forgets what
is older than its retention; then what was active before is taken from the partition's state, and the user's own state as of
then is not known. A recorded file holds what came from outside; definitions are those of a folder, as if they had always been
active.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from agents.backtest.play import Recording
from agents.backtest.recording import Rejects
from agents.folder import read_folder
from engine.catalog import Catalog
from engine.errors import InvalidInput
from engine.explain import Happening
from engine.journey import Journey
from engine.policy import Policy
from engine.runtime import states
from engine.runtime.embedded.readonly import ReadOnlyLog
from engine.runtime.host import Definitions, PartitionStopped, Store
from engine.runtime.intake import input_of
from engine.runtime.steering import MissingDefinition, read
from schemas.inputs import Activated, Asked, Controlled, Swept
from schemas.state import User

REPORT_EVERY = 1000  # records


@dataclass(slots=True)
class History:
    """One user's happenings in order, and what is known beside them. To be iterated once.

    `known_from_at`: the time (ms) of the first record of all, whoever's; None where there is none. `is_whole`: nothing was
    forgotten before it. `kept`: the user's state as the host holds it after the last happening, without shadows.
    """

    happenings: Iterable[Happening]
    catalog: Catalog
    known_from_at: int | None
    is_whole: bool
    is_log: bool
    kept: User | None = None


def from_log(log: ReadOnlyLog, tenant: str, user: str, progress: Callable[[int], None]) -> History:
    """Return what the log holds about a user, up to what is folded. Raises PartitionStopped for what can't be read."""
    key = f"{tenant}:{user}".encode()
    partition = log.partition_of(key)
    first, _ = log.offsets("events", partition)
    position, store = log.folded("events", partition)
    began_at = next((record.timestamp for record in log.read_partition("events", partition)), None)
    raw = store.get(states.USER + key)
    return History(
        _happenings(log, partition, position, tenant, key, progress),
        Catalog() if first == 0 else _active_before(store, log.definitions, tenant, began_at or 0),
        began_at,
        first == 0,
        True,
        None if raw is None else replace(states.decode_user(raw), shadows={}),
    )


def from_recording(
    recording: Recording, folder: Path, tenant: str, user: str, rejects: Rejects, progress: Callable[[int], None]
) -> History:
    """Return what a recording holds about a user. Raises InvalidInput if it can't be read, and JourneyError for the folder."""
    found = read_folder(folder)
    catalog = Catalog()
    for journey in found.journeys:
        catalog = catalog.activate(tenant, journey)
    if found.policy is not None:
        catalog = catalog.activate_policy(tenant, found.policy)
    first = next(iter(recording.read(Rejects(), lambda by: None)), None)
    happenings = ((each.at, each.input) for each in recording.read(rejects, progress) if each.user == user)
    return History(happenings, catalog, None if first is None else first.at, True, False)


def _happenings(
    log: ReadOnlyLog, partition: int, position: int, tenant: str, key: bytes, progress: Callable[[int], None]
) -> Iterator[Happening]:
    """Yield what concerned the user, at the times of the partition's clock."""
    now = 0
    for number, record in enumerate(log.read_partition("events", partition), 1):
        if record.offset > position:  # not folded yet when the folder was opened
            return
        if number % REPORT_EVERY == 0:
            progress(REPORT_EVERY)
        now = max(now, record.timestamp)
        if record.key is not None and record.key != key:
            continue
        try:
            input = input_of(record)
        except InvalidInput:  # the loop has put it aside, too
            continue
        match input:
            case Activated(kind="journey" | "policy") if record.key is None and input.tenant == tenant:
                yield now, _definition(log.definitions, input.tenant, input.kind, input.name, input.version, input.hash)
            case Controlled() if record.key is None and input.tenant == tenant:
                yield now, input
            case Activated() | Controlled() | Swept() | Asked():
                pass
            case _ if record.key is not None:
                yield now, input


def _active_before(store: Store, definitions: Definitions, tenant: str, at: int) -> Catalog:
    """Return what was active for a tenant before a time; of a version that was activated twice, the last time counts."""
    catalog = Catalog()
    prefix = states.ACTIVE + f"{tenant}/".encode()
    for key, raw in store.scan(prefix, prefix[:-1] + b"0"):  # "0" follows "/"
        _, kind, name = key[1:].decode().split("/")
        if kind == "shadow":  # which did nothing to anybody
            continue
        for activation in states.decode_activations(raw):
            if activation.at >= at:
                continue
            definition = _definition(definitions, tenant, kind, name, activation.version, activation.hash)
            if isinstance(definition, Policy):
                catalog = catalog.activate_policy(tenant, definition)
            else:
                catalog = catalog.activate(tenant, definition, activation.at)
    return catalog


def _definition(
    definitions: Definitions, tenant: str, kind: str, name: str, version: int, wanted_hash: str
) -> Journey | Policy:
    try:
        return read(definitions, f"{tenant}/{kind}/{name}@{version}", wanted_hash)
    except MissingDefinition as error:
        raise PartitionStopped(f"the data folder lacks {error.key}, which its log activates") from None
