"""What of a user's runs is due first: a timer, or what an operator or a new version has done to a run meanwhile.

A run has up to two timers: the end of its wait (`due_at`), and the moment at which time alone may end it before (`look_at`).
What was done to its journey counts as due at the moment it was done. So a user who is heard from later comes to the same as
one who was heard from at once.
"""

from collections.abc import Callable, Iterator, Sequence

from engine import machine
from engine.catalog import Catalog
from engine.journey import EXIT
from engine.machine import Move
from schemas.state import Run, User

Moving = Callable[..., Move | None]


def first_due(runs: Sequence[Run], catalog: Catalog, tenant: str, now: int) -> tuple[int, Run, Moving] | None:
    """Return (when, run, what to do with it) for what is due first at or before `now`; the oldest run among equals."""
    first: tuple[int, Run, Moving] | None = None
    steered = catalog.steered
    for run in runs:
        is_steered = bool(steered) and (tenant, run.journey) in steered
        if is_steered:
            for at, move in _done_to(run, catalog, tenant):
                if at <= now and (first is None or at < first[0]):
                    first = (at, run, move)
        for due_at in (run.due_at, run.look_at):
            if due_at is None or due_at > now or run.suspended or (first is not None and due_at >= first[0]):
                continue
            if not is_steered or not _is_held_up(run, due_at, catalog, tenant):
                first = (due_at, run, machine.time_out)
    return first


def earliest_due(user: User, catalog: Catalog | None = None, tenant: str = "") -> int | None:
    """Return when the user's next timer is due, or None.

    A suspended run has no timer; nor has one of a paused journey, unless it was due before the pause. A user who waits for an
    alias has that timer only.
    """
    if user.identity is not None and user.identity.awaited:
        return user.identity.until_at
    first: int | None = None
    runs = user.runs
    if user.shadows:
        runs = (*runs, *(run for shade in user.shadows.values() for run in shade.runs))
    for run in runs:
        for at in (run.due_at, run.look_at):
            if at is None or run.suspended or (first is not None and first <= at):
                continue
            if catalog is None or not catalog.steered or not _is_held_up(run, at, catalog, tenant):
                first = at
    return first


def moving_to(version: int) -> str:
    """Return how the reason begins for which a run is suspended that a new version could not take over."""
    return f"moving to v{version}: "


def _done_to(run: Run, catalog: Catalog, tenant: str) -> Iterator[tuple[int, Moving]]:
    """Yield what operators and new versions have done to a run, and when."""
    name = (tenant, run.journey)
    control = catalog.controls.get(name)
    if control is not None and control.stopped_at is not None and control.stops(run.entered_at):
        yield control.stopped_at, machine.stop
    current = catalog.of(tenant, run.journey)
    if current is not None and run.version < current.version and run.step in current.moves and run.visit > 0:
        if run.suspended.startswith(moving_to(current.version)):
            return  # It was tried and failed: again only when the run is resumed, or by another version.
        target = current.moves[run.step]
        at = max(catalog.activated_at[name], run.arrived_at)
        if target == EXIT:
            yield at, lambda journey, run, place: machine.end(run, f"moved out by v{current.version}", place)
        else:
            yield at, lambda journey, run, place: machine.move_to(current, run, target, place)


def _is_held_up(run: Run, at: int, catalog: Catalog, tenant: str) -> bool:
    """Is what is due at this time held up by a pause?"""
    control = catalog.controls.get((tenant, run.journey))
    return control is not None and control.paused_at is not None and at > control.paused_at
