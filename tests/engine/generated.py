"""Journeys, histories and conditions as nobody would write them, for properties that must hold for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

from hypothesis import strategies as st

from engine import (
    Branch,
    Cohorts,
    Delay,
    Exit,
    Journey,
    Send,
    WaitFor,
    after,
    all_of,
    always,
    any_of,
    days,
    not_,
    on,
    once,
    profile,
    receipt,
    where,
)
from engine.actor import earliest_due, handle
from engine.catalog import Catalog
from engine.conditions import Condition
from engine.journey import Reentry
from engine.operators import Operator
from schemas.inputs import Event, Receipt, ReceiptStatus, UserInput, WakeUp
from schemas.outputs import JournalEntry, Message
from schemas.state import User

NAMES = ("a", "b", "c")
FIELDS = ("x", "y", "deep.z")
STATUSES: tuple[ReceiptStatus, ...] = ("accepted", "opened", "clicked", "bounced", "failed")
BEGIN = 1_767_600_000_000
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


def some_condition(dice: Random, sends: Sequence[str] = (), depth: int = 3) -> Condition:
    """Return any condition; receipts are those of the steps that send."""
    kinds = ["where", "profile", "on", "on"] + ["receipt"] * (2 * bool(sends))
    kinds += ["all_of", "any_of", "not"] if depth else []
    match dice.choice(kinds):
        case "where":
            return where(dice.choice(FIELDS), *some_comparison(dice))
        case "profile":
            return profile(dice.choice(FIELDS), *some_comparison(dice))
        case "on":
            parts = [some_condition(dice, sends, 0) for _ in range(dice.choice([0, 0, 1]) if depth else 0)]
            return on(dice.choice(NAMES), *parts)
        case "receipt":
            return receipt(dice.choice(sends), dice.choice(STATUSES))
        case "not":
            return not_(some_condition(dice, sends, depth - 1))
        case kind:
            parts = [some_condition(dice, sends, depth - 1) for _ in range(dice.randint(0, 3))]
            return all_of(*parts) if kind == "all_of" else any_of(*parts)


def some_comparison(dice: Random) -> tuple[Operator, Any]:
    operator: Operator = dice.choice(OPERATORS)
    match operator:
        case ">" | ">=" | "<" | "<=":
            return operator, dice.choice([-1, 0, 1, 2, 0.5, "a", "b"])
        case "in":
            return operator, [dice.choice(SCALARS) for _ in range(dice.randint(0, 3))]
        case "exists":
            return operator, dice.choice([None, True, False])
        case _:
            return operator, dice.choice(SCALARS)


OPERATORS: tuple[Operator, ...] = ("==", "!=", ">", ">=", "<", "<=", "in", "contains", "exists")


def some_journey(dice: Random, name: str = "generated", plain: bool = False, version: int = 1) -> Journey:
    """Return any valid journey of up to eight steps.

    A step that passes leads forward only, a step that waits leads anywhere. A `plain` one's paths do not depend on when a
    message goes out: no `on_failed`, and nothing is ever too late.
    """
    kinds = [dice.choice(KINDS) for _ in range(dice.randint(1, 7))]
    names = [f"s{number}" for number in range(len(kinds))] + ["end"]
    sends = [name for name, kind in zip(names, kinds, strict=False) if kind == "send"]
    steps: dict[str, Any] = {
        names[number]: some_step(dice, kind, names, names[number + 1 :], sends, plain)
        for number, kind in enumerate(kinds)
    }
    goal = on(dice.choice(NAMES), within=some_duration(dice, 200), value=dice.choice([None, "x"]))
    entry_parts = [some_condition(dice, (), 1) for _ in range(dice.choice([0, 0, 1]))]
    return Journey(
        name=name,
        version=version,
        entry=on(dice.choice(NAMES), *entry_parts),
        key=dice.choice([None, None, "key"]),
        reentry=dice.choice(REENTRIES),
        exit_on=dice.choice([None, some_condition(dice, sends, 1)]),
        goal=dice.choice([None, goal]),
        start=names[0],
        steps={**steps, "end": Exit()},
    )


KINDS = ("delay", "wait_for", "wait_for", "branch", "cohorts", "send", "send", "exit")
REENTRIES: tuple[Reentry, ...] = (once, always, after(days(1)))
CHANNELS: tuple[Any, ...] = ("email", "push", ["push", "email"], ["sms", "inapp"])


def some_step(
    dice: Random, kind: str, anywhere: Sequence[str], forward: Sequence[str], sends: Sequence[str], plain: bool
) -> Any:
    match kind:
        case "delay":
            return Delay(some_duration(dice), then=dice.choice(anywhere))
        case "wait_for":
            timeout, on_timeout = some_duration(dice), dice.choice(anywhere)
            if dice.random() < 0.08:  # Over on arrival, and leads to itself: the run that comes here is suspended.
                itself = anywhere[-len(forward) - 1]
                return WaitFor(not_(on("never")), timeout=timeout, then=itself, on_timeout=on_timeout)
            if dice.random() < 0.5:
                awaited = some_condition(dice, sends, 2)
                return WaitFor(awaited, timeout=timeout, then=dice.choice(anywhere), on_timeout=on_timeout)
            cases = [(some_condition(dice, sends, 1), dice.choice(anywhere)) for _ in range(dice.randint(1, 3))]
            return WaitFor(cases, timeout=timeout, on_timeout=on_timeout)
        case "branch":
            cases = [(some_condition(dice, sends, 2), dice.choice(forward)) for _ in range(dice.randint(1, 3))]
            return Branch(cases, otherwise=dice.choice(forward))
        case "cohorts":
            weights = {dice.choice(forward): float(dice.randint(1, 5)) for _ in range(dice.randint(1, 3))}
            return Cohorts(weights, salt=dice.choice([None, "salt"]))
        case "send":
            return Send(
                dice.choice(CHANNELS),
                template="hello",
                then=dice.choice(forward),
                on_blocked=None if plain else dice.choice([None, *forward]),
                on_failed=None if plain else dice.choice([None, *forward]),
                max_lateness=days(1000) if plain else days(1),
            )
        case _:
            return Exit(dice.choice(["done", "left"]))


def some_duration(dice: Random, most_hours: int = 72) -> timedelta:
    # Not so short that a week's outage makes more than MAX_FIRINGS of them.
    return timedelta(minutes=dice.choice([dice.randint(15, 120), dice.randint(15, most_hours * 60)]))


def journeys(name: str = "generated", plain: bool = False) -> st.SearchStrategy[Journey]:
    return seeds.map(lambda seed: some_journey(Random(seed), name, plain))


def conditions(sends: Sequence[str] = (), depth: int = 3) -> st.SearchStrategy[Condition]:
    return seeds.map(lambda seed: some_condition(Random(seed), sends, depth))


@dataclass(frozen=True)
class Happening:
    """After a pause, something comes in. A receipt is of the `message`-th last message, if there are so many."""

    pause: int
    event: Event | None = None
    message: int = 0
    status: ReceiptStatus = "accepted"


def some_happening(dice: Random, number: int) -> Happening:
    pause = dice.choice([0, dice.randint(0, 2 * HOUR), dice.randint(0, 40 * HOUR)])
    if dice.random() < 0.4:
        return Happening(pause, None, dice.randint(1, 3), dice.choice(STATUSES))
    attributes = {name: dice.choice(SCALARS) for name in ("x", "y") if dice.random() < 0.15}
    name = "identify" if attributes else dice.choice(NAMES)
    return Happening(pause, Event(f"m{number}", name, BEGIN, some_properties(dice), attributes))


def some_properties(dice: Random) -> dict[str, Any]:
    deep = dice.choice([*SCALARS, {}, {"z": dice.choice(SCALARS)}, {"z": [1, "a"]}, [dice.choice(SCALARS)]])
    offered = {"x": dice.choice([*SCALARS, [1, "a"], {}]), "y": dice.choice(SCALARS), "deep": deep}
    offered["key"] = dice.choice(["k1", "k2", 3])
    return {name: value for name, value in offered.items() if dice.random() < 0.6}


# Up to a dozen events and receipts over some days, each event with an id of its own.
histories = st.lists(seeds, min_size=1, max_size=12).map(
    lambda drawn: [some_happening(Random(seed), number) for number, seed in enumerate(drawn)]
)
properties = seeds.map(lambda seed: some_properties(Random(seed)))


@dataclass
class Life:
    """One user, given inputs one by one; what came of it is kept."""

    catalog: Catalog
    user: User = REACHABLE
    older: bytes = b""
    now: int = BEGIN
    messages: list[Message] = field(default_factory=list)
    journal: list[JournalEntry] = field(default_factory=list)

    def give(self, input: UserInput) -> None:
        handled = handle(self.catalog, "t", "u", self.user, input, self.now, self.older)
        self.user, self.older = handled.user, handled.older
        self.messages += handled.messages
        self.journal += handled.journal

    def meet(self, happening: Happening) -> None:
        """Give what happens, now."""
        if happening.event is not None:
            self.give(happening.event)
        elif len(self.messages) >= happening.message:
            sent = self.messages[-happening.message]
            self.give(Receipt(sent.id, happening.status, self.now, sent.channel))

    def wait(self, until: int) -> None:
        """Let time pass, with a wake-up at every timer's own time."""
        while (due_at := earliest_due(self.user)) is not None and due_at <= until:
            self.now = max(self.now, due_at)
            self.give(WakeUp(due_at))
        self.now = until

    def told(self) -> list[JournalEntry]:
        """The journal without inputs that were dropped."""
        return [entry for entry in self.journal if entry.kind != "dropped"]


def catalog_of(*published: Journey) -> Catalog:
    catalog = Catalog()
    for journey in published:
        catalog = catalog.activate("t", journey)
    return catalog


def live(catalog: Catalog, history: Sequence[Happening], after_ms: int = 200 * HOUR) -> Life:
    """Play a history with a worker that is never down, and then some days more."""
    life = Life(catalog)
    for happening in history:
        life.wait(life.now + happening.pause)
        life.meet(happening)
    life.wait(life.now + after_ms)
    return life
