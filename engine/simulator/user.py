"""One simulated user: whatever can happen to them, and what came of it."""

from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from engine.actor import Handled, earliest_due, handle
from engine.catalog import Catalog
from engine.durations import milliseconds
from engine.journey import Journey
from engine.local_time import zone
from engine.policy import Policy, zone_name
from engine.quotas import ask
from engine.reactions import Reactions
from engine.simulator.simulation import EPOCH, Simulation
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
MAX_TOLD = 60  # lines of a story
REACHABLE = {"email": "user@example.com", "phone": "+15550100", "push_token": "token"}
KEPT_BACK = {"blocked": "not sent", "held": "held", "not_entered": "not entered", "suspended": "suspended"}


class Folded(Struct, frozen=True):
    """An input as it was folded: when, with which definitions, and what was sent for it."""

    at: int
    catalog: Catalog
    input: UserInput
    messages: list[Message]


class SimulatedUser:
    """One user and the journeys that concern them."""

    def __init__(
        self,
        *definitions: Journey | Policy,
        user_id: str = "u1",
        tenant: str = "test",
        now: datetime = BEGIN,
        profile: Mapping[str, Any] | None = None,
        reactions: Reactions | None = None,
        simulation: Simulation | None = None,
    ) -> None:
        """With a `simulation` the user joins it, and definitions, tenant, time and reactions are its."""
        attributes = {name: value for name, value in {**REACHABLE, **(profile or {})}.items() if value is not None}
        self.simulation = simulation or Simulation(definitions, tenant, now, reactions)
        self.user_id = user_id
        self.number = self.simulation.join(self)
        self.older = b""
        self.messages: list[Message] = []
        self.journal: list[JournalEntry] = []
        self.shadowed: list[JournalEntry] = []  # what would have happened to runs of a shadow
        self.log: list[Folded] = []  # everything that was folded
        self.due_at_ms: int | None = None  # when the next timer is due
        self._state = self.first_state = User(profile=attributes)
        self._places: dict[str, str] = {}  # run -> the step it came to last
        self._heard: dict[str, int] = {}  # channel:template -> how many so far
        self._events = 0

    # What happens

    def event(
        self, name: str, /, *, message_id: str | None = None, occurred: datetime | None = None, **properties: Any
    ) -> None:
        """An event arrives now. `occurred` is when it happened, if that was earlier; `message_id` repeats an event."""
        occurred_at = self.now_ms if occurred is None else milliseconds(occurred - EPOCH)
        self.give(Event(message_id or self._next_id(), name, occurred_at, properties))

    def identify(self, **profile: Any) -> None:
        """The user's attributes change; None removes one."""
        self.give(Event(self._next_id(), "identify", self.now_ms, {}, profile))

    def receipt(self, step: str, status: ReceiptStatus, answer: dict[str, Any] | None = None) -> None:
        """Something became of the last message that a step asked for; a Call may be given an `answer`."""
        sent = [message for message in self.messages if message.step == step]
        if not sent:
            raise AssertionError(f"{step!r} has sent nothing so far; sent were {self.sent}")
        self.give(Receipt(sent[-1].id, status, self.now_ms, sent[-1].channel, answer=answer or {}))

    def wait(self, duration: timedelta) -> None:
        """Let time pass, for everybody in the simulation: what is due on the way happens at its own time."""
        self.simulation.wait(self.now_ms + milliseconds(duration))

    def sleep(self, duration: timedelta) -> None:
        """Let time pass while the worker is down: no timer fires until the next input comes."""
        self.simulation.sleep(self.now_ms + milliseconds(duration))

    def wake_up(self) -> None:
        """A wake-up comes, whether or not anything is due."""
        self.give(WakeUp(self.now_ms))

    def resume(self, run: str) -> None:
        """An operator lets a suspended run go on."""
        self.give(Resumed(run))

    def enter(self, journey: str, **properties: Any) -> None:
        """Somebody asks by API that the user enter a journey."""
        self.give(Entered(self._next_id(), journey, "api", properties))

    def erase(self) -> None:
        """The user asks to be forgotten."""
        self.give(Erased(f"erase-{self.now_ms}"))

    def visitor(self, user_id: str = "anon:1", **profile: Any) -> "SimulatedUser":
        """Return somebody else in the same simulation of whom nothing is known, not even an address."""
        unknown = dict.fromkeys(REACHABLE)
        return SimulatedUser(user_id=user_id, profile={**unknown, **profile}, simulation=self.simulation)

    def becomes(self, user: "SimulatedUser", **profile: Any) -> None:
        """This visitor logs in: from here on they are that user, of whom `profile` is told (see docs/identities.md)."""
        user.give(Event(user._next_id(), "identify", self.now_ms, {}, profile, (self.user_id,)))

    def publish(self, definition: Journey | Policy) -> None:
        """A new version, another journey, or a policy becomes active, for everybody in the simulation."""
        self.simulation.publish(definition)

    def control(self, journey: str, action: Literal["pause", "resume", "stop", "retire"]) -> None:
        """An operator pauses, resumes, stops or retires a journey, for everybody in the simulation."""
        self.simulation.control(journey, action)

    def shadow(self, journey: Journey | str) -> None:
        """A version runs beside the active one from now on, unseen; a name ends that journey's shadow."""
        self.simulation.shadow(journey)

    def give(self, input: UserInput) -> Handled:
        """Fold one input at the present time, then what steps and quotas give back, one after the other."""
        handled = self._fold(input)
        given = deque(handled.inputs)
        for _ in range(MAX_GIVEN_BACK):
            if not given:
                break
            key, input_back = given.popleft()
            if isinstance(input_back, Asked):
                self.quotas[key], granted = ask(self.quotas.get(key, Quota()), input_back, self.now_ms)
                given += self._person(f"{self.tenant}:{input_back.user}")._fold(granted).inputs
            elif not isinstance(input_back, Activated | Controlled | Swept):
                given += self._person(key)._fold(input_back).inputs
        return handled

    def fire(self) -> None:
        """Let the timers that are due now fire, as the wake-up does that a worker writes for a silent user."""
        due_at = self.due_at_ms
        assert due_at is not None
        self.give(WakeUp(due_at))
        if self.due_at_ms == due_at:
            raise AssertionError(f"a timer was due and didn't fire: {self.story()}")

    def plan(self) -> None:
        """Look again when the next timer is due: something else than an input has changed that."""
        self.due_at_ms = earliest_due(self._state, self.catalog, self.tenant)
        if self.due_at_ms is not None:
            self.simulation.expect(self, self.due_at_ms)

    def _person(self, key: str) -> "SimulatedUser":
        """Return whose key it is. Who isn't there yet is somebody of whom nothing is known."""
        user_id = key.partition(":")[2]
        if user_id == self.user_id:
            return self
        return self.simulation.people.get(user_id) or self.visitor(user_id)

    def _fold(self, input: UserInput) -> Handled:
        simulation, before = self.simulation, self._state
        catalog, now = simulation.catalog, simulation.now_ms
        handled = handle(catalog, simulation.tenant, self.user_id, before, input, now, self.older)
        self.log.append(Folded(now, catalog, input, list(handled.messages)))
        self._state, self.older = handled.user, handled.older
        self.journal += handled.journal
        self.shadowed += handled.shadowed
        if handled.user is not before:
            self.plan()
        for message in handled.messages:
            self.messages.append(message)
            what = _what(message)
            nth = self._heard[what] = self._heard.get(what, 0) + 1
            simulation.deliver(self, message, nth)
        if simulation.coverage is not None:
            simulation.coverage.note(handled.journal, catalog, self._places)
        return handled

    def _next_id(self) -> str:
        self._events += 1
        return f"e{self._events}" if self.number == 0 else f"e{self._events}.{self.number}"  # who may be one person

    # What came of it

    @property
    def sent(self) -> list[str]:
        """The messages asked for so far, as "channel:template"."""
        return [_what(message) for message in self.messages]

    @property
    def shadow_sent(self) -> list[str]:
        """The messages that a shadow would have asked for so far, as "channel:template"."""
        return [_asked(entry) for entry in self.shadowed if entry.kind == "sent"]

    @property
    def timeline(self) -> list[tuple[datetime, str]]:
        """The messages asked for so far and when, on the user's own clock at that time."""
        return [(_shown(message.requested_at, self._zone(message)), _what(message)) for message in self.messages]

    def sent_at(self, what: str) -> list[datetime]:
        """When a message ("email:hello") was asked for, each time, on the user's own clock."""
        return [at for at, sent in self.timeline if sent == what]

    @property
    def why_not(self) -> list[str]:
        """Why messages were held or not sent, runs not begun or suspended, in order: "welcome tips not sent: late"."""
        return [_told(entry) for entry in self.journal if entry.kind in KEPT_BACK]

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
        """The journeys whose goal was reached, in order, once for each run."""
        return [entry.journey for entry in self.journal if entry.kind == "goal"]

    def reasons(self, kind: str) -> list[str]:
        """The reasons given in the journal for one kind of entry, such as "blocked" or "not_entered"."""
        return [entry.reason for entry in self.journal if entry.kind == kind]

    def story(self) -> str:
        """Tell what happened, a line for each entry of the journal, on the user's own clock."""
        lines = [f"{self._clock(entry.at)}  {_told(entry)}" for entry in self.journal]
        left_out = [f"... {len(lines) - MAX_TOLD} earlier lines"] if len(lines) > MAX_TOLD else []
        return "\n".join([*left_out, *lines[-MAX_TOLD:], f"{self._clock(self.now_ms)}  now{self._whereabouts()}"])

    def __repr__(self) -> str:
        return f"<SimulatedUser {self.user_id}, {len(self.runs)} live runs, sent {self.sent}>"

    def _whereabouts(self) -> str:
        return "".join(f"; {run.journey} v{run.version} is at {run.step}" for run in self.runs)

    def _zone(self, message: Message) -> ZoneInfo:
        return zone(zone_name(self.catalog.policy_of(self.tenant), message.profile or self.profile))

    def _clock(self, at: int) -> str:
        where = zone(zone_name(self.catalog.policy_of(self.tenant), self.profile))
        return f"{_shown(at, where):%Y-%m-%d %H:%M:%S}"

    # What is so

    @property
    def now(self) -> datetime:
        return self.simulation.now

    @property
    def tenant(self) -> str:
        return self.simulation.tenant

    @tenant.setter
    def tenant(self, tenant: str) -> None:
        self.simulation.tenant = tenant

    @property
    def state(self) -> User:
        """What a store would hold for the user."""
        return self._state

    @state.setter
    def state(self, state: User) -> None:
        self._state = self.first_state = state
        self.log.clear()
        self.plan()

    @property
    def profile(self) -> dict[str, Any]:
        return self._state.profile

    @property
    def runs(self) -> tuple[Run, ...]:
        """The live runs, oldest first."""
        return self._state.runs

    @property
    def now_ms(self) -> int:
        return self.simulation.now_ms

    @now_ms.setter
    def now_ms(self, now_ms: int) -> None:
        self.simulation.now_ms = now_ms

    @property
    def catalog(self) -> Catalog:
        return self.simulation.catalog

    @catalog.setter
    def catalog(self, catalog: Catalog) -> None:
        self.simulation.catalog = catalog
        self.plan()

    @property
    def quotas(self) -> dict[str, Quota]:
        return self.simulation.quotas

    @quotas.setter
    def quotas(self, quotas: dict[str, Quota]) -> None:
        self.simulation.quotas = quotas


def _what(message: Message) -> str:
    return f"{message.channel}:{message.template.partition('@')[0]}"


def _asked(entry: JournalEntry) -> str:
    return f"{entry.detail['channel']}:{entry.detail['template'].partition('@')[0]}"


def _told(entry: JournalEntry) -> str:
    words = [entry.journey, entry.step if entry.kind != "entered" else "", KEPT_BACK.get(entry.kind, entry.kind)]
    told = " ".join(word for word in words if word)
    if entry.kind == "sent":
        told += f" {_asked(entry)}"
    if entry.reason:
        told += f": {entry.reason}"
    return told if not entry.cause else f"{told}  ({entry.cause})"


def _shown(at: int, where: ZoneInfo) -> datetime:
    return (EPOCH + timedelta(milliseconds=at)).astimezone(where)
