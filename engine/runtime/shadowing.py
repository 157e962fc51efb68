"""How a shadow is begun and ended: a version that runs beside the active one, unseen (see `engine/shadows.py`).

Like a publication it is one atomic append: the body, how the shadow stands from now on, and a record to every partition.
The body is kept by its content, not under its number: a version that was only tried as a shadow is not published, and may be
changed and tried again.
"""

from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from engine.catalog import schedule_of
from engine.definitions import thaw
from engine.errors import JourneyError
from engine.journey import Journey
from engine.runtime.controls import Act
from engine.runtime.host import Definitions
from engine.runtime.publish import Publication, shown
from engine.runtime.standings import Standings, as_definition
from engine.shadows import MAX_SHADOWS
from schemas.definitions import STANDING, Definition, Standing
from schemas.inputs import Activated

SHADOW = "shadow"  # the kind of such a definition


def begin(published: Definitions, tenant: str, version: Definition, now: int) -> Act:
    """Return what letting a version, as it is frozen, run as a shadow comes to. Raises JourneyError if it can't be one."""
    journey = thaw(version)
    active = Standings(published).of(tenant, "journey", journey.name)
    _refuse(published, tenant, version, journey, active)
    before = standing_of(published, tenant, journey.name)
    if before is not None and not before.closed and before.hash == version.hash:
        since = shown(before.since_at)
        return Act(Publication(), f"{tenant}: {journey.label} runs as a shadow already, since {since}")
    others = [name for name, standing in running(published, tenant) if name != journey.name]
    if len(others) >= MAX_SHADOWS:
        raise JourneyError(
            f"{len(others)} shadows run already ({', '.join(others)}), and each costs a fold more: end one first, with:"
            f" equeengage shadow stop {others[0]}"
        )
    standing = Standing(journey.version, since_at=now, hash=version.hash)
    publication = Publication(
        definitions=[Definition(tenant, SHADOW, journey.name, 0, version.hash, version.body)],
        activations=[Activated(tenant, SHADOW, journey.name, journey.version, version.hash)],
        standings=[as_definition(tenant, SHADOW, journey.name, standing)],
    )
    beside = "no active version" if active is None else f"v{active.version}"
    instead = "" if before is None or before.closed else f", instead of its shadow v{before.version}"
    return Act(
        publication, f"{tenant}: {journey.label} runs as a shadow beside {beside}{instead}; nothing of it is sent"
    )


def end(published: Definitions, tenant: str, name: str, now: int) -> Act:
    """Return what ending a journey's shadow comes to. Raises JourneyError if none ever ran."""
    before = standing_of(published, tenant, name)
    if before is None:
        raise JourneyError(f"the tenant {tenant!r} has no shadow of {name!r}; {_there_are(published, tenant)}")
    if before.closed:
        return Act(Publication(), f"{tenant}: the shadow of {name} has ended already, {shown(before.closed_at)}")
    after = replace(before, closed="stopped", closed_at=now)
    publication = Publication(
        activations=[Activated(tenant, SHADOW, name, before.version, "")],
        standings=[as_definition(tenant, SHADOW, name, after)],
    )
    return Act(publication, f"{tenant}: the shadow v{before.version} of {name} has ended; its report stays")


def standing_of(published: Definitions, tenant: str, name: str) -> Standing | None:
    """Return how a journey's shadow stands (`closed`: it has ended), or None if there never was one."""
    kept = published.find(f"{tenant}/{STANDING}/{SHADOW}/{name}")
    return None if kept is None else msgspec.json.decode(kept.body, type=Standing)


def body_of(published: Definitions, tenant: str, name: str, standing: Standing) -> Journey | None:
    """Return the version that runs, or ran last, as a shadow."""
    kept = published.find(f"{tenant}/{SHADOW}/{name}@{standing.hash[:12]}")
    return None if kept is None else thaw(kept)


def running(published: Definitions, tenant: str) -> Iterator[tuple[str, Standing]]:
    """Yield (journey, how it stands) for every shadow of a tenant that runs, in order."""
    prefix = f"{SHADOW}/"
    names = sorted(
        each.name.removeprefix(prefix)
        for each in published.all()
        if (each.tenant, each.kind) == (tenant, STANDING) and each.name.startswith(prefix)
    )
    for name in names:
        standing = standing_of(published, tenant, name)
        if standing is not None and not standing.closed:
            yield name, standing


def _refuse(
    published: Definitions, tenant: str, version: Definition, journey: Journey, active: Standing | None
) -> None:
    """Raise JourneyError for a version that would tell nothing as a shadow, or not the truth."""
    same = published.find(f"{tenant}/journey/{journey.name}@{journey.version}")
    if same is not None and same.hash != version.hash:
        newest = max(Standings(published).versions(tenant, "journey", journey.name))
        raise JourneyError(
            f"{journey.label} is published with another body, and runs of it are told by their number: give this one"
            f" version={newest + 1}"
        )
    if active is None:
        if schedule_of(journey) is not None:
            raise JourneyError(f"{journey.label} is entered by a schedule, and no active version has that schedule")
        return
    if active.version == journey.version:
        raise JourneyError(f"{journey.label} is the active version; its shadow would do the same")
    if active.closed:
        raise JourneyError(
            f"{journey.name} is {active.closed}, which holds for its shadow too; to open it: equeengage journey rollback"
            f" {journey.name} {active.version}"
        )
    current = published.find(f"{tenant}/journey/{journey.name}@{active.version}")
    schedule = schedule_of(journey)
    if schedule is not None and (current is None or schedule_of(thaw(current)) != schedule):
        raise JourneyError(
            f"{journey.label} is entered {schedule}, and v{active.version} is not: a shadow has only the active version's"
            " schedule. Keep the entry for the trial, or try it with: equeengage backtest"
        )


def _there_are(published: Definitions, tenant: str) -> str:
    names = [name for name, _ in running(published, tenant)]
    return f"there are {', '.join(names)}" if names else "none runs"
