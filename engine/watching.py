"""How the conditions of a definition are watched, or turned round, without the engine knowing.

A copy of the definition has conditions of other classes, which note what they saw before they answer as ever; or one leaf of
one of them says the opposite. The catalog with the copies in it is folded by `handle` like any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from typing import Any, TypeVar

from engine.catalog import Catalog
from engine.conditions import AllOf, Answer, AnyOf, Condition, Did, Facts, Not, On, Profile, ReceiptOf, Where
from engine.journey import Journey
from engine.judging import Judged, Path, judge, with_flipped

KINDS = (Where, Profile, Answer, On, Did, ReceiptOf, AllOf, AnyOf, Not)
MAX_CONDITIONS = 1000  # of one step

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a condition stands: in which version, at "entry", "exit_on", "goal" or a step, and as the how-manieth there."""

    journey: str
    version: int
    place: str
    number: int


@dataclass(frozen=True, slots=True)
class Seen:
    """That a condition was judged; `name` is that of the event at hand."""

    where: Address
    original: Condition
    judged: Judged
    name: str | None

    @property
    def place(self) -> str:
        return self.where.place

    @property
    def version(self) -> int:
        return self.where.version


@dataclass
class Watch:
    """Where watched conditions note what they saw, in the order in which they are asked."""

    looks: list[Seen] = field(default_factory=list)


def watched_catalog(catalog: Catalog, tenant: str, journey: str, watch: Watch) -> Catalog:
    """Return the catalog in which the conditions of one journey's versions are watched, and all else is as it was."""

    def swap(where: Address, condition: Condition) -> Condition:
        return _watched(condition, where, watch)

    return _rebuilt(catalog, tenant, journey, swap)


def flipped_catalog(catalog: Catalog, tenant: str, where: Address, path: Path) -> Catalog:
    """Return the catalog in which one leaf of one condition says the opposite."""

    def swap(at: Address, condition: Condition) -> Condition:
        return with_flipped(condition, path) if at == where else condition

    return _rebuilt(catalog, tenant, where.journey, swap)


Swap = Callable[[Address, Condition], Condition]


def _rebuilt(catalog: Catalog, tenant: str, journey: str, swap: Swap) -> Catalog:
    """Return the catalog with other conditions in the versions of a journey. What it is indexed by stays as it was."""
    copies = {
        key: _with_conditions(each, swap)
        for key, each in catalog.journeys.items()
        if key[0] == tenant and key[1] == journey
    }

    def swapped(journeys: Sequence[Journey]) -> tuple[Journey, ...]:
        return tuple(copies.get((tenant, each.name, each.version), each) for each in journeys)

    return replace(
        catalog,
        journeys={**catalog.journeys, **copies},
        entries={name: swapped(each) if name[0] == tenant else each for name, each in catalog.entries.items()},
        changes={name: swapped(each) if name == tenant else each for name, each in catalog.changes.items()},
    )


def _with_conditions(journey: Journey, swap: Swap) -> Journey:
    def at(place: str, value: T) -> T:
        numbers = iter(range(MAX_CONDITIONS))
        return _substituted(
            value, lambda condition: swap(Address(journey.name, journey.version, place, next(numbers)), condition)
        )

    return _copied(
        journey,
        entry=at("entry", journey.entry),
        exit_on=at("exit_on", journey.exit_on),
        goal=at("goal", journey.goal),
        steps={name: at(name, step) for name, step in journey.steps.items()},
    )


def _substituted(value: T, swap: Callable[[Condition], Condition]) -> T:
    """Return a step, an entry or a goal with other conditions, wherever in it they stand."""
    result: Any = value
    if isinstance(value, KINDS):
        result = swap(value)
    elif isinstance(value, tuple | list):
        result = type(value)(_substituted(item, swap) for item in value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: getattr(value, each.name) for each in fields(value)}
        result = _copied(value, **{name: _substituted(part, swap) for name, part in parts.items()})
    return result  # type: ignore[no-any-return]


def _copied(value: T, /, **changes: Any) -> T:
    """Return a copy with other fields, unchecked: what is put in is like what was there, and not of its class.

    What the original has worked out from its fields is not copied: it holds the conditions that are put aside.
    """
    copy = object.__new__(type(value))
    copy.__dict__.update({each.name: getattr(value, each.name) for each in fields(value)})  # type: ignore[arg-type]
    copy.__dict__.update(changes)
    return copy


def _watched(condition: Condition, where: Address, watch: Watch) -> Condition:
    kind: Any = type(condition)
    copy: Any = object.__new__(_watching(kind))
    copy.__dict__.update(condition.__dict__)
    copy.__dict__["watched"] = (condition, where, watch)
    return copy  # type: ignore[no-any-return]


@cache
def _watching(kind: Any) -> Any:
    """Return the subclass of a kind of condition that notes what it saw."""

    def holds(self: Any, facts: Facts) -> bool:
        condition, where, watch = self.__dict__["watched"]
        judged = judge(condition, facts)
        watch.looks.append(Seen(where, condition, judged, facts.name))
        return judged.holds

    return type(f"Watched{kind.__name__}", (kind,), {"holds": holds})
