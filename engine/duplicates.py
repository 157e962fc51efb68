"""Which inputs a user has already had.

An SDK repeats a whole batch when an answer is lost, and a producer may repeat a record; an event whose id is known is
dropped. What is remembered: the last 64 ids, however old, and all of the last hour up to 4,096 (an SDK's largest batch is
2,500 events). An id is a cell of 12 bytes: 8 of xxh64 of the id, 4 of the second in which it came, big-endian. The newest
cell is last. Up to 128 cells are part of the user's state; what overflows moves, 64 and more at a time, into a record of
its own, so that the state of a busy user is not rewritten with 48 KiB of ids at every event.
"""

from operator import itemgetter
from struct import unpack

from xxhash import xxh64_digest

CELL = 12
LAST = 64
IN_STATE = 128
MOST = 4096
BUSY_USERS = 32  # whose older ids are kept as a set for a while: up to 300 kB each
WINDOW_SECONDS = 3600

_BUSY: dict[bytes, set[int]] = {}  # a cache of what `_read` returns: an older record -> its ids; the coldest first


def noted(seen: bytes, older: bytes, event_id: str, now: int) -> bytes | None:
    """Return the seen cells with one more for this id, or None if it is known already. `now` in milliseconds."""
    id = xxh64_digest(event_id.encode())
    if _is_in(seen, id) or (older and is_known(older, id)):
        return None
    return seen + (id + (now // 1000).to_bytes(4, "big"))  # so the many are copied once


def is_known(cells: bytes, cell: bytes) -> bool:
    """Is the id of this cell among the remembered ones?"""
    id = cell[:8]
    if len(cells) > IN_STATE * CELL:
        return int.from_bytes(id, "little") in _ids(cells)
    return _is_in(cells, id)


def _is_in(cells: bytes, id: bytes) -> bool:
    at = cells.find(id)
    while at >= 0:
        if at % CELL == 0:
            return True
        at = cells.find(id, at + 1)  # that was across two cells
    return False


def _ids(older: bytes) -> set[int]:
    """The ids of an older record. Searching its 48 KiB each time takes 75 us, reading them all 200."""
    ids = _BUSY.pop(older, None)
    if ids is None:
        ids = _read(older)
    _keep(older, ids)
    return ids


def _keep(older: bytes, ids: set[int]) -> None:
    _BUSY[older] = ids
    if len(_BUSY) > BUSY_USERS:
        del _BUSY[next(iter(_BUSY))]


def _read(cells: bytes) -> set[int]:
    return set(unpack("<" + "Q4x" * (len(cells) // CELL), cells))


def overflows(cells: bytes) -> bool:
    return len(cells) > IN_STATE * CELL


def spill(cells: bytes, older: bytes, now: int) -> tuple[bytes, bytes]:
    """Return (cells, older) after all but the last 64 have moved from the state to the older record, trimmed."""
    moved, kept = cells[: -LAST * CELL], cells[-LAST * CELL :]
    both = older + moved
    after = trim(both, now)
    ids = _BUSY.pop(older, None)
    if ids is not None:  # They follow the record: to read it anew for every 64 events would be most of what these cost.
        _keep(after, (ids | _read(moved)) - _read(both[: len(both) - len(after)]))
    return kept, after


def trim(older: bytes, now: int) -> bytes:
    """Return the older cells without those that came more than an hour ago, and at most 4,096 in all with the state's."""
    horizon = now // 1000 - WINDOW_SECONDS
    start = max(0, len(older) - (MOST - LAST) * CELL)
    while start < len(older) and int.from_bytes(older[start + 8 : start + CELL], "big") < horizon:
        start += CELL
    return older[start:]


def united(cells: bytes, others: bytes, now: int) -> tuple[bytes, bytes]:
    """Return (cells, older) after two users' ids were united, by when they came. One that both have had counts once."""
    each = [
        (all_[at + 8 : at + CELL], all_[at : at + 8]) for all_ in (cells, others) for at in range(0, len(all_), CELL)
    ]
    newest = {id: came_at for came_at, id in sorted(each, key=itemgetter(0))}
    together = b"".join([id + came_at for id, came_at in sorted(newest.items(), key=itemgetter(1))])
    return spill(together, b"", now) if overflows(together) else (together, b"")
