"""The work that the Kafka contenders do: which events, and the journey they move.

Events of about 356 bytes, 8 types, 20 tenants, users by Zipf(1.0), 2 % sent twice, 1 % out of order. The journey has six
steps: entered on `cart`, it waits up to 30 minutes for an `order`, branches on two attributes of the profile, and sends.
Users may enter again at once, so that commands keep coming: about one for every sixteen events of a user.
"""

import bisect
import itertools
import random
from collections.abc import Iterator

import msgspec

from engine import Branch, Exit, Journey, Send, WaitFor, all_of, always, minutes, on, profile
from schemas.inputs import Event
from schemas.records import NewRecord

TYPES = ("cart", "order", "page", "view", "search", "click", "rate", "share")
TENANTS = tuple(f"tenant-{number:02d}" for number in range(20))
TWICE, OUT_OF_ORDER = 0.02, 0.01
FILLER = "a sentence or two of what a page says, " * 4

journey = Journey(
    name="bench",
    version=1,
    entry=on("cart"),
    reentry=always,
    start="answer",
    steps={
        "answer": WaitFor(on("order"), timeout=minutes(30), then="audience", on_timeout="done"),
        "audience": Branch(
            [(all_of(profile("tier", "==", "gold"), profile("country", "in", ["DE", "FR"])), "thanks_gold")],
            otherwise="known",
        ),
        "known": Branch([(profile("tier", "exists", True), "thanks")], otherwise="done"),
        "thanks_gold": Send("bench", template="thanks_gold", then="done"),
        "thanks": Send("bench", template="thanks", then="done"),
        "done": Exit(),
    },
)


def events(count: int, users: int, seed: int = 1) -> Iterator[NewRecord]:
    """Yield `count` records for the topic `events`. The first event about a user sets the two attributes."""
    dice = random.Random(seed)
    pick = _zipf(users, dice)
    known: set[int] = set()
    held: NewRecord | None = None
    last: NewRecord | None = None
    for number in range(count):
        twice = last is not None and dice.random() < TWICE
        record = last if twice and last is not None else _record(number, pick(), dice, known)
        if held is not None:
            yield record
            yield held
            held = None
        elif dice.random() < OUT_OF_ORDER and number < count - 1:
            held = record
        else:
            yield record
        last = record
    if held is not None:
        yield held


def _record(number: int, user: int, dice: random.Random, known: set[int]) -> NewRecord:
    tenant = TENANTS[user % len(TENANTS)]
    attributes = {}
    if user not in known:
        known.add(user)
        attributes = {"tier": ("gold", "silver")[user % 3 == 0], "country": ("DE", "FR", "IT")[user % 3]}
    properties = {
        "sku": f"sku-{dice.randrange(10_000):05d}",
        "total": dice.randrange(20_000) / 100,
        "url": f"https://shop.example.com/products/{dice.randrange(10_000)}",
        "text": FILLER,
    }
    event = Event(f"m-{number:012x}", dice.choice(TYPES), 1_767_225_600_000 + number, properties, attributes)
    return NewRecord("events", f"{tenant}:u{user:07d}".encode(), msgspec.json.encode(event))


def _zipf(users: int, dice: random.Random):  # type: ignore[no-untyped-def]
    """Return a function that draws users by Zipf(1.0): the second half as often as the first, and so on."""
    weights = list(itertools.accumulate(1 / rank for rank in range(1, users + 1)))
    total = weights[-1]
    return lambda: bisect.bisect_left(weights, dice.random() * total)
