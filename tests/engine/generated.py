"""Journeys, policies and histories as nobody would write them, for properties that must hold for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from random import Random
from typing import Any

from hypothesis import strategies as st
from msgspec import structs

from engine import (
    Branch,
    Budget,
    Call,
    Cap,
    Cohorts,
    Delay,
    DelayUntil,
    Emit,
    Enter,
    EntryCap,
    Exit,
    Journey,
    Policy,
    QuietHours,
    Send,
    Throttle,
    Update,
    WaitFor,
    after,
    all_of,
    always,
    answer,
    any_of,
    api,
    changed,
    days,
    did,
    not_,
    on,
    once,
    profile,
    receipt,
    schedule,
    value,
    where,
)
from engine.catalog import Catalog
from engine.conditions import Condition, On
from engine.entries import Entry
from engine.journey import Reentry
from engine.operators import RELATIVE, Operator
from engine.simulator import SimulatedUser
from schemas.inputs import Event, Receipt, ReceiptStatus, UserInput
from schemas.outputs import JournalEntry, Message
from schemas.state import User

NAMES = ("a", "b", "c")
FIELDS = ("x", "y", "deep.z")
STATUSES: tuple[ReceiptStatus, ...] = ("accepted", "opened", "clicked", "bounced", "failed")
BEGIN = 1_767_600_000_000  # a Monday, eight in the morning in UTC
REACHABLE = User(profile={"email": "a@example.com", "phone": "+1"})  # but not by push
HOUR = 3_600_000

# Journeys and histories are drawn with dice from a seed, which is thirty times faster than strategies all the way down; a
# history is a list of seeds, so that hypothesis can still find a short one that fails.
seeds = st.integers(0, (1 << 32) - 1)

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)
SCALARS: tuple[Any, ...] = (None, True, False, -1, 0, 1, 2, 3, 0.5, 1.0, 2.5, "", "1", "a", "ab")
DATES = ("2026-01-05", "2026-01-06T07:30", "2026-01-08T00:00+09:00", "2026-02-29", BEGIN + 50 * HOUR, "soon")
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Nowhere/At_All")


# Conditions


def some_condition(
    dice: Random,
    sends: Sequence[str] = (),
    depth: int = 3,
    names: Sequence[str] = NAMES,
    calls: Sequence[str] = (),
) -> Condition:
    """Return any condition; receipts are those of the steps that send, answers those of the steps that call."""
    kinds = ["where", "profile", "on", "on", "did"] + ["receipt"] * (2 * bool(sends)) + ["answer"] * bool(calls)
    kinds += ["all_of", "any_of", "not"] if depth else []
    match dice.choice(kinds):
        case "where":
            return where(*some_comparison(dice))
        case "profile":
            return profile(*some_comparison(dice))
        case "answer":
            return answer(f"{dice.choice(calls)}.score", dice.choice([">", "<="]), dice.randint(0, 3))
        case "on":
            return some_event(dice, names, depth)
        case "did":
            return some_past(dice, names)
        case "receipt":
            return receipt(dice.choice(sends), dice.choice(STATUSES))
        case "not":
            return not_(some_condition(dice, sends, depth - 1, names, calls))
        case kind:
            parts = [some_condition(dice, sends, depth - 1, names, calls) for _ in range(dice.randint(0, 3))]
            return all_of(*parts) if kind == "all_of" else any_of(*parts)


def some_event(dice: Random, names: Sequence[str], depth: int) -> On:
    parts = [some_condition(dice, (), 0, names) for _ in range(dice.choice([0, 0, 1]) if depth else 0)]
    return On(dice.choice(names), tuple(parts))


def some_past(dice: Random, names: Sequence[str]) -> Condition:
    event, within = some_event(dice, names, 0), dice.choice([None, some_duration(dice)])
    match dice.choice(["often", "never", "sum", "first"]):
        case "often":
            return did(event, at_least=dice.randint(1, 3), within=within)
        case "never":
            return did(event, at_most=dice.randint(0, 2), within=within)
        case "sum":
            return did(event, total="x", total_at_least=dice.choice([1, 2.5, 4]), within=within)
        case _:
            return did(event, first=True, within=within or days(1))


def some_comparison(dice: Random) -> tuple[str, Operator, Any]:
    """Return a field, an operator, and what it is compared with."""
    operator: Operator = dice.choice(OPERATORS)
    field = dice.choice(FIELDS)
    match operator:
        case ">" | ">=" | "<" | "<=":
            return field, operator, dice.choice([-1, 0, 1, 2, 0.5, "a", "b"])
        case "in" | "not_in" | "contains_any" | "contains_all":
            return field, operator, [dice.choice(SCALARS) for _ in range(dice.randint(0, 3))]
        case "exists":
            return field, operator, dice.choice([None, True, False])
        case "starts_with" | "ends_with" | "matches":
            return field, operator, dice.choice(["", "a", "b", "1"])
        case "before" | "after":
            return "when", operator, dice.choice(["2026-01-06", "2026-01-07T12:00"])
        case _ if operator in RELATIVE:
            return "when", operator, some_duration(dice)
        case _:
            return field, operator, dice.choice(SCALARS)


OPERATORS: tuple[Operator, ...] = (
    "==", "==", "!=", ">", ">=", "<", "<=", "in", "not_in", "contains", "contains_any", "contains_all", "exists", "exists",
    "starts_with", "ends_with", "matches", "before", "after", *RELATIVE,
)  # fmt: skip


# Journeys


def some_journey(
    dice: Random,
    name: str = "generated",
    plain: bool = False,
    version: int = 1,
    hears: Sequence[str] = (),
    kinds: Sequence[str] = (),
    entries: Sequence[str] = (),
) -> Journey:
    """Return any valid journey of up to eight steps, of these kinds and kinds of entry, or any.

    A step that passes leads forward only, a step that waits leads anywhere. A `plain` one's paths do not depend on when a
    message goes out: no `on_failed`, no calls, no quotas, nothing for other journeys, and nothing is ever too late.

    It `hears` of these events beside the usual ones, and emits "from_<name>": who hears of another must not be heard by
    it, or the two never come to rest.
    """
    drawn = [dice.choice(kinds or (PLAIN_KINDS if plain else KINDS)) for _ in range(dice.randint(1, 7))]
    names = [f"s{number}" for number in range(len(drawn))] + ["end"]
    sends = [name for name, kind in zip(names, drawn, strict=False) if kind == "send"]
    calls = [name for name, kind in zip(names, drawn, strict=False) if kind == "call"]
    events = (*NAMES, *hears)
    making = Making(dice, name, names, sends, calls, events, plain)
    steps: dict[str, Any] = {names[number]: some_step(making, kind, number) for number, kind in enumerate(drawn)}
    goal = on(dice.choice(NAMES), within=some_duration(dice, 200), value=dice.choice([None, "x"]))
    return Journey(
        name=name,
        version=version,
        entry=some_entry(dice, events, entries or ENTRIES),
        key=dice.choice([None, None, "key"]),
        reentry=dice.choice(REENTRIES),
        exit_on=dice.choice([None, None, some_condition(dice, sends, 1, events, calls)]),
        goal=dice.choice([None, goal]),
        priority=dice.choice([0, 0, 5]),
        holdout=dice.choice([0, 0, 0, 30]),
        entry_cap=None if plain else dice.choice([None, None, None, EntryCap(dice.randint(1, 3), some_duration(dice))]),
        start=names[0],
        steps={**steps, "end": Exit()},
    )


KINDS = (
    "delay", "delay_until", "wait_for", "wait_for", "wait_for", "throttle", "branch", "cohorts", "send", "send", "send",
    "call", "update", "emit", "enter", "exit",
)  # fmt: skip
PLAIN_KINDS = tuple(kind for kind in KINDS if kind not in ("call", "throttle", "emit", "enter"))
REENTRIES: tuple[Reentry, ...] = (once, always, after(days(1)))
CHANNELS: tuple[Any, ...] = ("email", "push", ["push", "email"], ["sms", "inapp"])
CRONS = ("0 9 * * *", "30 2 * * 1,3", "15 */7 * * *")


ENTRIES = ("on", "on", "on", "bare", "bare", "bare", "bare", "api", "changed", "schedule")


def some_entry(dice: Random, names: Sequence[str], kinds: Sequence[str]) -> Entry:
    who = dice.choice([None, None, some_condition(dice, (), 0, names)])
    match dice.choice(kinds):
        case "api":
            return api(who)
        case "changed":
            return changed(dice.choice(["x", "y"]), who)
        case "schedule":
            return schedule(dice.choice(CRONS), dice.choice(["UTC", "user", "Asia/Tokyo"]), who)
        case "bare":
            return on(dice.choice(names))
        case _:
            return some_event(dice, names, 2)


@dataclass(frozen=True)
class Making:
    """A journey in the making: what its steps may speak of."""

    dice: Random
    name: str
    names: Sequence[str]
    sends: Sequence[str]
    calls: Sequence[str]
    events: Sequence[str]
    plain: bool

    def condition(self, depth: int) -> Condition:
        return some_condition(self.dice, self.sends, depth, self.events, self.calls)

    def anywhere(self, number: int) -> str:
        """Return a step to go to from this one: often the next, so that a run comes far."""
        return self.names[number + 1] if self.dice.random() < 0.5 else self.dice.choice(self.names)

    def forward(self, number: int) -> str:
        return self.names[number + 1] if self.dice.random() < 0.5 else self.dice.choice(self.names[number + 1 :])


def some_step(making: Making, kind: str, number: int) -> Any:
    dice = making.dice
    match kind:
        case "delay":
            return Delay(some_duration(dice), then=making.anywhere(number))
        case "delay_until":
            return some_delay_until(making, number)
        case "wait_for":
            return some_wait(making, number)
        case "throttle":
            return Throttle(
                dice.choice([0.01, 0.5, 60]), then=making.forward(number), name=dice.choice([None, "turns"])
            )
        case "branch":
            cases = [(making.condition(2), making.forward(number)) for _ in range(dice.randint(1, 3))]
            return Branch(cases, otherwise=making.forward(number))
        case "cohorts":
            weights = {making.forward(number): float(dice.randint(1, 5)) for _ in range(dice.randint(1, 3))}
            return Cohorts(weights, salt=dice.choice([None, "salt"]))
        case "send":
            return some_send(making, number)
        case "call":
            then, on_failed, timeout = making.anywhere(number), making.anywhere(number), some_duration(dice, 24)
            body: dict[str, Any] = {"x": value("event.x")}
            return Call("https://crm.example/score", body=body, timeout=timeout, then=then, on_failed=on_failed)
        case "update":
            filled = {dice.choice(["x", "y", "when"]): dice.choice([*SCALARS, *DATES, value("event.x", default=2)])}
            return Update(filled, then=making.forward(number))
        case "emit":
            carried = {"x": value("event.x"), "key": value("run.key")}
            return Emit(f"from_{making.name}", carried, then=making.forward(number))
        case "enter":
            others = [name for name in ("two", "three") if name != making.name]
            return Enter(dice.choice(others), {"key": value("run.key", default="k9")}, then=making.forward(number))
        case _:
            return Exit(dice.choice(["done", "left"]))


def some_wait(making: Making, number: int) -> WaitFor:
    dice = making.dice
    timeout, on_timeout = some_duration(dice), making.anywhere(number)
    if dice.random() < 0.08:  # Over on arrival, and leads to itself: the run that comes here is suspended.
        return WaitFor(not_(on("never")), timeout=timeout, then=making.names[number], on_timeout=on_timeout)
    lookback = dice.choice([None, None, some_duration(dice)])
    if dice.random() < 0.5:
        awaited = making.condition(2)
        return WaitFor(awaited, timeout=timeout, then=making.anywhere(number), on_timeout=on_timeout, lookback=lookback)
    cases = [(making.condition(1), making.anywhere(number)) for _ in range(dice.randint(1, 3))]
    return WaitFor(cases, timeout=timeout, on_timeout=on_timeout, lookback=lookback)


def some_delay_until(making: Making, number: int) -> DelayUntil:
    dice = making.dice
    zone, follows = dice.choice([None, None, "Europe/Berlin"]), dice.random() < 0.4
    clock = time(dice.choice([0, 2, 7, 23]), dice.choice([0, 30]))
    if dice.random() < 0.5:
        days_of_it: Any = dice.choice([(), (), ("mon",), ("wed", "sun")])
        return DelayUntil(at=clock, weekdays=days_of_it, zone=zone, follows=follows, then=making.anywhere(number))
    return DelayUntil(
        date=value(dice.choice(["profile.when", "event.when"])),
        at=dice.choice([None, clock]),
        offset=dice.choice([timedelta(0), -some_duration(dice), some_duration(dice)]),
        if_past=dice.choice(["continue", "exit", making.forward(number)]),
        if_missing=dice.choice([None, "exit", making.forward(number)]),
        zone=zone,
        follows=follows,
        then=making.forward(number),
    )


def some_send(making: Making, number: int) -> Send:
    dice, plain = making.dice, making.plain
    return Send(
        dice.choice(CHANNELS),
        template="hello",
        then=making.forward(number),
        on_blocked=None if plain else dice.choice([None, making.forward(number)]),
        on_failed=None if plain else dice.choice([None, None, making.forward(number)]),
        topic=dice.choice(["marketing", "marketing", "news"]),
        transactional=dice.random() < 0.15,
        quiet_hours=dice.choice(["keep", "keep", "ignore"]),
        max_lateness=days(1000) if plain else days(1),
    )


def some_duration(dice: Random, most_hours: int = 72) -> timedelta:
    # Not so short that a week's outage makes more than MAX_FIRINGS of them.
    return timedelta(minutes=dice.choice([dice.randint(15, 120), dice.randint(15, most_hours * 60)]))


def some_policy(dice: Random, version: int = 1) -> Policy:
    """Return any policy: with quiet hours, caps, topics that need consent, a holdout, a budget, or none of it."""
    start, end = [time(hour) for hour in dice.sample(range(24), 2)]
    caps = [
        Cap(dice.randint(1, 3), some_duration(dice), dice.choice([None, "email"]), dice.choice([None, None, "news"]))
        for _ in range(dice.randint(0, 2))
    ]
    return Policy(
        version=version,
        zone=dice.choice(["UTC", "Europe/Berlin"]),
        topics=dice.choice([{}, {"news": "opt_in"}]),
        holdout=dice.choice([0, 0, 20]),
        quiet_hours=dice.choice([(), (QuietHours(start, end, dice.choice([(), ("email",)])),)]),
        caps=tuple(caps),
        budgets=dice.choice([(), (Budget("email", dice.randint(0, 3)),)]),
    )


def journeys(
    name: str = "generated", plain: bool = False, hears: Sequence[str] = (), entries: Sequence[str] = ()
) -> st.SearchStrategy[Journey]:
    return seeds.map(lambda seed: some_journey(Random(seed), name, plain, hears=hears, entries=entries))


def policies() -> st.SearchStrategy[Policy]:
    return seeds.map(lambda seed: some_policy(Random(seed)))


def conditions(sends: Sequence[str] = (), depth: int = 3) -> st.SearchStrategy[Condition]:
    return seeds.map(lambda seed: some_condition(Random(seed), sends, depth))


# Histories


@dataclass(frozen=True)
class Happening:
    """After a pause, something comes in. A receipt is of the `message`-th last message, if there are so many.

    An event that occurred before BEGIN arrives as much later than it occurred.
    """

    pause: int
    event: Event | None = None
    message: int = 0
    status: ReceiptStatus = "accepted"


def some_happening(dice: Random, number: int, receipts: float = 0.4) -> Happening:
    pause = dice.choice([0, dice.randint(0, 2 * HOUR), dice.randint(0, 40 * HOUR)])
    if dice.random() < receipts:
        return Happening(pause, None, dice.randint(1, 3), dice.choice(STATUSES))
    attributes = {name: dice.choice(SCALARS) for name in ("x", "y") if dice.random() < 0.15}
    attributes |= {"when": dice.choice(DATES)} if dice.random() < 0.15 else {}
    attributes |= {"timezone": dice.choice(ZONES)} if dice.random() < 0.1 else {}
    attributes |= {"consent": {dice.choice(["news", "email"]): dice.random() < 0.5}} if dice.random() < 0.05 else {}
    name = "identify" if attributes and dice.random() < 0.6 else dice.choice(NAMES)
    late = dice.choice([0, 0, 0, 0, 30 * HOUR, 80 * HOUR])
    return Happening(pause, Event(f"m{number}", name, BEGIN - late, some_properties(dice), attributes))


def some_properties(dice: Random) -> dict[str, Any]:
    deep = dice.choice([*SCALARS, {}, {"z": dice.choice(SCALARS)}, {"z": [1, "a"]}, [dice.choice(SCALARS)]])
    offered = {"x": dice.choice([*SCALARS, [1, "a"], {}]), "y": dice.choice(SCALARS), "deep": deep}
    offered["key"] = dice.choice(["k1", "k2", 3])
    offered["when"] = dice.choice(DATES)
    return {name: value for name, value in offered.items() if dice.random() < 0.6}


# Up to a dozen events and receipts over some days, each event with an id of its own.
histories = st.lists(seeds, min_size=1, max_size=12).map(
    lambda drawn: [some_happening(Random(seed), number) for number, seed in enumerate(drawn)]
)
properties = seeds.map(lambda seed: some_properties(Random(seed)))


class Life:
    """One simulated user, in numbers: instants are milliseconds."""

    def __init__(self, catalog: Catalog) -> None:
        begin = datetime.fromtimestamp(BEGIN / 1000, UTC)
        self.simulated = SimulatedUser(*_active(catalog), user_id="u", tenant="t", now=begin)
        self.simulated.catalog = catalog
        self.simulated.state = REACHABLE

    @property
    def user(self) -> User:
        return self.simulated.state

    @property
    def messages(self) -> list[Message]:
        return self.simulated.messages

    @property
    def journal(self) -> list[JournalEntry]:
        return self.simulated.journal

    @property
    def now(self) -> int:
        return self.simulated.now_ms

    def give(self, input: UserInput) -> None:
        self.simulated.give(input)

    def meet(self, happening: Happening) -> None:
        """Give what happens, now."""
        if happening.event is not None:
            occurred_at = self.now - (BEGIN - happening.event.occurred_at)
            self.give(structs.replace(happening.event, occurred_at=occurred_at))
        elif len(self.messages) >= happening.message:
            sent = self.messages[-happening.message]
            self.give(Receipt(sent.id, happening.status, self.now, sent.channel))

    def wait(self, until: int) -> None:
        """Let time pass, with a wake-up at every timer's own time."""
        self.simulated.simulation.wait(until)

    def sleep(self, until: int) -> None:
        """Let time pass without wake-ups."""
        self.simulated.simulation.sleep(until)

    def told(self) -> list[JournalEntry]:
        """The journal without inputs that were dropped."""
        return [entry for entry in self.journal if entry.kind != "dropped"]


def _active(catalog: Catalog) -> list[Journey]:
    return [journey for _, journey in catalog.active()]


def catalog_of(*published: Journey | Policy) -> Catalog:
    catalog = Catalog()
    for each in published:
        catalog = catalog.activate_policy("t", each) if isinstance(each, Policy) else catalog.activate("t", each)
    return catalog


def live(catalog: Catalog, history: Sequence[Happening], after_ms: int = 200 * HOUR) -> Life:
    """Play a history with a worker that is never down, and then some days more."""
    life = Life(catalog)
    for happening in history:
        life.wait(life.now + happening.pause)
        life.meet(happening)
    life.wait(life.now + after_ms)
    return life
