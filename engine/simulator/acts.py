"""What can happen in a simulated life, as data: so that a history can be drawn, shortened, shown and played again.

Each act has one method, `do`, which does to the user what a method of `SimulatedUser` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from engine.errors import InvalidInput
from engine.journey import Journey
from engine.policy import Policy
from engine.simulator.user import SimulatedUser
from schemas.inputs import Event, Receipt, ReceiptStatus


class Act(Protocol):
    """Something that happens to a user."""

    def do(self, user: SimulatedUser) -> None: ...


@dataclass(frozen=True)
class Happens:
    """An event arrives; it occurred `late` ago, or lies ahead if that is negative."""

    name: str
    properties: Mapping[str, Any] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    late: timedelta = timedelta(0)
    id: str = ""

    def do(self, user: SimulatedUser) -> None:
        occurred_at = max(0, user.now_ms - self.late // timedelta(milliseconds=1))
        event_id = self.id or f"h{len(user.log)}"
        user.give(Event(event_id, self.name, occurred_at, dict(self.properties), dict(self.profile)))


@dataclass(frozen=True)
class Repeats:
    """A producer sends an event once more: the `back`-th last, counted around where there were fewer."""

    back: int

    def do(self, user: SimulatedUser) -> None:
        events = [folded.input for folded in user.log if isinstance(folded.input, Event)]
        if events:
            user.give(events[-1 - (self.back - 1) % len(events)])


@dataclass(frozen=True)
class Hears:
    """Something became of a message: of the `back`-th last, counted around. In any order, and more than once."""

    back: int
    status: ReceiptStatus
    answer: Mapping[str, Any] = field(default_factory=dict)

    def do(self, user: SimulatedUser) -> None:
        if user.messages:
            message = user.messages[-1 - (self.back - 1) % len(user.messages)]
            user.give(Receipt(message.id, self.status, user.now_ms, message.channel, answer=dict(self.answer)))


@dataclass(frozen=True)
class Enters:
    """Somebody asks by API that the user enter a journey."""

    journey: str
    properties: Mapping[str, Any] = field(default_factory=dict)

    def do(self, user: SimulatedUser) -> None:
        user.enter(self.journey, **self.properties)


@dataclass(frozen=True)
class Waits:
    """Time passes, and timers fire at their own time."""

    duration: timedelta

    def do(self, user: SimulatedUser) -> None:
        user.wait(self.duration)


@dataclass(frozen=True)
class Sleeps:
    """Time passes while the worker is down: every wake-up is lost."""

    duration: timedelta

    def do(self, user: SimulatedUser) -> None:
        user.sleep(self.duration)


@dataclass(frozen=True)
class Wakes:
    """A wake-up comes, needed or not."""

    def do(self, user: SimulatedUser) -> None:
        user.wake_up()


@dataclass(frozen=True)
class Controls:
    """An operator pauses, resumes, stops or retires a journey."""

    journey: str
    action: Literal["pause", "resume", "stop", "retire"]

    def do(self, user: SimulatedUser) -> None:
        user.control(self.journey, self.action)


@dataclass(frozen=True)
class Publishes:
    """A new version, or a policy, becomes active."""

    definition: Journey | Policy

    def do(self, user: SimulatedUser) -> None:
        user.publish(self.definition)


@dataclass(frozen=True)
class Resumes:
    """An operator lets every suspended run go on."""

    def do(self, user: SimulatedUser) -> None:
        for run in user.runs:
            if run.suspended:
                user.resume(run.id)


@dataclass(frozen=True)
class Erases:
    """The user asks to be forgotten."""

    def do(self, user: SimulatedUser) -> None:
        user.erase()


@dataclass(frozen=True)
class OnDevice:
    """Something happens to an anonymous id, which may turn out to be the user's, or be it already."""

    device: str
    act: Act

    def do(self, user: SimulatedUser) -> None:
        self.act.do(_device(user, self.device))


@dataclass(frozen=True)
class LogsIn:
    """The user logs in on a device."""

    device: str

    def do(self, user: SimulatedUser) -> None:
        _device(user, self.device).becomes(user)


def _device(user: SimulatedUser, name: str) -> SimulatedUser:
    return user.simulation.people.get(f"anon:{name}") or user.visitor(f"anon:{name}")


@dataclass(frozen=True)
class History:
    """One life: when it begins, who the user is, and what happens."""

    begin: datetime
    profile: Mapping[str, Any]
    acts: Sequence[Act]

    def play(self, *definitions: Journey | Policy, settle: timedelta = timedelta(0)) -> SimulatedUser:
        """Return the user who has lived it. Then let journeys that are paused go on, and as much time pass as `settle`.

        What can't be folded is set aside, as a worker does.
        """
        user = SimulatedUser(*definitions, now=self.begin, profile=self.profile)
        for act in self.acts:
            try:
                act.do(user)
            except InvalidInput:
                continue
        for tenant, journey in sorted(user.catalog.controls):
            if tenant == user.tenant and user.catalog.controls[tenant, journey].paused_at is not None:
                user.control(journey, "resume")
        user.wait(settle)
        return user
