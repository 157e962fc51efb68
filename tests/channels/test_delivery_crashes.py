"""The whole loop under crashes: each story of answers, power cuts and pauses keeps the promise about sending twice."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.channels.delivery import ChannelPartition
from engine.errors import PermanentFailure, TemporaryFailure, UnknownOutcome
from schemas.outputs import Message
from tests.channels.stage import HELLO, HOUR, T0, Provider, Stage, command, until

ANSWERS = st.sampled_from(["accept", "later", "unknown", "refuse", "crash"])


class Scripted(Provider):
    """Answers as the script says; `crash` hangs until the machine is gone."""

    def __init__(self, stage: Stage, script: list[str], idempotent: bool) -> None:
        super().__init__(idempotent)
        self.stage, self.script = stage, script
        self.arrivals = 0
        self.called_at: list[int] = []
        self.hangs = asyncio.Event()

    async def deliver(self, message: Message, content: str) -> str:
        self.calls.append(message.id)
        self.called_at.append(self.stage.clock())
        answer = self.script.pop(0) if self.script else "accept"
        if answer in ("accept", "unknown", "crash"):
            self.arrivals += 1
        if answer == "crash":
            self.hangs.set()
            await asyncio.Event().wait()
        if answer == "later":
            raise TemporaryFailure("busy")
        if answer == "refuse":
            raise PermanentFailure("no")
        if answer == "unknown":
            raise UnknownOutcome("lost")
        return "ok"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(ANSWERS, max_size=6),
    st.booleans(),
    st.booleans(),
    st.integers(1, HOUR),
    st.booleans(),
    st.booleans(),
)
def test_whatever_happens_a_marketing_message_is_not_sent_twice(
    script: list[str], transactional: bool, idempotent: bool, lifetime: int, asked_twice: bool, cut_at_the_end: bool
) -> None:
    asyncio.run(_play(script, transactional, idempotent, lifetime, asked_twice, cut_at_the_end))


async def _play(
    script: list[str], transactional: bool, idempotent: bool, lifetime: int, asked_twice: bool, cut_at_the_end: bool
) -> None:
    stage = Stage()
    await stage.publish(HELLO)
    provider = Scripted(stage, list(script), idempotent)
    message = command(transactional=transactional, expires_at=T0 + lifetime)
    await stage.ask(*[message] * (1 + asked_twice))
    crashes = 0
    while True:
        provider.hangs.clear()
        partition = stage.partition(provider, drain_seconds=0.01)  # a call that hangs goes with the machine
        task = asyncio.create_task(partition.run())
        await _settle(stage, provider, partition)
        if not provider.hangs.is_set() and not cut_at_the_end:
            break
        cut_at_the_end = cut_at_the_end and provider.hangs.is_set()
        crashes += provider.hangs.is_set()
        old_host = stage.host
        await stage.crash()
        partition.stop()
        await asyncio.gather(task, old_host.close(), return_exceptions=True)
    if asked_twice:
        await stage.ask(message)
    partition.stop()
    await task

    receipts = [status for _, status in stage.receipts()]
    if not (transactional or idempotent):
        assert provider.arrivals <= 1
    assert all(at < message.expires_at for at in provider.called_at)
    assert receipts, "it ended silently"
    if crashes or "unknown" in script[: len(provider.calls)]:
        assert "unknown" in receipts
    await stage.close()


async def _settle(stage: Stage, provider: Scripted, partition: ChannelPartition) -> None:
    """Let time pass until the message is done with, or a call hangs."""

    def is_settled() -> bool:
        if provider.hangs.is_set():
            return True
        due_at = partition._ledger.next_due_at()
        if due_at is not None:
            stage.clock.now = max(stage.clock.now, due_at)
            partition._nudge()
            return False
        return not partition._calls and partition._ledger._store.get(b"sshop/r1:1") is not None

    await until(is_settled)
