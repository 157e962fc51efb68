"""What a step may answer when a run arrives at it, and what the step is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from engine import policy
from engine.conditions import Facts
from engine.durations import milliseconds
from schemas.outputs import Message
from schemas.state import Run


@dataclass(frozen=True, slots=True)
class Go:
    """Go on to another step at once; ask for these messages on the way. `blocked` is why one was kept back."""

    step: str
    messages: tuple[Message, ...] = ()
    blocked: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """Stay until `until_at`, or until an input concerns the step."""

    until_at: int
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """The run ends here."""

    reason: str = "done"


Outcome = Go | Wait | Finish


@dataclass(frozen=True, slots=True)
class Visit:
    """A run at a step. `at` is the time by which paths are decided, `now` that of the record being folded.

    They differ when timers are late: after an outage a wait ends at its own time, but a message goes out now or not at all.
    """

    run: Run
    tenant: str
    user: str
    profile: Mapping[str, Any]
    templates: Mapping[str, str]
    at: int
    now: int

    def facts(self) -> Facts:
        """What conditions see on arrival: no event is at hand; properties are those of the event that began the run."""
        return Facts(self.profile, None, self.run.event, self.run.sends)

    def consider(self, channels: tuple[str, ...], max_lateness: timedelta) -> policy.Verdict:
        return policy.judge(channels, self.user, self.profile, self.at, self.now, max_lateness)

    def message(
        self, channel: str, address: str, template: str, topic: str, transactional: bool, max_lateness: timedelta
    ) -> Message:
        """Return the command for this visit: its id is `<run>:<visit>`, so that the same visit always asks for the same."""
        return Message(
            id=f"{self.run.id}:{self.run.visit}",
            tenant=self.tenant,
            user=self.user,
            channel=channel,
            address=address,
            template=self.templates.get(template, template),
            journey=self.run.journey,
            version=self.run.version,
            step=self.run.step,
            run=self.run.id,
            requested_at=self.now,
            expires_at=self.at + milliseconds(max_lateness),
            profile=dict(self.profile),
            event=self.run.event,
            topic=topic,
            transactional=transactional,
        )
