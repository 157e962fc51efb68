"""A machine that forgets what was not synced: kill -9 can't show that, for the page cache survives it."""

import asyncio
import contextlib
from collections import Counter
from random import Random

import msgspec

from engine.runtime.embedded import layout
from engine.runtime.host import Unavailable
from schemas.inputs import Event
from schemas.records import NewRecord
from tests.runtime.trial_journeys import basket, greeting
from tests.scenarios.embedded_world import PARTITIONS, TENANT, World
from tests.scenarios.expectation import expect
from tests.scenarios.tale import seed

LIVES = 30
HOUR = 3_600_000


class Producer:
    """Sends a user's events until told to stop, the same ones again in the next life where no answer came."""

    def __init__(self, number: int, chance: Random) -> None:
        self.number = number
        self.chance = chance
        self.pending: list[tuple[str, Event]] = []
        self.acknowledged: list[str] = []
        self._count = 0

    async def run(self, world: World) -> None:
        life = world.life
        while True:
            self.pending = self.pending or [self._event(world) for _ in range(self.chance.randint(1, 5))]
            if self.chance.random() < 0.1:
                garbage = NewRecord("events", f"{TENANT}:u{self.number}".encode(), b"\xff{")
                await world.host.log.append([garbage])
            await world.append(*self.pending)
            if world.life != life:
                return
            self.acknowledged += [event.id for _, event in self.pending]
            self.pending = []

    def _event(self, world: World) -> tuple[str, Event]:
        self._count += 1
        name = self.chance.choice(["signed_up", "basket_filled", "bought", "looked"])
        properties = {"basket": self.chance.choice(["b1", "b2"])}
        user = f"u{self.number}-{self.chance.randrange(4)}"
        return user, Event(f"{self.number}-{self._count}", name, world.clock.now, properties)


async def test_what_was_acknowledged_or_has_left_survives_every_crash_and_nothing_leaves_twice() -> None:
    chance = Random(seed())
    world = World()
    producers = [Producer(number, Random(chance.random())) for number in range(8)]
    lost = 0
    for _ in range(LIVES):
        world.start()
        tasks = [asyncio.create_task(_live(world, producer)) for producer in producers]
        for _ in range(chance.randrange(300)):
            await asyncio.sleep(0)
        unsynced = world.unsynced_writes()
        surviving = chance.randint(0, unsynced)
        lost += unsynced - surviving
        await world.crash(surviving)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        world.clock.now += chance.choice([1, 1000, HOUR, 3 * HOUR])
    assert lost > LIVES, "too little was lost for this test to mean anything"

    world.start()
    await world.publish(greeting(), basket())
    for producer in producers:
        await world.append(*producer.pending)
    await world.until_quiet()
    try:
        definitions = {definition.key: definition for definition in world.host.definitions.all()}
        expectation = expect(definitions, world.records("events"), lambda key: layout.partition_of(key, PARTITIONS))
        assert world.messages() == expectation.messages
        assert world.journal() == expectation.journal
        assert world.users() == expectation.users
        asked = {message.id for message in expectation.messages}
        assert len(asked) == len(expectation.messages) > 20
        assert set(world.delivered) <= asked
        assert max(Counter(world.delivered).values()) == 1
        acknowledged = {id for producer in producers for id in producer.acknowledged}
        assert acknowledged <= _logged(world)
        assert world.due() == []
    finally:
        await world.close()


async def _live(world: World, producer: Producer) -> None:
    with contextlib.suppress(Unavailable):
        await world.publish(greeting(), basket())
        await producer.run(world)


def _logged(world: World) -> set[str]:
    values = [record.value or b"" for records in world.records("events").values() for record in records]
    return {msgspec.json.decode(value)["id"] for value in values if value.startswith(b'{"type":"event"')}
