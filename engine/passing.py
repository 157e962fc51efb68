"""Whether an event passes a user by: nothing is due, and none of the user's runs and no journey asks for it.

Most events do. They cost a look at the names that journeys ask for, and nothing of a turn is begun: what is left to do is to
remember their ids.
"""

from msgspec.structs import replace

from engine import duplicates
from engine.catalog import Catalog
from engine.events import check
from schemas.inputs import Event
from schemas.state import User


def passes_by(event: Event, user: User, catalog: Catalog, tenant: str, now: int) -> bool:
    """Return True if a turn could do nothing with this event but remember its id."""
    name = event.name
    named = (tenant, name)
    if (catalog.shadows or user.shadows) and not _passes_shadows(event, user, catalog, tenant, now):
        return False
    if event.profile or named in catalog.asked_for:
        return False
    for run in user.runs:
        if not run.suspended and ((due_at := run.due_at) is not None and due_at <= now):
            return False
        if not run.suspended and ((look_at := run.look_at) is not None and look_at <= now):
            return False
        names = catalog.journeys[tenant, run.journey, run.version].hearing[run.step]
        if names is None or name in names or (catalog.steered and (tenant, run.journey) in catalog.steered):
            return False
    for goal in user.goals:
        names = catalog.journeys[tenant, goal.journey, goal.version].goal_names
        if names is None or name in names or goal.until_at < now:
            return False
    return True


def _passes_shadows(event: Event, user: User, catalog: Catalog, tenant: str, now: int) -> bool:
    """Does it pass by what would be, too? See `engine/shadows.py`."""
    shadows = catalog.shadows.get(tenant, {})
    if any(name not in shadows for name in user.shadows):
        return False  # one has ended: what is left of it goes
    for name, lane in catalog.in_shadow.get(tenant, {}).items():
        shade = user.shadows.get(name)
        if shade is None:
            runs = tuple([run for run in user.runs if run.journey == name])
            goals = tuple([goal for goal in user.goals if goal.journey == name])
        elif shade.began_at != shadows[name].began_at:
            return False
        else:
            runs, goals = shade.runs, shade.goals
        if not passes_by(event, User(runs=runs, goals=goals), lane, tenant, now):
            return False
    return True


def remember(event: Event, user: User, now: int, older: bytes) -> tuple[User, bytes] | None:
    """Return the user and the older ids with that of this event; None if it is known already. Raises InvalidInput."""
    check(event)
    seen = duplicates.noted(user.seen, older, event.id, now)
    if seen is None:
        return None
    if not duplicates.overflows(seen):
        return replace(user, seen=seen), older
    seen, older = duplicates.spill(seen, older, now)
    return replace(user, seen=seen, has_older=bool(older)), older
