"""One partition of users on the host in memory, and what a test does to it and sees of it."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from engine.actor import NOBODY
from engine.definitions import freeze, freeze_policy
from engine.journey import Journey
from engine.policy import Policy
from engine.runtime import states
from engine.runtime.metrics import Metrics
from engine.runtime.partition import UserPartition
from schemas.definitions import Definition
from schemas.inputs import Activated, Controlled, Erased, Event, Resumed, UserInput, WakeUp
from schemas.journal import read_entries
from schemas.outputs import JournalEntry, Message
from schemas.records import Headers, Record
from schemas.state import User
from tests.runtime.memory_host import MemoryDefinitions, MemoryLog, MemoryPartition

TENANT = "shop"
PATIENCE_SECONDS = 10


class Stage:
    """The log, one partition of it, and the loop on it. Records go in with `event` and `put`; `play` folds them."""

    def __init__(self, count: int = 1, number: int = 0) -> None:
        self.log = MemoryLog(count)
        self.definitions = MemoryDefinitions()
        self.metrics = Metrics()
        self.host = MemoryPartition(self.log, number)
        self.users = self._open()
        self._events = 0

    # What is put into the log

    def publish(self, journey: Journey, arrives: bool = True, tenant: str = TENANT) -> Definition:
        """Activate a journey; `arrives=False` keeps its body back."""
        *templates, frozen = freeze(tenant, journey, {name: {"text": name} for name in journey.template_names()})
        for definition in [*templates, frozen] if arrives else []:
            self.definitions.arrive(definition)
        self.activate(frozen)
        return frozen

    def publish_policy(self, policy: Policy) -> Definition:
        frozen = freeze_policy(TENANT, policy)
        self.definitions.arrive(frozen)
        self.activate(frozen)
        return frozen

    def control(self, journey: str, action: Literal["pause", "resume", "stop", "retire"]) -> None:
        """An operator does this to a journey."""
        controlled = Controlled(TENANT, journey, action)
        self.log.add("events", None, msgspec.json.encode(controlled), partition=self.host.number)

    def activate(self, definition: Definition) -> None:
        activated = Activated(definition.tenant, definition.kind, definition.name, definition.version, definition.hash)
        self.log.add("events", None, msgspec.json.encode(activated), partition=self.host.number)

    def event(
        self, user: str, name: str, id: str | None = None, profile: dict[str, Any] | None = None, headers: Headers = (),
        **properties: Any,
    ) -> Record:  # fmt: skip
        self._events += 1
        return self.give(user, Event(id or f"e{self._events}", name, self.log.now, properties, profile or {}), headers)

    def give(self, user: str, input: UserInput, headers: Headers = ()) -> Record:
        return self.put(f"{TENANT}:{user}".encode(), msgspec.json.encode(input), headers)

    def resume(self, user: str, run: str) -> None:
        """An operator lets a suspended run go on."""
        self.give(user, Resumed(run))

    def erase(self, user: str) -> None:
        self.give(user, Erased(f"erase {user}"))

    def put(self, key: bytes | None, value: bytes | None, headers: Headers = ()) -> Record:
        """Append a record to the partition as a producer would, whatever is in it."""
        return self.log.add("events", key, value, headers, self.host.number)

    def pass_time(self, milliseconds: int) -> None:
        self.log.now += milliseconds

    def wake_the_due(self) -> None:
        """Append a wake-up for every actor that is due, as a host does."""
        for actor, due_at in sorted(self.host.timers.items(), key=lambda timer: (timer[1], timer[0])):
            if due_at <= self.log.now:
                self.put(actor, msgspec.json.encode(WakeUp(due_at)))

    # What happens

    async def play(self) -> None:
        """Fold everything that is in the log, also what is appended on the way. Raises what the loop raises."""
        task = asyncio.create_task(self.users.run())
        await self.until_idle(task)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def until_idle(self, task: "asyncio.Task[None]") -> None:
        self.host.is_idle.clear()
        self.host.wake()
        idle = asyncio.create_task(self.host.is_idle.wait())
        try:
            await asyncio.wait({task, idle}, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()
        if task.done():
            task.result()
        assert self.host.is_idle.is_set(), "the loop did not come to the end of the log"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the others run until something is the case."""
        for _ in range(1000):
            if condition():
                return
            await asyncio.sleep(0)
        raise AssertionError("it did not come to pass")

    def restart(self) -> None:
        """The process dies and another one takes the partition over."""
        self.host = self.host.reopen()
        self.users = self._open()

    def _open(self) -> UserPartition:
        return UserPartition(self.host, self.definitions, self.metrics, clock=lambda: self.log.now)

    # What can be seen

    def user(self, user: str) -> User:
        raw = self.host.store.get(states.USER + f"{TENANT}:{user}".encode())
        return NOBODY if raw is None else states.decode_user(raw)

    def step(self, user: str) -> str | None:
        """Where the user's only run waits; None if there is none."""
        runs = self.user(user).runs
        assert len(runs) < 2
        return runs[0].step if runs else None

    def messages(self, user: str | None = None) -> list[Message]:
        found = [
            msgspec.json.decode(record.value or b"", type=Message)
            for topic in self.log.topics()
            if topic.startswith("messages.")
            for record in self.log.of(topic)
        ]
        return [message for message in found if user is None or message.user == user]

    def sent(self, user: str | None = None) -> list[str]:
        return [message.template.partition("@")[0] for message in self.messages(user)]

    def journal(self, kind: str | None = None) -> list[JournalEntry]:
        entries = [entry for record in self.log.of("journal") for entry in read_entries(record.value)]
        return [entry for entry in entries if kind is None or entry.kind == kind]

    def reason(self, record: Record) -> str:
        """Why a record was parked."""
        return dict(record.headers)["dlq-reason"].decode()

    def counted(self, name: str, **labels: str) -> float:
        """What a counter has come to."""
        return self.metrics.registry.get_sample_value(f"equeengage_{name}_total", labels) or 0
