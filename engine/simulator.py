"""Play one user's life against journeys, on a virtual clock: no broker, no database, no waiting.

The same `handle` as in production folds every input, so what a test sees is what a user would get.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from engine.actor import Handled, earliest_due, handle
from engine.catalog import Catalog
from engine.durations import milliseconds
from engine.journey import Journey
from engine.policy import Policy
from engine.quotas import ask
from schemas.inputs import (
    Activated,
    Asked,
    Controlled,
    Entered,
    Erased,
    Event,
    Receipt,
    ReceiptStatus,
    Resumed,
    Swept,
    UserInput,
    WakeUp,
)
from schemas.outputs import JournalEntry, Message
from schemas.state import Quota, Run, User

BEGIN = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)  # a Monday morning
MAX_GIVEN_BACK = 1000  # inputs that one input may lead to: a loop of journeys that enter each other ends here
REACHABLE = {"email": "user@example.com", "phone": "+15550100", "push_token": "token"}


class SimulatedUser:
    """One user and the journeys that concern them. Whatever can happen to a user is a method here."""

    def __init__(
        self,
        *definitions: Journey | Policy,
        user_id: str = "u1",
        tenant: str = "test",
        now: datetime = BEGIN,
        profile: dict[str, Any] | None = None,
    ) -> None:
        catalog = Catalog()
        for definition in definitions:
            if isinstance(definition, Policy):
                catalog = catalog.activate_policy(tenant, definition)
            else:
                catalog = catalog.activate(tenant, definition)
        attributes = {name: value for name, value in {**REACHABLE, **(profile or {})}.items() if value is not None}
        self.catalog = catalog
        self.tenant = tenant
        self.user_id = user_id
        self.now_ms = milliseconds(now - datetime(1970, 1, 1, tzinfo=UTC))
        self.state: User = User(profile=attributes)
        self.messages: list[Message] = []
        self.journal: list[JournalEntry] = []
        self.older = b""
        self._events = 0
        self.quotas: dict[str, Quota] = {}  # share one between users to let them compete

    # What happens

    def event(
        self, name: str, /, *, message_id: str | None = None, occurred: datetime | None = None, **properties: Any
    ) -> None:
        """An event arrives now. `occurred` is when it happened, if that was earlier; `message_id` repeats an event."""
        self._events += 1
        occurred_at = self.now_ms if occurred is None else milliseconds(occurred - datetime(1970, 1, 1, tzinfo=UTC))
        self.give(Event(message_id or f"e{self._events}", name, occurred_at, properties))

    def identify(self, **profile: Any) -> None:
        """The user's attributes change; None removes one."""
        self._events += 1
        self.give(Event(f"e{self._events}", "identify", self.now_ms, {}, profile))

    def receipt(self, step: str, status: ReceiptStatus) -> None:
        """Something became of the last message that a step asked for."""
        sent = [message for message in self.messages if message.step == step]
        if not sent:
            raise AssertionError(f"{step!r} has sent nothing so far; sent were {self.sent}")
        self.give(Receipt(sent[-1].id, status, self.now_ms, sent[-1].channel))

    def wait(self, duration: timedelta) -> None:
        """Let time pass: every timer on the way fires at its own time."""
        until = self.now_ms + milliseconds(duration)
        while (due_at := earliest_due(self.state, self.catalog, self.tenant)) is not None and due_at <= until:
            self.now_ms = max(self.now_ms, due_at)
            self.give(WakeUp(due_at))
        self.now_ms = until

    def sleep(self, duration: timedelta) -> None:
        """Let time pass while the worker is down: nothing fires until the next input comes."""
        self.now_ms += milliseconds(duration)

    def wake_up(self) -> None:
        self.give(WakeUp(self.now_ms))

    def resume(self, run: str) -> None:
        """An operator lets a suspended run go on."""
        self.give(Resumed(run))

    def enter(self, journey: str, **properties: Any) -> None:
        """Somebody asks by API that the user enter a journey."""
        self._events += 1
        self.give(Entered(f"e{self._events}", journey, "api", properties))

    def erase(self) -> None:
        """The user asks to be forgotten."""
        self.give(Erased(f"erase-{self.now_ms}"))

    def publish(self, definition: Journey | Policy) -> None:
        """A new version, another journey, or a policy becomes active."""
        if isinstance(definition, Policy):
            self.catalog = self.catalog.activate_policy(self.tenant, definition)
        else:
            self.catalog = self.catalog.activate(self.tenant, definition, self.now_ms)
        self.wake_up()

    def control(self, journey: str, action: Literal["pause", "resume", "stop", "retire"]) -> None:
        """An operator pauses, resumes, stops or retires a journey."""
        self.catalog = self.catalog.control(self.tenant, journey, action, self.now_ms)
        self.wake_up()

    def give(self, input: UserInput) -> Handled:
        """Fold one input at the present time, then what steps and quotas give back, one after the other."""
        handled = self._fold(input)
        given = [*handled.inputs]
        for _ in range(MAX_GIVEN_BACK):
            if not given:
                break
            key, input_back = given.pop(0)
            if isinstance(input_back, Asked):
                quota, granted = ask(self.quotas.get(key, Quota()), input_back, self.now_ms)
                self.quotas[key] = quota
                given += self._fold(granted).inputs
            elif not isinstance(input_back, Activated | Controlled | Swept):
                given += self._fold(input_back).inputs
        return handled

    def _fold(self, input: UserInput) -> Handled:
        handled = handle(self.catalog, self.tenant, self.user_id, self.state, input, self.now_ms, self.older)
        self.state, self.older = handled.user, handled.older
        self.messages += handled.messages
        self.journal += handled.journal
        return handled

    # What came of it

    @property
    def now(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self.now_ms)

    @property
    def sent(self) -> list[str]:
        """The messages asked for so far, as "channel:template"."""
        return [f"{message.channel}:{message.template.partition('@')[0]}" for message in self.messages]

    @property
    def profile(self) -> dict[str, Any]:
        return self.state.profile

    @property
    def runs(self) -> tuple[Run, ...]:
        return self.state.runs

    @property
    def step(self) -> str | None:
        """Where the only live run waits; None if there is none."""
        if len(self.runs) > 1:
            raise AssertionError(f"{len(self.runs)} runs are live; ask `runs`")
        return self.runs[0].step if self.runs else None

    @property
    def trail(self) -> list[str]:
        """The steps that were passed, in order."""
        return [entry.step for entry in self.journal if entry.kind == "step"]

    @property
    def exits(self) -> list[str]:
        """Why runs have ended, in order."""
        return [entry.reason for entry in self.journal if entry.kind == "exited"]

    @property
    def goals(self) -> list[str]:
        return [entry.journey for entry in self.journal if entry.kind == "goal"]

    def reasons(self, kind: str) -> list[str]:
        """The reasons given in the journal for one kind of entry, such as "blocked" or "not_entered"."""
        return [entry.reason for entry in self.journal if entry.kind == kind]


Simulate = Callable[..., SimulatedUser]


def simulate(
    *definitions: Journey | Policy, now: datetime = BEGIN, user_id: str = "u1", **profile: Any
) -> SimulatedUser:
    """Return a user, reachable on every channel unless the profile says otherwise (`email=None`)."""
    return SimulatedUser(*definitions, user_id=user_id, now=now, profile=profile)
