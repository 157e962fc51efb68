"""Where everybody is: how many runs wait at each step, counted from the states of an embedded data directory."""

from collections import Counter
from collections.abc import Callable

from engine.runtime import states
from engine.runtime.embedded.readonly import ReadOnlyLog
from engine.runtime.states import Place
from engine.runtime.store import after_prefix


def count_runs(log: ReadOnlyLog, tenant: str, told: Callable[[int], None] = lambda users: None) -> Counter[Place]:
    """Return how many runs of a tenant's users are at each step, suspended ones too, as of when the log was opened.

    A run that is due and not folded yet counts where it still is. `told` is called with the number of users so far, now and
    then. Raises PartitionStopped where a state can't be read.
    """
    found: Counter[Place] = Counter()
    users = 0
    prefix = states.USER + f"{tenant}:".encode()
    for number in range(log.partitions("events")):
        _, store = log.folded("events", number)
        for _, raw in store.scan(prefix, after_prefix(prefix)):
            found.update(states.places_in(raw))
            users += 1
            if users % 1000 == 0:
                told(users)
    told(users)
    return found
