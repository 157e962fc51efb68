"""Where everybody is: how many runs wait at each step, counted from the users' changelogs on Kafka."""

from collections import Counter
from collections.abc import Callable

from engine.runtime import states
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.states import Place


def count_runs(
    log: KafkaLog, partitions: int, tenant: str, told: Callable[[int], None] = lambda states: None
) -> Counter[Place]:
    """Return how many runs of a tenant's users are at each step, suspended ones too, as of the workers' last commits.

    No worker need run, and none is asked. Until it is compacted a changelog holds older states of a user, too; the last one
    counts. What is remembered on the way is where the users of one partition are: some 300 bytes for each who is in a
    journey. `told` is called with the number of states read so far, now and then. Raises TopicError where a changelog
    can't be read, PartitionStopped where a state can't.
    """
    found: Counter[Place] = Counter()
    read = 0
    prefix = states.USER + f"{tenant}:".encode()
    for number in range(partitions):
        whereabouts: dict[bytes, tuple[Place, ...]] = {}
        places: dict[Place, Place] = {}  # each is kept once
        for record in log.read_changelog(number):
            key = record.key or b""
            if not key.startswith(prefix):
                continue
            here = () if record.value is None else states.places_in(record.value)
            if here:
                whereabouts[key] = tuple(places.setdefault(place, place) for place in here)
            else:
                whereabouts.pop(key, None)
            read += 1
            if read % 1000 == 0:
                told(read)
        for present in whereabouts.values():
            found.update(present)
    told(read)
    return found
