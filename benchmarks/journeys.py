"""What journeys cost beside the loop: simulated users who wait, and thousands of published definitions."""

import gc
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from benchmarks.figures import Figure, resident_bytes
from benchmarks.waiting import _own_pid as own_pid
from benchmarks.waiting import waiting
from engine import Delay, Exit, Journey, Send, WaitFor, always, days, hours, on, receipt, where
from engine.actor import handle
from engine.catalog import Catalog
from engine.definitions import freeze, thaw
from engine.simulator import simulate
from schemas.definitions import Definition
from schemas.inputs import Event
from schemas.state import User

CROWD, DAYS = 10_000, 365
DEFINITIONS = (3, 100, 10_000)
CALLS = 20_000
BEGIN = 1_767_225_600_000

T = TypeVar("T")


def measure(repeats: int) -> list[Figure]:
    """Return user-days a second, what 10,000 definitions take to load, and an event's cost beside so many."""
    definitions = [freeze("shop", _cart(number), {"hello": {"text": "Hello"}})[-1] for number in range(DEFINITIONS[-1])]
    return [
        Figure(
            f"simulated: {CROWD:,} users who wait, {DAYS} days", "user-days/s", [_user_days() for _ in range(repeats)],
            1_000_000, lower=False,
        ),
        *_loading(definitions, repeats),
        *_events([thaw(definition) for definition in definitions], repeats),
    ]  # fmt: skip


def _user_days() -> float:
    """How many days of users' lives pass in a second of CPU, the event that begins each run and its end included."""
    crowd = simulate.crowd(CROWD, waiting)

    def live() -> None:
        crowd.event("signed_up")
        crowd.wait(days(DAYS))

    _, seconds = _cpu_seconds(live)
    assert crowd.exits["done"] == CROWD
    return CROWD * DAYS / seconds


def _loading(definitions: Sequence[Definition], repeats: int) -> list[Figure]:
    """Read definitions and activate them, as a partition does when it begins; a second partition finds them read."""
    first, second, memory = [], [], []
    for _ in range(repeats):
        gc.collect()
        before = resident_bytes(own_pid())
        kept, seconds = _cpu_seconds(lambda: _load(definitions))
        first.append(seconds)
        memory.append((resident_bytes(own_pid()) - before) / 1e6)
        again, seconds = _cpu_seconds(lambda: _load(definitions))
        second.append(seconds)
        assert len(kept.journeys) == len(again.journeys) == len(definitions)
        del kept, again
    count = f"{len(definitions):,} definitions"
    return [
        Figure(f"{count} loaded by the first partition of a process", "s", first),
        Figure("... by each other one", "s", second),
        Figure("... resident memory that they take (the first time counts: it is used again)", "MB", memory[:1]),
    ]


def _load(definitions: Sequence[Definition]) -> Catalog:
    return Catalog().activate_all([("shop", thaw(definition), BEGIN) for definition in definitions])


def _events(journeys: Sequence[Journey], repeats: int) -> list[Figure]:
    """An event that begins a run of one journey, and one that three live runs hear, beside so many published journeys."""
    figures = []
    gc.collect()
    gc.freeze()  # as whoever serves does when everything is loaded
    for count in DEFINITIONS:
        catalog = Catalog().activate_all([("shop", journey, BEGIN) for journey in journeys[:count]])
        user = User(profile={"email": "ann@example.com"})
        starts = [Event(f"s{number}", f"cart_{number}_updated", BEGIN, {"items": 1}) for number in range(3)]
        entering = [_per_call(catalog, user, starts[0]) for _ in range(repeats)]
        for start in starts:
            user = handle(catalog, "shop", "ann", user, start, BEGIN).user
        assert len(user.runs) == 3
        passing = Event("e1", "page_viewed", BEGIN, {"url": "https://shop.example.com/"})
        heard = [_per_call(catalog, user, passing) for _ in range(repeats)]
        shown = f"{count:,} published"
        figures += [
            Figure(f"handle, an event that begins a run, {shown}", "us", entering),
            Figure(f"handle, three live runs, an event that concerns none, {shown}", "us", heard, 10),
        ]
    return figures


def _per_call(catalog: Catalog, user: User, event: Event) -> float:
    def fold() -> None:
        for _ in range(CALLS):
            handle(catalog, "shop", "ann", user, event, BEGIN + 10)

    _, seconds = _cpu_seconds(fold)
    return seconds * 1e6 / CALLS


def _cart(number: int) -> Journey:
    return Journey(
        name=f"cart_{number}",
        version=1,
        entry=on(f"cart_{number}_updated", where("items", ">", 0)),
        reentry=always,
        exit_on=on("order_placed"),
        goal=on("order_placed", within=days(3), value="total"),
        start="pause",
        steps={
            "pause": Delay(hours(1), then="remind"),
            "remind": Send("email", template="hello", then="answer"),
            "answer": WaitFor(receipt("remind", "clicked"), timeout=days(1), then="done", on_timeout="done"),
            "done": Exit(),
        },
    )


def _cpu_seconds(work: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    result = work()
    return result, time.process_time() - began
