"""What one call of the fold costs: `handle`, and a whole batch through the loop with a store in memory."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agents.folder import Folder
from benchmarks.figures import Figure
from engine.actor import handle
from engine.catalog import Catalog
from engine.runtime.metrics import Metrics
from engine.runtime.partition import UserPartition
from engine.runtime.publish import plan
from schemas.definitions import Definition
from schemas.inputs import Event
from schemas.records import NewRecord, Record
from schemas.state import User

BEGIN = 1_767_225_600_000
CALLS = 50_000
EVENTS = 50_000
USERS = 10_000
NAMES = ("page_viewed",) * 6 + ("cart_updated", "order_placed")
HEADERS = (("content-type", b"application/json"), ("tenant", b"shop"))


def measure(folder: Folder, repeats: int) -> list[Figure]:
    """Return microseconds of CPU per call of `handle` on users with three live runs, and per event in the loop."""
    catalog = Catalog()
    for journey in folder.journeys:
        catalog = catalog.activate("shop", journey)
    user = _user_with_three_runs(catalog)
    passing = Event("e9", "page_viewed", BEGIN, {"url": "https://shop.example.com/"})
    moving = Event("e9", "order_placed", BEGIN, {"cart_id": "c1", "total": 20})
    figures = [
        Figure(f"handle, three live runs, {name}", "us", [_per_call(catalog, user, event) for _ in range(repeats)], aim)
        for name, event, aim in (("event concerns none", passing, 10), ("event concerns all three", moving, None))
    ]
    figures.append(
        Figure("fold of a batch of 500, store in memory", "us/event", [_loop(folder) for _ in range(repeats)])
    )
    return figures


def _user_with_three_runs(catalog: Catalog) -> User:
    user = User(profile={"email": "ann@example.com", "tier": "gold", "first_name": "Ann"})
    begun: list[tuple[str, dict[str, Any]]] = [
        ("signed_up", {}),
        ("order_placed", {"total": 5}),
        ("cart_updated", {"items": 2, "cart_id": "c1"}),
    ]
    for number, (name, properties) in enumerate(begun):
        user = handle(catalog, "shop", "ann", user, Event(f"e{number}", name, BEGIN, properties), BEGIN + number).user
    # The order ended the welcome's wait: sign up again is refused, so a third run comes from another cart.
    user = handle(
        catalog, "shop", "ann", user, Event("e3", "cart_updated", BEGIN, {"items": 1, "cart_id": "c2"}), BEGIN + 3
    ).user
    assert len(user.runs) == 3, [run.journey for run in user.runs]
    return user


def _per_call(catalog: Catalog, user: User, event: Event) -> float:
    def work() -> None:
        for _ in range(CALLS):  # What each comes to is let go, as the loop does: to keep it all would be measured, too.
            handle(catalog, "shop", "ann", user, event, BEGIN + 10)

    return _cpu_us(work) / CALLS


def _loop(folder: Folder) -> float:
    """Fold made-up events through `UserPartition.fold`; the store is a dict, nothing is committed."""
    host, definitions = _Host(), _Definitions()
    partition = UserPartition(host, definitions, Metrics())  # type: ignore[arg-type]
    publication = plan(["shop"], folder.journeys, folder.templates, definitions)
    definitions.held = {definition.key: definition for definition in publication.definitions}
    records = list(_records(publication.records(1)))

    def fold() -> None:
        for at in range(0, len(records), 500):
            for key, state in partition.fold(records[at : at + 500]).states.items():
                host.store[key] = state

    return _cpu_us(fold) / EVENTS


def _records(published: Sequence[NewRecord]) -> Iterator[Record]:
    activations = [record for record in published if record.topic == "events"]
    for offset, activation in enumerate(activations):
        yield Record(offset, BEGIN, None, activation.value)
    dice = random.Random(1)
    for offset in range(EVENTS):
        number = dice.randrange(1 << 48)
        properties = {
            "cart_id": f"c{number % 3}",
            "items": number % 4,
            "total": 12.5,
            "url": f"https://x.example/{number}",
        }
        event = Event(f"message-{number:024x}", dice.choice(NAMES), BEGIN + offset, properties)
        key = b"shop:user-%07d" % dice.randrange(USERS)
        yield Record(len(activations) + offset, BEGIN + offset * 10, key, msgspec.json.encode(event), HEADERS)


def _cpu_us(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1e6


class _Host:
    """A partition whose store is a dict: what is left is the fold itself."""

    topic, number, count = "events", 0, 1

    def __init__(self) -> None:
        self.store: dict[bytes, bytes | None] = {}

    def partition_for(self, key: bytes) -> int:
        return 0


class _Definitions:
    def __init__(self) -> None:
        self.held: dict[str, Definition] = {}

    def find(self, key: str) -> Definition | None:
        return self.held.get(key)

    async def wait(self, key: str) -> Definition:
        return self.held[key]

    def all(self) -> list[Definition]:
        return list(self.held.values())


EXAMPLES = Path(__file__).parent.parent / "journeys"
