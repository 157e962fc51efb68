"""What an operator's act comes to: to pause, resume, stop or retire a journey; to roll a definition back.

Like a publication it is one atomic append: how the name stands from now on, and a record to every partition. It takes
effect at that record: also for users who are not heard from, whom a sweep reaches.

    pause    runs stay where they are and their timers wait; nobody enters
    resume   runs go on; what is sent too late by then is dropped (`max_lateness`)
    stop     runs end, nobody enters
    retire   nobody enters; runs finish
    rollback another version that was published before is current; runs finish on the version they are in

A stopped or retired journey is opened again by a new version, or by a rollback to one it has.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from msgspec.structs import replace

from engine.errors import JourneyError
from engine.runtime.host import Definitions
from engine.runtime.publish import Publication, activate, shown
from engine.runtime.standings import Standings, as_definition
from schemas.definitions import Standing
from schemas.inputs import Controlled

Action = Literal["pause", "resume", "stop", "retire"]

MEANS: dict[Action, str] = {
    "pause": "paused: runs stay where they are, and nobody enters",
    "resume": "resumed: runs go on, and users enter",
    "stop": "stopped: runs end, and nobody enters",
    "retire": "retired: nobody enters, and runs finish",
}


@dataclass(frozen=True, slots=True)
class Act:
    """What to append, and in words what that does. Where there is nothing to do, nothing is appended."""

    publication: Publication
    words: str


def control(published: Definitions, tenant: str, journey: str, action: Action, now: int) -> Act:
    """Return what such an act comes to. Raises JourneyError if no such journey was published."""
    known = Standings(published)
    before = _known(known, tenant, "journey", journey)
    if already := _already(before, action):
        return Act(Publication(), f"{tenant}: {journey} {already}")
    match action:
        case "pause":
            after = replace(before, paused_at=now)
        case "resume":
            after = replace(before, paused_at=0)
        case "stop":
            after = replace(before, closed="stopped", closed_at=now)
        case "retire":
            after = replace(before, closed="retired", closed_at=now)
    publication = Publication(
        standings=[as_definition(tenant, "journey", journey, after)], controls=[Controlled(tenant, journey, action)]
    )
    return Act(publication, f"{tenant}: {journey} is {MEANS[action]}")


def rollback(published: Definitions, tenant: str, kind: str, name: str, version: int, now: int) -> Act:
    """Return what making a published version current again comes to. Raises JourneyError if it was never published."""
    known = Standings(published)
    before = _known(known, tenant, kind, name)
    frozen = published.find(f"{tenant}/{kind}/{name}@{version}")
    if frozen is None:
        there_are = ", ".join(f"v{each}" for each in known.versions(tenant, kind, name))
        raise JourneyError(f"{tenant}: {name} v{version} was never published; there are {there_are}")
    label = f"{tenant}: {name} v{version}"
    if version == before.version and not before.closed:
        return Act(Publication(), f"{label} is current already")
    activated, standing = activate(frozen, before, now)
    publication = Publication(activations=[activated], standings=[standing])
    if version == before.version:
        return Act(publication, f"{label} is open again")
    words = f"{label} is current, instead of v{before.version}"
    if kind == "journey":
        words += f"; runs in v{before.version} finish there"
    if before.paused_at:
        words += f"; it is paused since {shown(before.paused_at)}"
    return Act(publication, words)


def state_of(standing: Standing) -> str:
    """Say in words how a name stands."""
    said = []
    if standing.paused_at:
        said.append(f"paused since {shown(standing.paused_at)}")
    if standing.closed:
        said.append(f"{standing.closed} since {shown(standing.closed_at)}")
    return ", ".join(said) or "running"


def _already(before: Standing, action: Action) -> str:
    """Say why there is nothing to do, or nothing."""
    if action == "pause" and before.paused_at:
        return f"is paused already, since {shown(before.paused_at)}"
    if action == "resume" and not before.paused_at:
        return "is not paused"
    if (action == "stop" and before.closed == "stopped") or (action == "retire" and before.closed):
        return f"is {before.closed} already, since {shown(before.closed_at)}"
    return ""


def _known(known: Standings, tenant: str, kind: str, name: str) -> Standing:
    standing = known.of(tenant, kind, name)
    if standing is not None:
        return standing
    names = [each for (its_tenant, its_kind, each), _ in known.all() if (its_tenant, its_kind) == (tenant, kind)]
    near = get_close_matches(name, names, 1)
    there_are = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'none'}"
    raise JourneyError(f"the tenant {tenant!r} has no {kind} {name!r}; {there_are}")
