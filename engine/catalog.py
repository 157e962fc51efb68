"""Which definitions are current, for every tenant; and which journeys an event can concern.

A catalog is a value: activating a definition, or controlling a journey, gives a new one. Old versions stay, because runs
finish on the version they began with. Journeys are indexed by the names of the events that begin them, and so are the
questions to the past, so ten thousand of them cost nothing on an event that concerns none.

When something was activated or controlled is kept too: it takes effect for each user at that moment of the log, also for
those who are heard from later.
"""

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from engine.entries import Changed, Schedule
from engine.history import Tracker, merged, trackers_of
from engine.journey import Journey
from engine.policy import EVERYTHING_GOES, Policy

Versioned = tuple[str, str, int]  # tenant, journey, version
Named = tuple[str, str]  # tenant, and the name of a journey or an event


@dataclass(frozen=True, slots=True)
class Control:
    """What operators have said about a journey. Instants in ms; None where it isn't so."""

    paused_at: int | None = None
    stopped_at: int | None = None
    is_closed: bool = False  # nobody enters any more

    def stops(self, entered_at: int) -> bool:
        """Does this end a run that began then? In the very millisecond of the stop: unless the journey is open again."""
        if self.stopped_at is None:
            return False
        return entered_at < self.stopped_at or (entered_at == self.stopped_at and self.is_closed)


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that runs beside the active one of its name, unseen (`engine/shadows.py`), from `began_at` (ms) on."""

    journey: Journey
    began_at: int


@dataclass(frozen=True)
class Catalog:
    """The active definitions of one partition."""

    journeys: Mapping[Versioned, Journey] = field(default_factory=dict)
    current: Mapping[Named, int] = field(default_factory=dict)  # tenant, journey -> version
    activated_at: Mapping[Named, int] = field(default_factory=dict)  # tenant, journey -> when its current version was
    controls: Mapping[Named, Control] = field(default_factory=dict)  # tenant, journey
    steered: frozenset[Named] = frozenset()  # tenant, journey: paused, stopped, or moving runs of earlier versions
    policies: Mapping[str, Policy] = field(default_factory=dict)  # tenant
    entries: Mapping[Named, tuple[Journey, ...]] = field(default_factory=dict)  # tenant, event
    changes: Mapping[str, tuple[Journey, ...]] = field(default_factory=dict)  # tenant -> entered when attributes change
    trackers: Mapping[Named, tuple[Tracker, ...]] = field(default_factory=dict)  # tenant, event
    shadows: Mapping[str, Mapping[str, Shadow]] = field(default_factory=dict)  # tenant -> journey; no empty ones

    def activate(self, tenant: str, journey: Journey, at: int = 0) -> "Catalog":
        """Return the catalog in which this version is the journey's current one, from `at` (ms) on."""
        return self.activate_all([(tenant, journey, at)])

    def activate_all(self, activations: Iterable[tuple[str, Journey, int]]) -> "Catalog":
        """Return the catalog after so many activations, one after the other, each as (tenant, journey, since when in ms).

        The indexes are copied once, not for each: ten thousand definitions are a tenth of a second, not a few.
        """
        journeys, current, activated_at = dict(self.journeys), dict(self.current), dict(self.activated_at)
        controls, steered = dict(self.controls), set(self.steered)
        entries, changes, trackers = dict(self.entries), dict(self.changes), dict(self.trackers)
        for tenant, journey, at in activations:
            name = (tenant, journey.name)
            if name in current:
                _take_out(journeys[tenant, journey.name, current[name]], tenant, entries, changes)
            if name in controls:
                controls[name] = replace(controls[name], is_closed=False)
            if journey.moves:
                steered.add(name)
            journeys[tenant, journey.name, journey.version] = journey
            current[name] = journey.version
            activated_at[name] = at
            for event in sorted(journey.entry_names):
                entries[tenant, event] = _with(entries.get((tenant, event), ()), journey)
            if isinstance(journey.entry, Changed):
                changes[tenant] = _with(changes.get(tenant, ()), journey)
            for tracker in trackers_of(journey):
                asked = (tenant, tracker.event.name)
                trackers[asked] = tuple(merged([*trackers.get(asked, ()), tracker]))
        return replace(
            self, journeys=journeys, current=current, activated_at=activated_at, controls=controls,
            steered=frozenset(steered), entries=entries, changes=changes, trackers=trackers,
        )  # fmt: skip

    def activate_policy(self, tenant: str, policy: Policy) -> "Catalog":
        return replace(self, policies={**self.policies, tenant: policy})

    def control(
        self, tenant: str, name: str, action: Literal["pause", "resume", "stop", "retire"], at: int
    ) -> "Catalog":
        """Return the catalog after an operator has paused, resumed, stopped or retired a journey."""
        before = self.controls.get((tenant, name), Control())
        match action:
            case "pause":
                after = replace(before, paused_at=at if before.paused_at is None else before.paused_at)
            case "resume":
                after = replace(before, paused_at=None)
            case "stop":
                after = replace(before, stopped_at=at, is_closed=True)
            case "retire":
                after = replace(before, is_closed=True)
        return self.with_control(tenant, name, after)

    def with_control(self, tenant: str, name: str, control: Control) -> "Catalog":
        """Return the catalog in which a journey is controlled like this."""
        named = (tenant, name)
        controlled = replace(self, controls={**self.controls, named: control}, steered=self.steered | {named})
        return controlled.without_entries(tenant, name) if control.is_closed else controlled

    def with_shadow(self, tenant: str, journey: Journey, at: int) -> "Catalog":
        """Return the catalog in which a version runs as a shadow from `at` (ms) on, instead of an earlier one of its name."""
        of_tenant = {**self.shadows.get(tenant, {}), journey.name: Shadow(journey, at)}
        return replace(self, shadows={**self.shadows, tenant: of_tenant})

    def without_shadow(self, tenant: str, name: str) -> "Catalog":
        """Return the catalog in which a journey has no shadow."""
        rest = {each: shadow for each, shadow in self.shadows.get(tenant, {}).items() if each != name}
        others = {each: shadows for each, shadows in self.shadows.items() if each != tenant}
        return replace(self, shadows={**others, tenant: rest} if rest else others)

    @cached_property
    def asked_for(self) -> frozenset[Named]:
        """The events, as (tenant, name), that can begin a run or answer a question to the past."""
        return frozenset([*(named for named, journeys in self.entries.items() if journeys), *self.trackers])

    @cached_property
    def in_shadow(self) -> Mapping[str, Mapping[str, "Catalog"]]:
        """For every shadow, by tenant and name: what would be active of this journey if the shadow had been activated."""
        return {
            tenant: {name: self._as_if_activated(tenant, shadow) for name, shadow in shadows.items()}
            for tenant, shadows in self.shadows.items()
        }

    def _as_if_activated(self, tenant: str, shadow: Shadow) -> "Catalog":
        named = (tenant, shadow.journey.name)
        catalog = Catalog(policies={tenant: self.policy_of(tenant)})
        for key in sorted(key for key in self.journeys if key[:2] == named):
            catalog = catalog.activate(tenant, self.journeys[key])
        catalog = catalog.activate(tenant, shadow.journey, shadow.began_at)
        control = self.controls.get(named)
        return catalog if control is None else catalog.with_control(*named, control)

    def of(self, tenant: str, name: str) -> Journey | None:
        """Return the current version of a journey."""
        version = self.current.get((tenant, name))
        return None if version is None else self.journeys[tenant, name, version]

    def admits(self, tenant: str, name: str) -> bool:
        """May anybody enter a journey at the moment, as far as operators are concerned?"""
        control = self.controls.get((tenant, name))
        return control is None or (control.paused_at is None and not control.is_closed)

    def policy_of(self, tenant: str) -> Policy:
        return self.policies.get(tenant, EVERYTHING_GOES)

    def beginning_with(self, tenant: str, event: str) -> tuple[Journey, ...]:
        """Return the current journeys that an event of this name can begin, ordered by name."""
        return self.entries.get((tenant, event), ())

    def tracking(self, tenant: str, event: str) -> tuple[Tracker, ...]:
        """Return the questions to the past that an event of this name is for."""
        return self.trackers.get((tenant, event), ())

    def active(self) -> Iterator[tuple[str, Journey]]:
        """Yield (tenant, journey) for every current version, in order."""
        for tenant, name in sorted(self.current):
            yield tenant, self.journeys[tenant, name, self.current[tenant, name]]

    def without_entries(self, tenant: str, name: str) -> "Catalog":
        """Return the catalog in which nothing begins a run of a journey."""
        current = self.of(tenant, name)
        if current is None:
            return self
        entries, changes = dict(self.entries), dict(self.changes)
        _take_out(current, tenant, entries, changes)
        return replace(self, entries=entries, changes=changes)


def _take_out(
    journey: Journey, tenant: str, entries: dict[Named, tuple[Journey, ...]], changes: dict[str, tuple[Journey, ...]]
) -> None:
    """Let nothing begin a run of a journey any more."""
    for event in sorted(journey.entry_names):
        entries[tenant, event] = tuple(each for each in entries.get((tenant, event), ()) if each.name != journey.name)
    if isinstance(journey.entry, Changed):
        changes[tenant] = tuple(each for each in changes.get(tenant, ()) if each.name != journey.name)


def _with(journeys: Sequence[Journey], journey: Journey) -> tuple[Journey, ...]:
    """Return the journeys, ordered by name, with one more."""
    together = list(journeys)
    insort(together, journey, key=lambda each: each.name)
    return tuple(together)


def schedule_of(journey: Journey | None) -> Schedule | None:
    """Return the schedule by which a journey is entered, if it is."""
    return journey.entry if journey is not None and isinstance(journey.entry, Schedule) else None
