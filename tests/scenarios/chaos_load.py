"""What is sent during a round of chaos: a crowd with one very busy user, giants, poison and rubbish, and a shop over HTTP.

hot      every fifth event is the hot user's
hoard    one user's state outgrows a megabyte: 256 conditions, each with the last 256 times it held
poison   journeys that loop without waiting, and are suspended; records that nobody can read
large    profiles that grow to their limit, so that a batch of changed states is larger than its topic takes
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from engine.runtime.kafka.topics import changelog_name, topic_name
from engine.runtime.settings import Kafka
from schemas.inputs import Event
from tests.kafka.cluster import configure
from tests.scenarios.kafka_cluster import Load
from tests.scenarios.tale import Sender, write_journeys

LARGE_ATTRIBUTE_CHARACTERS = 9_000  # six of them nearly fill a profile
HOARDED_AT_ONCE = 256  # as many as are remembered: from then on the state has its full size
# Above the largest single record there, and far below a batch of a thousand.
TIGHT_STATES_BYTES, TIGHT_OUTPUTS_BYTES = 200_000, 100_000
PACE_SECONDS = 0.1
SHOP = "web"
RUBBISH = (
    b"{rubbish",
    b"",
    b"[]",
    b'{"type":"event"}',
    b"\xff\xfe",
    b'{"type":"event","id":"x","name":"' + b"n" * 5000,
)

HOARD = '''"""Remembers far too much of whoever hoards."""

from engine import Branch, Exit, Journey, days, did, on, where

REMEMBERED = [did(on("hoarded", where("number", ">", -each)), at_least=256, within=days(1)) for each in range(256)]

journey = Journey(
    name="hoard",
    version=1,
    entry=on("hoarded"),
    start="look",
    steps={"look": Branch([(each, "done") for each in REMEMBERED], otherwise="done"), "done": Exit()},
)
'''

POISON = '''"""Passes every check, and loops without waiting: nobody can walk through it."""

from engine import Exit, Journey, WaitFor, days, on, profile

HOLDS = profile("poison", "==", 1)

journey = Journey(
    name="poison",
    version=1,
    entry=on("poisoned"),
    start="one",
    steps={
        "one": WaitFor(HOLDS, timeout=days(1), then="other", on_timeout="done"),
        "other": WaitFor(HOLDS, timeout=days(1), then="one", on_timeout="done"),
        "done": Exit(),
    },
)
'''


@dataclass(frozen=True)
class Weather:
    """What a round's events are like, apart from what all rounds have."""

    hoards: bool = False
    is_tight: bool = False

    def told(self) -> list[str]:
        """Name all of it."""
        told = ["one user with a fifth of all events", "poisoned runs", "records nobody can read"]
        if self.hoards:
            told.append("a state of more than a megabyte")
        if self.is_tight:
            told.append("batches over max.message.bytes")
        return told


def write_chaos_journeys(folder: Path) -> Path:
    """Write the journeys of a round; return the folder."""
    write_journeys(folder)
    (folder / "hoard.py").write_text(HOARD)
    (folder / "poison.py").write_text(POISON)
    return folder


async def tighten(settings: Kafka, weather: Weather) -> None:
    """Let the topics take only small batches, if the round is to have it so."""
    if weather.is_tight:
        topics = [(topic_name(settings, topic), TIGHT_OUTPUTS_BYTES) for topic in ("messages.email", "journal")]
        if not weather.hoards:
            topics.append((changelog_name(settings, "users"), TIGHT_STATES_BYTES))
        for topic, octets in topics:
            await configure(settings, topic, {"max.message.bytes": str(octets)})


class WildLoad(Load):
    """The crowd, written to `events` as any producer may."""

    def __init__(self, settings: Kafka, chance: Random, weather: Weather) -> None:
        self._weather = weather
        super().__init__(settings, chance)

    def _acts(self, number: int) -> list[tuple[str, bytes | Event]]:
        chance, now = self._chance, time.time_ns() // 1_000_000
        acts = super()._acts(number)
        if chance.random() < 0.65:
            acts.append(("hot", Event(f"hot-{number}", "pinged", now)))
        if chance.random() < 0.03:
            large = {f"attribute_{chance.randrange(8)}": "x" * LARGE_ATTRIBUTE_CHARACTERS}
            acts.append((f"u{chance.randrange(20)}", Event(f"large-{number}", "identify", now, {}, large)))
        if chance.random() < 0.01:
            acts.append((f"poisoned-{number}", Event(f"poison-{number}", "poisoned", now, {}, {"poison": 1})))
        if chance.random() < 0.03:
            acts.append((f"u{chance.randrange(number + 1)}", chance.choice(RUBBISH)))
        if self._weather.hoards and (number == 0 or chance.random() < 0.01):
            times = HOARDED_AT_ONCE if number == 0 else 1
            acts += [("hoarder", Event(f"hoard-{number}-{n}", "hoarded", now, {"number": 1})) for n in range(times)]
        return acts


@dataclass(frozen=True)
class Answer:
    """One HTTP request: when it was begun and answered (seconds, monotonic), and with what; 0: no answer came."""

    began: float
    ended: float
    status: int


@dataclass
class Shop(Sender):
    """A customer of the ingress, which repeats a batch until it is acknowledged, and remembers every answer."""

    answers: list[Answer] = field(default_factory=list)

    async def _is_taken(self, session: aiohttp.ClientSession, batch: list[dict[str, Any]]) -> bool:
        began, status = time.monotonic(), 0
        try:
            async with session.post(f"{self.url}/v1/batch", json={"batch": batch}) as answer:
                await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            pass
        self.answers.append(Answer(began, time.monotonic(), status))
        await asyncio.sleep(PACE_SECONDS)
        return status == 200

    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    def complaints(self, outages: Sequence[tuple[float, float]]) -> list[str]:
        """Say which answers were none an ingress may give. `outages`: from when till when no broker ran."""
        found = [
            f"the ingress answered {status}" for status in sorted(self.statuses()) if status not in (0, 200, 429, 503)
        ]
        for down_at, up_at in outages:
            for answer in self.answers:
                if answer.status == 200 and down_at <= answer.began and answer.ended <= up_at:
                    found.append(f"a 200 after {answer.began - down_at:.2f} s without a broker")
        return found
