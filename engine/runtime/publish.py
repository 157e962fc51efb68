"""What publishing a set of journeys comes to: the definitions to add, the activations, and what is refused.

A publication is one atomic append: the bodies to `definitions`, and an `Activated` record to every partition of `events`.
So a definition that is stored under a version has been activated, and publishing the same folder again changes nothing.
A version is never changed once published: a changed body under an old number is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from engine.definitions import freeze, thaw
from engine.errors import JourneyError
from engine.journey import Journey
from engine.runtime.host import Definitions
from schemas.definitions import Definition
from schemas.inputs import Activated
from schemas.records import NewRecord

Templates = Mapping[str, Mapping[str, str]]  # name -> part (subject, html, text, json) -> Liquid source


@dataclass(frozen=True, slots=True)
class Change:
    """What publishing does to one journey of one tenant. `before` is the version that was current."""

    tenant: str
    journey: Journey
    kind: Literal["new", "updated", "unchanged", "older"]
    before: int | None = None

    def __str__(self) -> str:
        label = f"{self.tenant}: {self.journey.label}"
        match self.kind:
            case "new":
                return f"{label} is new"
            case "updated":
                return f"{label} replaces v{self.before}; runs in v{self.before} finish there"
            case "unchanged":
                return f"{label} is unchanged"
            case "older":
                return f"{label} is not published: v{self.before} is active"


@dataclass(frozen=True, slots=True)
class Publication:
    """What to append, all or none, and what it means."""

    changes: Sequence[Change]
    definitions: Sequence[Definition] = field(default_factory=list)
    activations: Sequence[Activated] = field(default_factory=list)

    def records(self, partitions: int) -> list[NewRecord]:
        """Return the records of this publication for a host whose `events` has so many partitions."""
        bodies = [
            NewRecord("definitions", definition.key.encode(), msgspec.json.encode(definition))
            for definition in self.definitions
        ]
        return bodies + [
            NewRecord("events", None, msgspec.json.encode(activated), partition=partition)
            for activated in self.activations
            for partition in range(partitions)
        ]


def plan(
    tenants: Iterable[str], journeys: Sequence[Journey], templates: Templates, published: Definitions
) -> Publication:
    """Return what publishing these journeys for these tenants comes to; nothing is written.

    Raises JourneyError when a template is missing, two journeys have one name, or a published version was changed.
    """
    _refuse_namesakes(journeys)
    versions = _versions(published)
    changes: list[Change] = []
    definitions: dict[str, Definition] = {}
    activations: list[Activated] = []
    for tenant in tenants:
        for journey in journeys:
            *parts, frozen = freeze(tenant, journey, templates)
            before = max(versions.get((tenant, journey.name), []), default=None)
            change = _change(tenant, journey, frozen, before, published)
            changes.append(change)
            if change.kind in ("new", "updated"):
                definitions |= {each.key: each for each in [*parts, frozen] if published.find(each.key) is None}
                activations.append(Activated(tenant, "journey", journey.name, journey.version, frozen.hash))
    return Publication(changes, list(definitions.values()), activations)


def _refuse_namesakes(journeys: Sequence[Journey]) -> None:
    names: set[str] = set()
    for journey in journeys:
        if journey.name in names:
            raise JourneyError(f"two journeys are called {journey.name!r}; a name is one journey")
        names.add(journey.name)


def _versions(published: Definitions) -> dict[tuple[str, str], list[int]]:
    versions: dict[tuple[str, str], list[int]] = {}
    for definition in published.all():
        if definition.kind == "journey":
            versions.setdefault((definition.tenant, definition.name), []).append(definition.version)
    return versions


def _change(tenant: str, journey: Journey, frozen: Definition, before: int | None, published: Definitions) -> Change:
    known = published.find(frozen.key)
    if known is not None and known.hash != frozen.hash:
        raise JourneyError(_changed(journey, frozen, known, before or journey.version))
    if known is not None and journey.version == before:
        return Change(tenant, journey, "unchanged", before)
    if before is not None and journey.version < before:
        return Change(tenant, journey, "older", before)
    return Change(tenant, journey, "new" if before is None else "updated", before)


def _changed(journey: Journey, frozen: Definition, known: Definition, newest: int) -> str:
    """Say what differs from the published version, and what to do."""
    was, now = thaw(known), thaw(frozen)
    templates = [name for name, ref in now.templates.items() if was.templates.get(name, ref) != ref]
    steps = [name for name in {**was.steps, **now.steps} if was.steps.get(name) != now.steps.get(name)]
    what = (
        ", ".join([*(f"the template {name!r}" for name in templates), *(f"the step {name!r}" for name in steps)])
        or "its settings"
    )
    return (
        f"{journey.label} is published already and has changed since ({what}); a published version stays as it is:"
        f" give the journey version={newest + 1}"
    )
