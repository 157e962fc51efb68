"""What a step may answer when a run arrives at it, and what the step is told."""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from engine.conditions import NOTHING, Facts
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


class Place(Struct, gc=False):
    """Whose run it is and when: the same for everything that one input does to one run, but for the profile.

    `at` is the time by which paths are decided, `now` that of the record being folded. They differ when timers are late:
    after an outage a wait ends at its own time, but a message goes out now or not at all. `earlier` is the history without
    the event at hand: a run never sees the input that created it.
    """

    tenant: str
    user: str
    profile: dict[str, Any]
    history: Mapping[str, Track]
    earlier: Mapping[str, Track]
    policy: Policy
    at: int
    now: int
    cause: str

    def facts(self, run: Run, name: str | None = None, properties: Mapping[str, Any] | None = None) -> Facts:
        """What a run sees now: the event at hand if one is named, and what became of its own messages."""
        shown = run.event if properties is None else properties
        here = run.sends.get(run.step)
        return Facts(self.profile, name, shown, run.sends, here, run.answers, self.history, self.at)


class Visit(Struct, gc=False):
    """A run at a step, as the step is told of it."""

    run: Run
    place: Place
    templates: Mapping[str, str]

    def facts(self, since: int | None = None) -> Facts:
        """What conditions see on arrival: no event is at hand; properties are those of the event that began the run."""
        run, place = self.run, self.place
        history = place.history if since is None else place.earlier
        return Facts(place.profile, None, run.event, run.sends, None, run.answers, history, place.at, since)

    @property
    def at(self) -> int:
        """The time by which paths are decided, in ms."""
        return self.place.at

    @property
    def now(self) -> int:
        """The time of the record being folded, in ms."""
        return self.place.now

    @property
    def profile(self) -> Mapping[str, Any]:
        return self.place.profile

    @property
    def id(self) -> str:
        """What names this visit: the id of a message, an event or a question it gives rise to."""
        return f"{self.run.id}:{self.run.visit}"

    @property
    def zone(self) -> str:
        return zone_name(self.place.policy, self.place.profile)

    def message(self, verdict: Verdict, template: str, topic: str, transactional: bool, expires_at: int) -> Message:
        """Return the command for this visit; its id is the visit's, so that the same visit always asks for the same."""
        run, place = self.run, self.place
        return Message(
            id=self.id,
            tenant=place.tenant,
            user=place.user,
            channel=verdict.channel,
            address=verdict.address,
            template=self.templates.get(template, template),
            journey=run.journey,
            version=run.version,
            step=run.step,
            run=run.id,
            requested_at=place.now,
            expires_at=expires_at,
            profile=place.profile,
            event=run.event,
            topic=topic,
            transactional=transactional,
        )
