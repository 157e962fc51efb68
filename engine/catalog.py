"""Which definitions are current, for every tenant; and which journeys an event can concern.

A catalog is a value: activating a definition gives a new one. Old versions stay, because runs finish on the version they
began with. Journeys are indexed by the names of the events that begin them, so ten thousand of them cost nothing on an
event that concerns none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from engine.journey import Journey

Versioned = tuple[str, str, int]  # tenant, journey, version


@dataclass(frozen=True)
class Catalog:
    """The active definitions of one partition."""

    journeys: Mapping[Versioned, Journey] = field(default_factory=dict)
    current: Mapping[tuple[str, str], int] = field(default_factory=dict)  # tenant, journey -> version
    entries: Mapping[tuple[str, str], tuple[Journey, ...]] = field(default_factory=dict)  # tenant, event -> journeys

    def activate(self, tenant: str, journey: Journey) -> "Catalog":
        """Return the catalog in which this version is the journey's current one."""
        journeys = {**self.journeys, (tenant, journey.name, journey.version): journey}
        current = {**self.current, (tenant, journey.name): journey.version}
        entries = dict(self.entries)
        before = self.of(tenant, journey.name)
        for name in sorted(before.entry_names) if before else ():
            entries[tenant, name] = tuple(other for other in entries[tenant, name] if other.name != journey.name)
        for name in sorted(journey.entry_names):
            others = entries.get((tenant, name), ())
            entries[tenant, name] = tuple(sorted([*others, journey], key=lambda each: each.name))
        return replace(self, journeys=journeys, current=current, entries=entries)

    def of(self, tenant: str, name: str) -> Journey | None:
        """Return the current version of a journey."""
        version = self.current.get((tenant, name))
        return None if version is None else self.journeys[tenant, name, version]

    def beginning_with(self, tenant: str, event: str) -> tuple[Journey, ...]:
        """Return the current journeys that an event of this name can begin, ordered by name."""
        return self.entries.get((tenant, event), ())

    def active(self) -> Iterator[tuple[str, Journey]]:
        """Yield (tenant, journey) for every current version, in order."""
        for tenant, name in sorted(self.current):
            yield tenant, self.journeys[tenant, name, self.current[tenant, name]]
