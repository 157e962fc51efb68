"""Steps that reach out: to a person over a channel, to another system over HTTP."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Literal

from msgspec.structs import replace
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from engine.conditions import FORBID, Facts
from engine.durations import Duration, describe, hours, milliseconds, minutes
from engine.outcomes import Consider, Go, Outcome, Visit, Wait
from engine.policy import Request, Verdict, day_of
from engine.steps.step import ChannelName, Step
from engine.values import Filled, fill
from schemas.outputs import Message

RECEIPT_PATIENCE = hours(1)  # how long a send with `on_failed` waits to hear from its provider
REFUSED = ("failed", "bounced", "dropped")  # not "unknown": that one may have arrived, or be tried again
CALL_CHANNEL = "call"


@dataclass(frozen=True, config=FORBID)
class Send(Step):
    """Ask a channel to send one message, and go on at once.

    Several channels are a fallback list: the first on which the user has an address. A message that the policy keeps back
    leads to `on_blocked` (default: `then`). With `on_failed` the run stays until the provider has accepted the message
    (`then`) or refused it (`on_failed`). A message whose fate is unknown may have arrived, and may be tried again: that is
    waited for, too. After an hour without an answer the run goes on to `on_failed`.
    """

    channel: ChannelName | Annotated[Sequence[ChannelName], Field(min_length=1), AfterValidator(tuple)]
    template: str = Field(kw_only=True, pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    then: str = Field(kw_only=True)
    on_blocked: str | None = Field(default=None, kw_only=True)
    on_failed: str | None = Field(default=None, kw_only=True)
    topic: str = Field(default="marketing", kw_only=True, pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    transactional: bool = Field(default=False, kw_only=True)
    quiet_hours: Literal["keep", "ignore"] = Field(default="keep", kw_only=True)
    max_lateness: Duration = Field(default=hours(24), kw_only=True, gt=timedelta(0))
    kind: Literal["send"] = Field(default="send", kw_only=True)

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """The channels to try, whichever form was written."""
        return (self.channel,) if isinstance(self.channel, str) else tuple(self.channel)

    @cached_property
    def max_lateness_ms(self) -> int:
        return milliseconds(self.max_lateness)

    def edges(self) -> Sequence[tuple[str, str]]:
        ways = [("accepted" if self.on_failed else "sent", self.then)]
        if self.on_failed:
            ways.append(("failed", self.on_failed))
        if self.on_blocked:
            ways.append(("blocked", self.on_blocked))
        return ways

    def passes(self) -> Sequence[str]:
        blocked = self.on_blocked or self.then
        return [blocked] if self.on_failed else [self.then, blocked]

    def enter(self, visit: Visit) -> Outcome:
        return Consider(self._request(visit))

    def decide(self, visit: Visit, verdict: Verdict) -> Go | Wait:
        if verdict.kind == "drop":
            return Go(self.on_blocked or self.then)
        expires_at = visit.run.arrived_at + self.max_lateness_ms
        message = visit.message(verdict, self.template, self.topic, self.transactional, expires_at)
        if self.on_failed is None:
            return Go(self.then, (message,))
        return Wait(visit.now + milliseconds(RECEIPT_PATIENCE), messages=(message,))

    def granted(self, visit: Visit, at: int | None) -> Outcome:
        """The budget's answer. With a place of the day that it is, the rest is judged anew."""
        if at is None:
            return Go(self.on_blocked or self.then)
        is_todays = day_of(visit.place.policy, at) == day_of(visit.place.policy, visit.now)
        return Consider(replace(self._request(visit), is_paid=is_todays))

    def _request(self, visit: Visit) -> Request:
        return Request(
            self.channels,
            self.topic,
            self.transactional,
            visit.run.arrived_at,
            self.max_lateness_ms,
            self.quiet_hours == "ignore",
            journey=visit.run.journey,
        )

    def resume(self, facts: Facts) -> str | None:
        if self.on_failed is None or facts.here is None:
            return None
        if "accepted" in facts.here.statuses:
            return self.then
        return self.on_failed if any([status in facts.here.statuses for status in REFUSED]) else None

    def time_out(self) -> str:
        assert self.on_failed is not None
        return self.on_failed

    def describe(self) -> str:
        return f"{' or '.join(self.channels)}: {self.template}"


@dataclass(frozen=True, config=FORBID)
class Call(Step):
    """Call another system over HTTP and keep what it answers: `answer("<step>.path", ...)`, `value("answer.<step>.path")`.

    The body is a JSON object of values. The call is made by the channel worker `call`: retried while the receiver says
    "later", until `timeout`; the same id each time, as the header `webhook-id`. A refusal or the timeout leads to
    `on_failed`. Of the answer a JSON object of up to 4 KiB is kept.
    """

    url: str = Field(pattern=r"^https?://[^\s]{1,2000}$")
    then: str = Field(kw_only=True)
    on_failed: str = Field(kw_only=True)
    body: Mapping[str, Filled] = Field(default_factory=dict, kw_only=True)
    method: Literal["POST", "PUT", "PATCH"] = Field(default="POST", kw_only=True)
    timeout: Duration = Field(default=minutes(10), gt=timedelta(0), le=hours(24), kw_only=True)
    kind: Literal["call"] = Field(default="call", kw_only=True)

    def edges(self) -> Sequence[tuple[str, str]]:
        return [("answered", self.then), ("failed", self.on_failed)]

    def passes(self) -> Sequence[str]:
        return ()

    def enter(self, visit: Visit) -> Outcome:
        until_at = visit.now + milliseconds(self.timeout)
        body = {"id": visit.id, **fill(self.body, visit.run, visit.profile)}
        message = Message(
            id=visit.id, tenant=visit.place.tenant, user=visit.place.user, channel=CALL_CHANNEL, address=self.url, template="",
            journey=visit.run.journey, version=visit.run.version, step=visit.run.step, run=visit.run.id,
            requested_at=visit.now, expires_at=until_at, topic="call", transactional=True,
            call={"method": self.method, "url": self.url, "body": body},
        )  # fmt: skip
        return Wait(until_at, messages=(message,))

    def resume(self, facts: Facts) -> str | None:
        if facts.here is None:
            return None
        if "accepted" in facts.here.statuses:
            return self.then
        return self.on_failed if any([status in facts.here.statuses for status in REFUSED]) else None

    def time_out(self) -> str:
        return self.on_failed

    def describe(self) -> str:
        return f"call {self.url.partition('://')[2].partition('/')[0]}, up to {describe(self.timeout)}"
