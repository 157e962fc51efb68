"""What every contender has to do: which events come, and the journey they move.

Users come in visits of five events on average. Who comes is drawn by Zipf(1.0): the second user half as often as the first,
and so on. In the log twenty days pass, each one busy hour, in which the visits of that day mingle; so users come back after
more than a day, which re-entry asks for. 2 % of the events are sent twice, 1 % are written after later ones. A record's
timestamp is the log's time, as LogAppendTime would give it: waits and re-entry go by it, and not by any machine's clock.
"""

import bisect
import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from engine import Branch, Exit, Journey, Send, WaitFor, after, all_of, hours, minutes, on, profile
from schemas.inputs import Event

OTHERS = ("page", "view", "search", "click", "rate", "share")  # besides `cart` and `order`: 8 types
TENANTS = tuple(f"tenant-{number:02d}" for number in range(20))
DAYS, BEGIN_AT = 20, 1_735_689_600_000  # 2025-01-01: no host's clock is behind it
MINUTE, DAY = 60_000, 86_400_000
LONGEST_PAUSE = 12 * MINUTE  # between two events of a visit; 6 minutes on average
TWICE, OUT_OF_ORDER = 0.02, 0.01
FILLER = ("what the page says, and more of it, " * 5)[:169]  # so that an event has 356 bytes

journey = Journey(
    name="bench",
    version=1,
    entry=on("cart"),
    reentry=after(hours(24)),
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


class Given(NamedTuple):
    """One record of the topic: `at` is its timestamp."""

    at: int
    key: bytes
    value: bytes


def events(count: int, users: int, days: int = DAYS, begin_at: int = BEGIN_AT, seed: int = 1) -> Iterator[Given]:
    """Yield `count` records in the order of the log. The first event about a user sets the profile."""
    dice = random.Random(seed)
    pick = _zipf(users, dice)
    known: set[int] = set()
    numbers = itertools.count()
    for day in range(days):
        begin = begin_at + day * (DAY + DAY // 12)
        size = count * (day + 1) // days - count * day // days
        drawn: list[tuple[int, int, int, str]] = []
        while len(drawn) < size:
            visitor = pick()
            drawn += ((at, len(drawn), visitor, name) for at, name in _visit(begin, dice))
        latest = begin
        for log_at, occurred_at, visitor, name, number in _written(drawn[:size], dice, numbers, size):
            latest = max(latest, log_at)
            yield _record(latest, occurred_at, visitor, name, number, known)


def _visit(begin: int, dice: random.Random) -> Iterator[tuple[int, str]]:
    """Yield when which event of one visit happens: nearly all fill a cart, and nine in ten of them order."""
    names = [dice.choice(OTHERS) for _ in range(dice.randrange(1, 6))]
    cart = dice.randrange(2)
    if dice.random() < 0.97:
        names.insert(cart, "cart")
    if dice.random() < 0.9:
        names.insert(cart + 1 + dice.randrange(3), "order")
    at = begin + dice.randrange(60 * MINUTE)
    for name in names:
        yield at, name
        at += dice.randrange(1, LONGEST_PAUSE)


def _written(
    drawn: list[tuple[int, int, int, str]], dice: random.Random, numbers: Iterator[int], size: int
) -> Iterator[tuple[int, int, int, str, int]]:
    """Yield (log time, time it occurred, user, name, number) in the order of the log, with repeats and late ones."""
    log = []
    for at, _, visitor, name in sorted(drawn):
        number = next(numbers)
        late = dice.randrange(MINUTE) if dice.random() < OUT_OF_ORDER else 0
        log.append((at + late, at, visitor, name, number))
        if dice.random() < TWICE:
            log.append((at + late + dice.randrange(2_000), at, visitor, name, number))
    log.sort()
    yield from log[:size]


def _record(log_at: int, occurred_at: int, user: int, name: str, number: int, known: set[int]) -> Given:
    properties = {
        "sku": f"sku-{number * 7919 % 10_000:05d}",
        "total": number * 104_729 % 20_000 / 100,
        "url": f"https://shop.example.com/products/{number * 31 % 10_000}",
        "text": FILLER,
    }
    attributes = {}
    if user not in known:
        known.add(user)
        attributes = {
            "tier": ("gold", "silver")[user % 3 == 0],
            "country": ("DE", "FR", "IT")[user % 3],
            "email": f"u{user:07d}@example.com",
            "name": f"Customer Number {user}",
            "city": ("Berlin", "Paris", "Rome")[user % 3],
        }
    event = Event(f"m-{number:012x}", name, occurred_at, properties, attributes)
    key = f"{TENANTS[user % len(TENANTS)]}:u{user:07d}"
    return Given(log_at, key.encode(), msgspec.json.encode(event))


def _zipf(users: int, dice: random.Random):  # type: ignore[no-untyped-def]
    """Return a function that draws users by Zipf(1.0)."""
    weights = list(itertools.accumulate(1 / rank for rank in range(1, users + 1)))
    total = weights[-1]
    return lambda: bisect.bisect_left(weights, dice.random() * total)
