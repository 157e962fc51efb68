"""What a step may answer when a run arrives at it, and what the step is told."""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from engine.conditions import NOTHING, Facts
from engine.durations import milliseconds
from engine.policy import Policy, Request, Verdict, zone_name
from schemas.inputs import Input
from schemas.outputs import Message
from schemas.state import Run, Track


class Forward(Struct, frozen=True, gc=False):
    """An input for an actor. `to` is empty for the user themselves, else the rest of the key: "quota:mails"."""

    to: str
    input: Input


class Go(Struct, frozen=True, gc=False):
    """Go on to another step at once. On the way: ask for messages, change the profile, give inputs to actors."""

    step: str
    messages: tuple[Message, ...] = ()
    updates: Mapping[str, Any] = NOTHING
    inputs: tuple[Forward, ...] = ()


class Wait(Struct, frozen=True, gc=False):
    """Stay until an input concerns the step, or until `until_at` (None: only an input ends it).

    `look_at` is when time alone may end the wait before that. `quota`: its answer is what is waited for, or the moment that
    it has granted.
    """

    until_at: int | None
    look_at: int | None = None
    messages: tuple[Message, ...] = ()
    inputs: tuple[Forward, ...] = ()
    quota: Literal["", "asked", "granted"] = ""


class Consider(Struct, frozen=True, gc=False):
    """Ask the policy whether a message may go out now; the step's `decide` is told the verdict."""

    request: Request


class Finish(Struct, frozen=True, gc=False):
    """The run ends here."""

    reason: str = "done"


Outcome = Go | Wait | Consider | Finish


class Visit(Struct, gc=False):
    """A run at a step. `at` is the time by which paths are decided, `now` that of the record being folded.

    They differ when timers are late: after an outage a wait ends at its own time, but a message goes out now or not at all.
    `earlier` is the history without the event at hand: a run never sees the input that created it.
    """

    run: Run
    tenant: str
    user: str
    profile: Mapping[str, Any]
    history: Mapping[str, Track]
    earlier: Mapping[str, Track]
    policy: Policy
    templates: Mapping[str, str]
    at: int
    now: int

    def facts(self, since: int | None = None) -> Facts:
        """What conditions see on arrival: no event is at hand; properties are those of the event that began the run."""
        run = self.run
        history = self.history if since is None else self.earlier
        return Facts(self.profile, None, run.event, run.sends, None, run.answers, history, self.at, since)

    @property
    def id(self) -> str:
        """What names this visit: the id of a message, an event or a question it gives rise to."""
        return f"{self.run.id}:{self.run.visit}"

    @property
    def zone(self) -> str:
        return zone_name(self.policy, self.profile)

    def message(self, verdict: Verdict, template: str, request: Request) -> Message:
        """Return the command for this visit; its id is the visit's, so that the same visit always asks for the same."""
        return Message(
            id=self.id,
            tenant=self.tenant,
            user=self.user,
            channel=verdict.channel,
            address=verdict.address,
            template=self.templates.get(template, template),
            journey=self.run.journey,
            version=self.run.version,
            step=self.run.step,
            run=self.run.id,
            requested_at=self.now,
            expires_at=request.at + milliseconds(request.max_lateness),
            profile=dict(self.profile),
            event=self.run.event,
            topic=request.topic,
            transactional=request.transactional,
        )
