"""Many users at once, who share the clock and the quotas: what a journey does with a thousand people."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from engine.durations import milliseconds
from engine.journey import Journey
from engine.policy import Policy
from engine.simulator.simulation import Simulation
from engine.simulator.user import SimulatedUser
from schemas.outputs import JournalEntry, Message

Who = Callable[[SimulatedUser], bool]


class Crowd:
    """Some users, in order. What happens to everybody is a method here; what happens to one is a method of theirs."""

    def __init__(
        self, size: int, simulation: Simulation, profile: Mapping[str, Any] | Callable[[int], Mapping[str, Any]]
    ) -> None:
        self.simulation = simulation
        self.users: list[SimulatedUser] = []
        for number in range(size):
            own = {"email": f"u{number}@example.com", "phone": f"+1555{number:07d}", "push_token": f"token-{number}"}
            given = profile(number) if callable(profile) else profile
            self.users.append(SimulatedUser(user_id=f"u{number}", profile={**own, **given}, simulation=simulation))

    def __len__(self) -> int:
        return len(self.users)

    def __iter__(self) -> Iterator[SimulatedUser]:
        return iter(self.users)

    def __getitem__(self, number: int) -> SimulatedUser:
        return self.users[number]

    # What happens

    def event(self, name: str, /, *, who: Who | None = None, **properties: Any) -> None:
        """An event arrives for everybody, or for whom `who` holds. A property may be a function of the user."""
        for user in self._chosen(who):
            user.event(name, **_own(user, properties))

    def identify(self, *, who: Who | None = None, **profile: Any) -> None:
        """Attributes change, for everybody or for whom `who` holds. A value may be a function of the user."""
        for user in self._chosen(who):
            user.identify(**_own(user, profile))

    def enter(self, journey: str, *, who: Who | None = None, **properties: Any) -> None:
        """Somebody asks by API that everybody, or for whom `who` holds, enter a journey."""
        for user in self._chosen(who):
            user.enter(journey, **_own(user, properties))

    def wait(self, duration: timedelta) -> None:
        """Let time pass: what is due on the way, for whomever, happens at its own time."""
        self.simulation.wait(self.simulation.now_ms + milliseconds(duration))

    def sleep(self, duration: timedelta) -> None:
        """Let time pass while the worker is down: no timer fires until a user's next input comes."""
        self.simulation.sleep(self.simulation.now_ms + milliseconds(duration))

    def publish(self, definition: Journey | Policy) -> None:
        """A new version, another journey, or a policy becomes active."""
        self.simulation.publish(definition)

    def control(self, journey: str, action: Literal["pause", "resume", "stop", "retire"]) -> None:
        """An operator pauses, resumes, stops or retires a journey."""
        self.simulation.control(journey, action)

    # What came of it

    @property
    def now(self) -> datetime:
        return self.simulation.now

    @property
    def sent(self) -> Counter[str]:
        """How many of each message ("email:hello") were asked for."""
        return Counter(what for user in self.users for what in user.sent)

    @property
    def steps(self) -> Counter[str]:
        """How many runs wait where, by "journey.step"."""
        return Counter(f"{run.journey}.{run.step}" for user in self.users for run in user.runs)

    @property
    def exits(self) -> Counter[str]:
        """How many runs have ended for which reason."""
        return self.reasons("exited")

    @property
    def goals(self) -> Counter[str]:
        """How many runs of each journey have reached its goal."""
        return Counter(journey for user in self.users for journey in user.goals)

    def reasons(self, kind: str) -> Counter[str]:
        """How often the journal gives which reason for one kind of entry, such as "blocked" or "receipt"."""
        return Counter(reason for user in self.users for reason in user.reasons(kind))

    def who(self, what: str) -> list[SimulatedUser]:
        """The users who were sent a message ("email:hello")."""
        return [user for user in self.users if what in user.sent]

    @property
    def messages(self) -> list[Message]:
        """Every message asked for, in order of time."""
        return sorted((message for user in self.users for message in user.messages), key=lambda each: each.requested_at)

    @property
    def journal(self) -> list[JournalEntry]:
        """Everything that happened, in order of time."""
        return sorted((entry for user in self.users for entry in user.journal), key=lambda each: each.at)

    def __repr__(self) -> str:
        return f"<Crowd of {len(self)}, sent {dict(self.sent)}>"

    def _chosen(self, who: Who | None) -> list[SimulatedUser]:
        return self.users if who is None else [user for user in self.users if who(user)]


def _own(user: SimulatedUser, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value(user) if callable(value) else value for name, value in values.items()}
