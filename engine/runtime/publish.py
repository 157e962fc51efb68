"""What publishing journeys and a policy comes to: the definitions to add, the activations, and what is refused.

A publication is one atomic append: the bodies to `definitions` with how each name stands from now on, and an `Activated`
record to every partition of `events`. Publishing the same folder again changes nothing. A version is never changed once
published: a changed body under an old number is refused. And what an operator has rolled back stays rolled back: a version
that was published before is made current by nobody but an operator.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from engine.definitions import freeze, freeze_policy, thaw
from engine.diff import compare
from engine.errors import JourneyError
from engine.journey import Journey
from engine.lint.table import broken_promise
from engine.policy import Policy
from engine.runtime.host import Definitions
from engine.runtime.standings import Standings, as_definition
from schemas.definitions import Definition, Standing
from schemas.inputs import Activated, Controlled
from schemas.records import NewRecord

Templates = Mapping[str, Mapping[str, str]]  # name -> part (subject, html, text, json) -> Liquid source


@dataclass(frozen=True, slots=True)
class Change:
    """What publishing does to one definition of one tenant. `before` is how its name stood, `newest` its highest version."""

    tenant: str
    definition: Journey | Policy
    kind: Literal["new", "updated", "unchanged", "older", "rolled_back"]
    before: Standing | None = None
    newest: int = 0
    details: Sequence[str] = ()  # what is different from the version before, in words

    def __str__(self) -> str:
        label, version = f"{self.tenant}: {self.definition.label}", self.definition.version
        current = 0 if self.before is None else self.before.version
        match self.kind:
            case "new":
                return f"{label} is new"
            case "updated":
                return f"{label} replaces v{current}{self._of_runs(current)}{self._of_state()}"
            case "unchanged":
                return f"{label} is unchanged{self._of_state()}"
            case "rolled_back":
                assert self.before is not None
                return (
                    f"{label} is not made current again: v{current} is, since {shown(self.before.since_at)}, by an"
                    f" operator; {self._again()}, or give it version={self.newest + 1}"
                )
            case "older":
                if version > current:
                    return f"{label} is not published: v{self.newest} has been; give it version={self.newest + 1}"
                return f"{label} is not published: v{current} is active"

    def _of_runs(self, current: int) -> str:
        if not isinstance(self.definition, Journey):
            return ""
        if self.definition.moves:
            return f"; runs in v{current} move where its `moves` say so, the others finish there"
        return f"; runs in v{current} finish there"

    def _of_state(self) -> str:
        """Say what is out of the ordinary about the name."""
        standing = self.before
        if standing is None or not isinstance(self.definition, Journey):
            return ""
        said = ""
        if standing.paused_at:
            undo = f"equeengage journey resume {self.definition.name}"
            said += f"; it is paused since {shown(standing.paused_at)}, until: {undo}"
        if standing.closed and self.kind == "unchanged":
            undo = f"equeengage journey rollback {self.definition.name} {standing.version}"
            said += f"; it is {standing.closed} since {shown(standing.closed_at)}, until: {undo}"
        return said

    def _again(self) -> str:
        definition = self.definition
        what = f"journey rollback {definition.name}" if isinstance(definition, Journey) else "policy rollback"
        return f"to go back to it: equeengage {what} {definition.version}"


@dataclass(frozen=True, slots=True)
class Publication:
    """What to append, all or none, and what it means."""

    changes: Sequence[Change] = ()
    definitions: Sequence[Definition] = field(default_factory=list)
    activations: Sequence[Activated] = field(default_factory=list)
    standings: Sequence[Definition] = field(default_factory=list)
    controls: Sequence[Controlled] = field(default_factory=list)

    def records(self, partitions: int) -> list[NewRecord]:
        """Return the records of this publication for a host whose `events` has so many partitions."""
        bodies = [
            NewRecord("definitions", definition.key.encode(), msgspec.json.encode(definition))
            for definition in (*self.definitions, *self.standings)
        ]
        return bodies + [
            NewRecord("events", None, msgspec.json.encode(input), partition=partition)
            for input in (*self.activations, *self.controls)
            for partition in range(partitions)
        ]


def plan(
    tenants: Iterable[str],
    journeys: Sequence[Journey],
    templates: Templates,
    published: Definitions,
    policy: Policy | None = None,
    now: int | None = None,
) -> Publication:
    """Return what publishing these definitions for these tenants comes to; nothing is written. `now`: ms, default the clock's.

    Raises JourneyError when a template is missing, two journeys have one name, a published version was changed, or a journey
    does not keep what its `at_most` promises.
    """
    _refuse_namesakes(journeys)
    at = time.time_ns() // 1_000_000 if now is None else now
    known = Standings(published)
    changes: list[Change] = []
    definitions: dict[str, Definition] = {}
    activations: list[Activated] = []
    standings: list[Definition] = []
    for tenant in tenants:
        frozen_ones: list[tuple[Journey | Policy, list[Definition]]] = [
            (journey, freeze(tenant, journey, templates)) for journey in journeys
        ]
        if policy is not None:
            frozen_ones.append((policy, [freeze_policy(tenant, policy)]))
        for each, (*parts, frozen) in frozen_ones:
            change = _change(each, frozen, known, published, templates)
            changes.append(change)
            if change.kind in ("new", "updated"):
                _refuse_broken_promise(each)
                definitions |= {part.key: part for part in [*parts, frozen] if published.find(part.key) is None}
                activated, standing = activate(frozen, change.before, at)
                activations.append(activated)
                standings.append(standing)
    return Publication(changes, list(definitions.values()), activations, standings)


def _refuse_broken_promise(definition: Journey | Policy) -> None:
    for finding in broken_promise(definition) if isinstance(definition, Journey) else ():
        raise JourneyError(f"{definition.label}: {finding}")


def activate(frozen: Definition, before: Standing | None, at: int) -> tuple[Activated, Definition]:
    """Return what makes a definition current, and how its name stands then: open to entries, paused if it was."""
    activated = Activated(frozen.tenant, frozen.kind, frozen.name, frozen.version, frozen.hash)
    now = replace(before or Standing(0), version=frozen.version, since_at=at, closed="", closed_at=0)
    return activated, as_definition(frozen.tenant, frozen.kind, frozen.name, now)


def _refuse_namesakes(journeys: Sequence[Journey]) -> None:
    names: set[str] = set()
    for journey in journeys:
        if journey.name in names:
            raise JourneyError(f"two journeys are called {journey.name!r}; a name is one journey: rename one of them")
        names.add(journey.name)


def _change(
    definition: Journey | Policy, frozen: Definition, known: Standings, published: Definitions, templates: Templates
) -> Change:
    tenant, kind, name, version = frozen.tenant, frozen.kind, frozen.name, frozen.version
    same = published.find(frozen.key)
    newest = max(known.versions(tenant, kind, name), default=0)
    if same is not None and same.hash != frozen.hash:
        raise JourneyError(_refusal(definition, frozen, same, newest))
    before = known.of(tenant, kind, name)
    if before is None:
        return Change(tenant, definition, "new", newest=version)
    if version == before.version:
        return Change(tenant, definition, "unchanged", before, newest)
    if version < newest or same is not None:
        rolled_back = same is not None and version > before.version
        return Change(tenant, definition, "rolled_back" if rolled_back else "older", before, newest)
    current = published.find(f"{tenant}/{kind}/{name}@{before.version}")
    details = [] if current is None else _details(current, frozen, templates, published)
    return Change(tenant, definition, "updated", before, newest, details)


def _refusal(definition: Journey | Policy, frozen: Definition, known: Definition, newest: int) -> str:
    """Say what differs from the published version, and what to do."""
    if isinstance(definition, Policy):
        what = ", ".join(_fields_that_differ(known, frozen))
        remedy = f"give the policy version={newest + 1}"
    else:
        was, now = thaw(known), thaw(frozen)
        names = [name for name, ref in now.templates.items() if was.templates.get(name, ref) != ref]
        steps = [name for name in {**was.steps, **now.steps} if was.steps.get(name) != now.steps.get(name)]
        parts = [*(f"the template {name!r}" for name in names), *(f"the step {name!r}" for name in steps)]
        what = ", ".join(parts) or "its settings"
        remedy = f"give the journey version={newest + 1}"
    return (
        f"{definition.label} is published already and has changed since ({what}); a published version stays as it is:"
        f" {remedy}"
    )


def _details(before: Definition, after: Definition, templates: Templates, published: Definitions) -> list[str]:
    """Say in words what is different, a line each."""
    if after.kind == "policy":
        return [f"{name} has changed" for name in _fields_that_differ(before, after)]
    was, now = thaw(before), thaw(after)
    difference = compare(was, now, _texts(was, before.tenant, published), templates)
    signs = {"added": "is new: ", "removed": "is gone: ", "renamed": "", "changed": ""}
    lines = [f"{change.place}: {change.words}" for change in difference.rules]
    lines += [f"{change.place!r} {signs[change.kind]}{change.words}" for change in difference.steps]
    texts = dict.fromkeys(text.template for text in difference.texts)
    return lines + [f"the template {name!r} has another text" for name in texts]


def _texts(journey: Journey, tenant: str, published: Definitions) -> dict[str, dict[str, str]]:
    """Return the parts of the templates that a published version sends."""
    found = {name: published.find(f"{tenant}/template/{ref}") for name, ref in journey.templates.items()}
    return {name: msgspec.json.decode(each.body) for name, each in found.items() if each is not None}


def _fields_that_differ(one: Definition, other: Definition) -> list[str]:
    before, after = msgspec.json.decode(one.body), msgspec.json.decode(other.body)
    return [name for name in {**before, **after} if name != "version" and before.get(name) != after.get(name)]


def shown(at: int) -> str:
    """Return an instant (ms) for people."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
