"""What one request hands in, and how it becomes records: one append, and 2xx only when that is durable.

Good events go to `events`, keyed by their user. What is wrong with the others would be the same the next time, so they
are put into `events.invalid` as they came, with the reason, and the sender is answered 200 as Segment answers; with
`X-Strict-Mode: 1` he is answered 400 instead and has his bad events back. The good ones are kept either way.
"""

import base64
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from aiohttp import web
from msgspec import Raw

from agents.ingress import answers, contents
from agents.ingress.answers import Answer
from agents.ingress.overload import Share
from agents.ingress.refusals import Refusal
from engine.runtime.host import Log, Overloaded, Unavailable
from engine.runtime.metrics import Adder, Metrics
from engine.runtime.tracing import record_header
from schemas.inputs import Entered, Event
from schemas.records import NewRecord

_JSON: Final = ("content-type", b"application/json")
_LONGEST_DETAIL: Final = 300

TRACEPARENT: Final = web.RequestKey("traceparent", str)  # of a request: what its records carry on
MOST_EVENTS: Final = 2_500  # in a batch, as Segment has it

Read = Callable[[bytes], tuple[str, Event]]  # the user and the event in some bytes; raises a Refusal

_encode = msgspec.json.Encoder().encode


class Submission:
    """The events of one request."""

    def __init__(self, tenant: str, traceparent: str) -> None:
        self.tenant = tenant
        self.count = 0
        self.refused: list[tuple[int, Refusal]] = []
        self.records: list[NewRecord] = []
        self.invalid: list[NewRecord] = []
        self._headers = (_JSON, ("tenant", tenant.encode()), record_header(traceparent))
        self._key = f"{tenant}:".encode()

    def add(self, user: str, event: Event | Entered) -> None:
        """Hand in an event of a user, or an entry."""
        self.count += 1
        self.records.append(NewRecord("events", self._key + user.encode(), _encode(event), self._headers))

    def add_each(self, events: Sequence[bytes | Raw], read: Read) -> None:
        """Hand in those events of a batch that can be read, and put aside those that are refused or over the limit."""
        for event in events[:MOST_EVENTS]:
            original = event if isinstance(event, bytes) else bytes(event)
            try:
                self.add(*read(original))
            except Refusal as why:
                self.refuse(original, why)
        if rest := events[MOST_EVENTS:]:  # Put aside as one: there may be 200,000 of two bytes.
            over = Refusal("too_many", f"a batch has at most {MOST_EVENTS:,} events; {len(rest):,} are over")
            self.refuse(b"[%b]" % b",".join(map(bytes, rest)), over)

    def add_only(self, body: bytes, read: Read) -> None:
        """Hand in the one event of a request or put it aside. Raises a Refusal if it is not even JSON, as Segment does."""
        try:
            self.add(*read(body))
        except Refusal as why:
            if why.reason in ("not_json", "too_deep"):
                raise
            self.refuse(body, why)

    def refuse(self, original: bytes, why: Refusal) -> None:
        """Put an event aside that cannot be taken."""
        self.refused.append((self.count, why))
        self.count += 1
        value, encoding = _keepable(original)
        detail = why.detail[:_LONGEST_DETAIL].encode("utf-8", "backslashreplace")
        reason = ("invalid-reason", why.reason.encode()), ("invalid-detail", detail)
        headers = (*self._headers, *reason, *encoding)
        self.invalid.append(NewRecord("events.invalid", self._key + why.user.encode(), value, headers))


class Intake:
    """Where submissions go."""

    def __init__(self, log: Log, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics
        self._adder = Adder()

    async def take(self, submission: Submission, share: Share, strict: bool = False) -> Answer:
        """Append what was handed in and return the answer. Raises Overloaded or Unavailable: then nothing is known."""
        records = submission.records if strict else submission.records + submission.invalid
        if records:
            try:
                share.hold(events=len(records))
                await self._log.append(records)
            except Overloaded:
                self._metrics.ingress_events_rejected.labels("overloaded").inc(submission.count)
                raise
            except Unavailable:
                self._metrics.ingress_events_rejected.labels("unavailable").inc(submission.count)
                raise
            self._adder.add(self._metrics.ingress_events_accepted, {(submission.tenant,): len(submission.records)})
        if not submission.refused:
            return answers.success()
        if strict:
            return answers.refused_events(submission.refused)
        for _, why in submission.refused:
            self._metrics.ingress_events_invalid.labels(submission.tenant, why.reason).inc()
        return answers.success(submission.refused)


def _keepable(original: bytes) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    """The value of a record in `events.invalid`: the JSON as it came, or `{"base64": ...}` of what is none."""
    try:
        contents.check(original, {"": msgspec.json.decode(original)})
    except (Refusal, ValueError, RecursionError, msgspec.DecodeError):
        return _encode({"base64": base64.b64encode(original).decode()}), (("invalid-encoding", b"base64"),)
    return original, ()
