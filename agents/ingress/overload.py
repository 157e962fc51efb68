"""How much may be under way at once, so that a slow disk or broker makes clients wait and not this process swell.

What is over the bounds is answered 429 with Retry-After: an SDK keeps its events and comes back. The log has bounds of
its own; these protect what lies before it: bodies being read, and events that wait to be durable.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from engine.runtime.host import Overloaded
from engine.runtime.metrics import Metrics

REQUESTS: Final = 4_000  # About 20 KB each in aiohttp: 80 MB if all are being read.
EVENTS: Final = 100_000  # Four seconds at the 25,000 events/s one process is built for.
BYTES: Final = 48 << 20  # of bodies and records
RETRY_AFTER_SECONDS: Final = 1.0


class Admission:
    """What is under way in this process, and whether more may be."""

    def __init__(self, metrics: Metrics, requests: int = REQUESTS, events: int = EVENTS, size: int = BYTES) -> None:
        self._most_requests, self._most_events, self._most_bytes = requests, events, size
        self.requests = self.events = self.bytes = 0
        metrics.ingress_events_in_flight.set_function(lambda: self.events)

    def enter(self) -> "Share":
        """Let a request in, which must `release` its share when it is answered. Raises Overloaded."""
        if self.requests >= self._most_requests:
            raise Overloaded(RETRY_AFTER_SECONDS)
        self.requests += 1
        return Share(self)

    @contextmanager
    def request(self) -> Iterator["Share"]:
        """Let a request in, and take back what it held when it is answered. Raises Overloaded."""
        share = self.enter()
        try:
            yield share
        finally:
            share.release()

    def has_room(self) -> bool:
        """Whether what is held now is within the bounds."""
        return self.events <= self._most_events and self.bytes <= self._most_bytes


class Share:
    """What one request holds."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.events = self.bytes = 0

    def hold(self, size: int = 0, events: int = 0) -> None:
        """Hold so much more until the request is answered. Raises Overloaded if that is over the bounds of all."""
        self.bytes += size
        self.events += events
        self._admission.bytes += size
        self._admission.events += events
        if not self._admission.has_room():
            raise Overloaded(RETRY_AFTER_SECONDS)

    def release(self) -> None:
        """Hold nothing any more."""
        self._admission.requests -= 1
        self._admission.events -= self.events
        self._admission.bytes -= self.bytes
