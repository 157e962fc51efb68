"""Which definitions are current, for every tenant; and which journeys an event can concern.

A catalog is a value: activating a definition, or controlling a journey, gives a new one. Old versions stay, because runs
finish on the version they began with. Journeys are indexed by the names of the events that begin them, and so are the
questions to the past, so ten thousand of them cost nothing on an event that concerns none.

When something was activated or controlled is kept too: it takes effect for each user at that moment of the log, also for
those who are heard from later.
"""

from collections.abc import Iterator, Mapping
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
        name = (tenant, journey.name)
        controls, steered = self.controls, self.steered
        if name in controls:
            controls = {**controls, name: replace(controls[name], is_closed=False)}
        if journey.moves:
            steered = steered | {name}
        return replace(
            self.without_entries(tenant, journey.name),
            journeys={**self.journeys, (tenant, journey.name, journey.version): journey},
            current={**self.current, name: journey.version},
            activated_at={**self.activated_at, name: at},
            controls=controls,
            steered=steered,
            trackers=self._tracking(tenant, journey),
        )._with_entries(tenant, journey)

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
        entries = dict(self.entries)
        for event in sorted(current.entry_names):
            entries[tenant, event] = tuple(other for other in entries.get((tenant, event), ()) if other.name != name)
        changes = tuple(other for other in self.changes.get(tenant, ()) if other.name != name)
        return replace(self, entries=entries, changes={**self.changes, tenant: changes})

    def _with_entries(self, tenant: str, journey: Journey) -> "Catalog":
        entries, changes = dict(self.entries), self.changes
        for event in sorted(journey.entry_names):
            entries[tenant, event] = _ordered([*entries.get((tenant, event), ()), journey])
        if isinstance(journey.entry, Changed):
            changes = {**changes, tenant: _ordered([*changes.get(tenant, ()), journey])}
        return replace(self, entries=entries, changes=changes)

    def _tracking(self, tenant: str, journey: Journey) -> Mapping[Named, tuple[Tracker, ...]]:
        trackers = dict(self.trackers)
        for tracker in trackers_of(journey):
            name = (tenant, tracker.event.name)
            trackers[name] = tuple(merged([*trackers.get(name, ()), tracker]))
        return trackers


def _ordered(journeys: list[Journey]) -> tuple[Journey, ...]:
    return tuple(sorted(journeys, key=lambda each: each.name))


def schedule_of(journey: Journey | None) -> Schedule | None:
    """Return the schedule by which a journey is entered, if it is."""
    return journey.entry if journey is not None and isinstance(journey.entry, Schedule) else None
