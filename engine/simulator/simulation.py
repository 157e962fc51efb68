"""What the users of one simulation share: definitions, a clock, quotas, and how people take messages.

Time passes in jumps: from one thing that is due for anybody to the next. A user for whom nothing is due costs nothing, so a
thousand people who wait for a month are a thousand jumps.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Literal

from engine.catalog import Catalog, schedule_of
from engine.durations import milliseconds
from engine.journey import Journey
from engine.policy import Policy
from engine.reactions import Reactions
from engine.simulator.coverage import Coverage
from schemas.inputs import Entered, UserInput
from schemas.outputs import Message
from schemas.state import Quota

if TYPE_CHECKING:
    from engine.simulator.user import SimulatedUser

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_AT_ONCE = 1000  # jumps per user that take no time: what gives rise to more never ends


class Simulation:
    """One clock and everybody who lives by it."""

    def __init__(
        self,
        definitions: Iterable[Journey | Policy],
        tenant: str,
        now: datetime,
        reactions: Reactions | None = None,
        coverage: Coverage | None = None,
        shadow: Journey | None = None,
    ) -> None:
        self.tenant = tenant
        self.now_ms = milliseconds(now - EPOCH)
        self.reactions = reactions
        self.coverage = coverage
        self.catalog = Catalog()
        self.quotas: dict[str, Quota] = {}
        self.users: list[SimulatedUser] = []
        self.people: dict[str, SimulatedUser] = {}  # by their id
        self._timers: list[tuple[int, int]] = []  # when, whose; one that is no longer true is passed over
        self._arrivals: list[tuple[int, int, int, UserInput]] = []  # when, ticket, whose, what
        self._campaigns: dict[str, int] = {}  # journey -> when its schedule comes next
        self._tickets = 0
        for definition in definitions:
            self._activate(definition, 0)
        if shadow is not None:
            self.catalog = self.catalog.with_shadow(tenant, shadow, self.now_ms)

    @property
    def now(self) -> datetime:
        return EPOCH + timedelta(milliseconds=self.now_ms)

    # Definitions

    def publish(self, definition: Journey | Policy) -> None:
        """Make a definition current now, and let everybody know. What was due before is the version's before."""
        self._sweep()
        self._activate(definition, self.now_ms)
        self._wake_everybody()

    def control(self, journey: str, action: Literal["pause", "resume", "stop", "retire"]) -> None:
        """Pause, resume, stop or retire a journey now, and let everybody know."""
        self.catalog = self.catalog.control(self.tenant, journey, action, self.now_ms)
        self._wake_everybody()

    def shadow(self, journey: Journey | str) -> None:
        """Let a version run as a shadow from now on; or, given a name, let that journey's shadow end."""
        if isinstance(journey, str):
            self.catalog = self.catalog.without_shadow(self.tenant, journey)
        else:
            self.catalog = self.catalog.with_shadow(self.tenant, journey, self.now_ms)
        self._wake_everybody()

    def _activate(self, definition: Journey | Policy, at: int) -> None:
        if isinstance(definition, Policy):
            self.catalog = self.catalog.activate_policy(self.tenant, definition)
            return
        journey = definition if self.coverage is None else self.coverage.watched(definition)
        self.catalog = self.catalog.activate(self.tenant, journey, at)
        schedule = schedule_of(journey)
        self._campaigns.pop(journey.name, None)
        if schedule is not None:
            self._campaigns[journey.name] = schedule.next_time(self.now_ms)[0]

    def _wake_everybody(self) -> None:
        for user in self.users:
            user.wake_up()
            user.plan()

    # People

    def join(self, user: "SimulatedUser") -> int:
        """Let a user take part. Return their number."""
        self.users.append(user)
        self.people.setdefault(user.user_id, user)
        return len(self.users) - 1

    def expect(self, user: "SimulatedUser", at: int) -> None:
        """Remember when a user's next timer is due."""
        heappush(self._timers, (at, user.number))

    def deliver(self, user: "SimulatedUser", message: Message, nth: int) -> None:
        """Let what becomes of a message be heard when it is time."""
        if self.reactions is None:
            return
        for at, receipt in self.reactions.to(message, nth):
            self._tickets += 1  # of two at the same time, first the one that was there first
            heappush(self._arrivals, (at, self._tickets, user.number, receipt))

    # Time

    def wait(self, until: int) -> None:
        """Let time pass for everybody: each timer, receipt and schedule on the way at its own time."""
        jumps_at_once = 0
        while (due := self._first_due()) is not None and due[0] <= until:
            at, number = due
            jumps_at_once = 0 if at > self.now_ms else jumps_at_once + 1
            if jumps_at_once > MAX_AT_ONCE * (len(self.users) + 1):
                raise AssertionError(f"at {self.now} there is always something due: {self.users[number].story()}")
            self.now_ms = max(self.now_ms, at)
            if number == ARRIVAL:
                self._let_arrive()
            elif number == CAMPAIGN:
                self._sweep()
            else:
                heappop(self._timers)
                self.users[number].fire()
        self.now_ms = max(self.now_ms, until)

    def sleep(self, until: int) -> None:
        """Let time pass without wake-ups and schedules, as while a worker is down: what comes from outside still comes."""
        while self._arrivals and self._arrivals[0][0] <= until:
            self.now_ms = max(self.now_ms, self._arrivals[0][0])
            self._let_arrive()
        self.now_ms = max(self.now_ms, until)

    def _first_due(self) -> tuple[int, int] | None:
        """Return when the next jump leads where, and whose timer is due then, or ARRIVAL, or CAMPAIGN; timers come first."""
        timers = self._timers
        while timers and self.users[timers[0][1]].due_at_ms != timers[0][0]:
            heappop(timers)
        first = timers[0] if timers else None
        if self._campaigns and (first is None or min(self._campaigns.values()) < first[0]):
            first = (min(self._campaigns.values()), CAMPAIGN)
        if self._arrivals and (first is None or self._arrivals[0][0] < first[0]):
            first = (self._arrivals[0][0], ARRIVAL)
        return first

    def _let_arrive(self) -> None:
        _, _, number, input = heappop(self._arrivals)
        self.users[number].give(input)

    def _sweep(self) -> None:
        """Go through everybody for the schedules that have come."""
        for name, due_at in self._campaigns.items():
            schedule = schedule_of(self.catalog.of(self.tenant, name))
            if due_at > self.now_ms or schedule is None:
                continue
            fired_at, local, self._campaigns[name] = schedule.catch_up(due_at, self.now_ms)
            if fired_at is not None and self.catalog.admits(self.tenant, name):
                entered = Entered(f"{name}@{fired_at}", name, "schedule", {}, local)
                for user in self.users:
                    user.give(entered)


ARRIVAL, CAMPAIGN = -1, -2  # in place of a user's number
