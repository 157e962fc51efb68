"""The journeys of the crash tests, and a shop's customers who send events as an SDK does: the same batch again until a 2xx.

Half of them look around before they log in, so that what their device has is merged into them while everything crashes.

note    whoever signs up gets a welcome at once, and one reminder unless they answer within the patience
pulse   each ping is entered and left at once: its journal entries count the pings
"""

import asyncio
import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

TENANT = "shop"
WRITE_KEY = "a-key-of-the-shop"
AUTHORIZED = {"Authorization": "Basic " + base64.b64encode(f"{WRITE_KEY}:".encode()).decode()}
PATIENCE_MS = 1500
HIGHEST_PACE_SECONDS = 0.02  # between the batches of one sender: a few hundred events a second in all

NOTE = f'''"""Welcome whoever signs up, and remind once who does not answer."""

from engine import Exit, Journey, Send, WaitFor, on, seconds

journey = Journey(
    name="note",
    version=1,
    entry=on("signed_up"),
    start="welcome",
    steps={{
        "welcome": Send("email", template="welcome", then="patience"),
        "patience": WaitFor(on("answered"), timeout=seconds({PATIENCE_MS / 1000}), then="done", on_timeout="remind"),
        "remind": Send("email", template="reminder", then="done"),
        "done": Exit(),
    }},
)
'''

PULSE = '''"""Count pings."""

from engine import Exit, Journey, always, on

journey = Journey(name="pulse", version=1, entry=on("pinged"), reentry=always, start="done", steps={"done": Exit()})
'''


def write_journeys(folder: Path) -> Path:
    """Write both journeys with their templates; return the folder. The subject of each mail is its command's id."""
    (folder / "templates").mkdir(parents=True)
    (folder / "note.py").write_text(NOTE)
    (folder / "pulse.py").write_text(PULSE)
    for template in ("welcome", "reminder"):
        (folder / "templates" / f"{template}.subject.txt").write_text("{{ message.id }}")
        (folder / "templates" / f"{template}.txt").write_text(f"This is the {template}.")
    return folder


def seed() -> int:
    """Return the seed of this run, printed so that it can be given again as EQUEENGAGE_TEST_SEED."""
    given = os.environ.get("EQUEENGAGE_TEST_SEED")
    chosen = int(given) if given else int.from_bytes(os.urandom(4))
    print(f"EQUEENGAGE_TEST_SEED={chosen}")
    return chosen


@dataclass
class Sender:
    """One client with customers of its own. `acknowledged` holds the ids that were answered with a 2xx."""

    name: str
    url: str
    chance: Random
    acknowledged: list[str] = field(default_factory=list)
    repeated: int = 0  # batches sent again because no 2xx came

    async def run(self, stop: asyncio.Event) -> None:
        """Send until asked to stop, and then until the last batch is acknowledged."""
        batches = self._batches()
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(headers=AUTHORIZED, timeout=timeout) as session:
            while not stop.is_set():
                batch = next(batches)
                while not await self._is_taken(session, batch):
                    self.repeated += 1
                    await asyncio.sleep(0.05)
                self.acknowledged += [call["messageId"] for call in batch]
                await asyncio.sleep(self.chance.random() * HIGHEST_PACE_SECONDS)

    async def _is_taken(self, session: aiohttp.ClientSession, batch: list[dict[str, Any]]) -> bool:
        try:
            async with session.post(f"{self.url}/v1/batch", json={"batch": batch}) as answer:
                await answer.read()
                assert answer.status in (200, 429, 500, 503), f"{answer.status}: {await answer.text()}"
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            return False

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        ids = (f"{self.name}-{number}" for number in count())
        customers: list[str] = []
        for number in count():
            customer = f"{self.name}.{number}"
            customers.append(customer)
            known: dict[str, Any] = {"userId": customer}
            calls: list[dict[str, Any]] = []
            if self.chance.random() < 0.5:  # they looked around before, on the device on which they log in now
                known["anonymousId"] = f"{customer}.device"
                calls += [self._ping(f"{customer}.device", "anonymousId") for _ in range(self.chance.randrange(4))]
            calls += [
                {"type": "identify", **known, "traits": {"email": f"{customer}@shop.test"}},
                {"type": "track", "userId": customer, "event": "signed_up"},
            ]
            for _ in range(self.chance.randrange(6)):
                other = self.chance.choice(customers[-20:])
                is_logged_in = self.chance.random() < 0.7
                calls.append(self._ping(other) if is_logged_in else self._ping(f"{other}.device", "anonymousId"))
            if self.chance.random() < 0.5:
                calls.append({"type": "track", "userId": self.chance.choice(customers[-20:]), "event": "answered"})
            yield [{**call, "messageId": next(ids)} for call in calls]

    @staticmethod
    def _ping(who: str, by: str = "userId") -> dict[str, Any]:
        return {"type": "track", by: who, "event": "pinged"}
