"""All that the journal says about one person, under whatever id they came."""

from collections.abc import Callable, Iterable, Sequence
from heapq import merge
from itertools import accumulate
from operator import itemgetter

from schemas.outputs import JournalEntry

MOST_IDS = 64  # each costs a look into the journal, and a scan of a partition on Kafka


def gather(read: Callable[[str], Iterable[JournalEntry]], user: str) -> list[JournalEntry]:
    """Return the entries of a user, of whom they stand for, and of all who stand for them, in the order of time.

    `read` gives the entries of one id, in the order of the log. Of more than 64 ids those are left out that are farthest away.
    """
    found: dict[str, list[JournalEntry]] = {}
    following = [user]
    while following and len(found) < MOST_IDS:
        who = following.pop(0)
        if who in found:
            continue
        found[who] = list(read(who))
        for entry in found[who]:
            if entry.kind in ("linked", "absorbed"):
                following.append(str(entry.detail.get("user" if entry.kind == "linked" else "alias")))
    if len(found) == 1:
        return found[user]
    return [entry for _, entry in merge(*(_timed(found[who]) for who in sorted(found)), key=itemgetter(0))]


def _timed(entries: Sequence[JournalEntry]) -> list[tuple[int, JournalEntry]]:
    """Beside each entry the latest time so far: what is told of one id stays in its order, also what came late."""
    return list(zip(accumulate((entry.at for entry in entries), max), entries, strict=True))
