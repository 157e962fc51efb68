"""What is counted over many users: turns of a throttle, places of a budget or an entry cap.

A quota is an actor of its own; runs ask it and wait for its answer, so a limit holds over all partitions. A throttle gives
each who asks the next free moment, evenly spread. Places are counted in slices of a sixtieth of the window, so that a
window really rolls: a place becomes free when its slice has left the window, at most a sixtieth later than it could.
"""

from schemas.inputs import Asked, Granted
from schemas.state import Quota

SLICES = 60


def ask(quota: Quota, asked: Asked, now: int) -> tuple[Quota, Granted]:
    """Return the quota after a question, and the answer: a moment (ms), or None where every place is taken."""
    if asked.every_ms:
        at = max(float(now), quota.next_at)
        return Quota(at + asked.every_ms, quota.places), Granted(asked.id, int(at))
    size = max(1, asked.within_ms // SLICES)
    slice = now // size
    places = tuple((each, taken) for each, taken in quota.places if each > slice - SLICES)
    if sum(taken for _, taken in places) >= asked.most:
        return Quota(quota.next_at, places), Granted(asked.id, None)
    counts = dict(places)
    counts[slice] = counts.get(slice, 0) + 1
    return Quota(quota.next_at, tuple(sorted(counts.items()))), Granted(asked.id, now)
