"""How a channel's deliveries lie in its store, so that what is due, interrupted or seen is found without searching.

    d<id>       the delivery, while its outcome is open
    c<id>       ... it is being called: after a crash these are the unknown ones
    r<due><id>  ... it waits for its next attempt
    s<id>       this id was seen and is done with
    f<due><id>  ... and this is the order in which ids are forgotten

`<due>` is eight bytes, big-endian, so that the order of the keys is the order of time. `<id>` is `tenant/message id`.
Changes are collected until `take_changes` hands them to a commit. `knows` sees them before that; the lists of what is
due, interrupted or to be forgotten are of what is committed.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import Final

import msgspec

from agents.channels.deliveries import Delivery
from engine.runtime.host import Store

_OPEN: Final = b"d"
_CALLING: Final = b"c"
_WAITING: Final = b"r"
_SEEN: Final = b"s"
_FORGET: Final = b"f"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Delivery).decode


class Ledger:
    """The deliveries of one partition of one channel."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changes: dict[bytes, bytes | None] = {}
        # Deleted keys stay in RocksDB as tombstones until compaction: a scan from the first possible key would walk
        # over all of them each time. It starts where the last one found something.
        self._waiting_from = _WAITING
        self._forget_from = _FORGET

    def knows(self, tenant: str, message_id: str) -> bool:
        """Was this command seen before?"""
        key = _id(tenant, message_id)
        return self._get(_SEEN + key) is not None or self._get(_OPEN + key) is not None

    def put(self, delivery: Delivery, before: Delivery) -> None:
        """Keep a delivery whose outcome is open, in place of what it was `before`."""
        key = self._unlink(before)
        self._changes[_OPEN + key] = _encode(delivery)
        if delivery.status == "calling":
            self._changes[_CALLING + key] = b""
        else:
            self._changes[_WAITING + _instant(delivery.due_at) + key] = b""

    def finish(self, delivery: Delivery, forget_at: int) -> None:
        """Its outcome is known: keep the id alone, until `forget_at`."""
        key = self._unlink(delivery)
        self._changes[_SEEN + key] = b""
        self._changes[_FORGET + _instant(forget_at) + key] = b""

    def interrupted(self) -> Iterator[Delivery]:
        """Deliveries whose call was under way when the last worker stopped."""
        for key, _ in self._store.scan(_CALLING, _after(_CALLING)):
            yield self._find(key[1:])

    def due(self, now: int, limit: int) -> list[Delivery]:
        """Up to `limit` waiting deliveries that are due, the longest due first. Sees committed changes only."""
        stop = _WAITING + _instant(now + 1)
        with closing(_keys(self._store, self._waiting_from, stop)) as keys:
            found = list(islice(keys, limit))
        self._waiting_from = found[0] if found else max(self._waiting_from, stop)
        return [self._find(key[9:]) for key in found]

    def next_due_at(self) -> int | None:
        """When the next waiting delivery is due, or None if none waits."""
        with closing(_keys(self._store, self._waiting_from, _after(_WAITING))) as keys:
            first = next(keys, None)
        return None if first is None else int.from_bytes(first[1:9], "big")

    def waiting(self) -> Iterator[None]:
        """One item for each delivery that waits: for counting them."""
        for _ in self._store.scan(_WAITING, _after(_WAITING)):
            yield

    def forget(self, now: int, limit: int) -> int:
        """Forget up to `limit` ids that need not be remembered longer; return how many."""
        stop = _FORGET + _instant(now + 1)
        with closing(_keys(self._store, self._forget_from, stop)) as keys:
            found = list(islice(keys, limit))
        for key in found:
            self._changes[key] = None
            self._changes[_SEEN + key[9:]] = None
        if found:
            self._forget_from = found[-1]
        return len(found)

    def take_changes(self) -> dict[bytes, bytes | None]:
        """What was put, finished and forgotten since the last time, to be committed."""
        changes, self._changes = self._changes, {}
        for key, value in changes.items():  # Only now: a scan before the commit would not have found them.
            if value is not None and key.startswith(_WAITING):
                self._waiting_from = min(self._waiting_from, key)
            elif value is not None and key.startswith(_FORGET):
                self._forget_from = min(self._forget_from, key)
        return changes

    def _unlink(self, delivery: Delivery) -> bytes:
        """Take the delivery out of the store and the order it stands in; return its id's key."""
        key = _id(delivery.message.tenant, delivery.message.id)
        if delivery.status == "calling":
            self._changes[_CALLING + key] = self._changes[_OPEN + key] = None
        elif delivery.due_at:  # else it is new, and there is nothing to delete
            self._changes[_WAITING + _instant(delivery.due_at) + key] = self._changes[_OPEN + key] = None
        return key

    def _find(self, key: bytes) -> Delivery:
        value = self._store.get(_OPEN + key)
        assert value is not None, f"{key!r} is linked, but there is no such delivery"
        return _decode(value)

    def _get(self, key: bytes) -> bytes | None:
        return self._changes[key] if key in self._changes else self._store.get(key)


def _keys(store: Store, start: bytes, stop: bytes) -> Generator[bytes, None, None]:
    pairs = store.scan(start, stop)
    try:
        for key, _ in pairs:
            yield key
    finally:
        close = getattr(pairs, "close", None)
        if close is not None:  # An iterator left alive keeps RocksDB's lock.
            close()


def _id(tenant: str, message_id: str) -> bytes:
    return f"{tenant}/{message_id}".encode()


def _instant(at: int) -> bytes:
    return max(at, 0).to_bytes(8, "big")


def _after(prefix: bytes) -> bytes:
    return bytes((prefix[0] + 1,))
