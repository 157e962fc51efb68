"""Which of a user's goals are reached: what their runs were for, counted once, also after the run has ended.

One order may be what two journeys were for, and counts for both. Among the runs of one journey it counts once: for the run
that began last.
"""

from collections.abc import Mapping, Sequence

from engine.catalog import Catalog
from engine.conditions import NOTHING, Facts
from engine.durations import milliseconds
from engine.events import key_in
from engine.journey import Journey
from schemas.state import OpenGoal, Run, Sent

MAX_GOALS = 128  # goals that may still be reached per user; the oldest is forgotten

Goals = tuple[OpenGoal, ...]


def with_goal(goals: Goals, journey: Journey, run: Run, now: int) -> Goals:
    """Return the open goals with that of a run which begins now, if its journey has one."""
    if journey.goal is None:
        return goals
    until_at = now + milliseconds(journey.goal.within)
    return (*goals, OpenGoal(run.id, journey.name, journey.version, until_at, run.key))[-MAX_GOALS:]


def reached(
    goals: Goals, catalog: Catalog, tenant: str, runs: Sequence[Run], facts: Facts, now: int, only: str | None = None
) -> tuple[Goals, list[OpenGoal]]:
    """Return (goals still open, goals reached by what is the case now), oldest first. Those whose time is over are in neither.

    The open ones are the very same tuple if none was reached or is over. `only` names the run that alone is concerned.
    """
    sends: dict[str, Mapping[str, Sent]] | None = None
    still_open: list[OpenGoal] = []
    done: list[OpenGoal] = []
    for goal in reversed(goals):
        if goal.until_at < now:
            continue
        journey = catalog.journeys[tenant, goal.journey, goal.version]
        definition, names = journey.goal, journey.goal_names
        if definition is None or (names is not None and facts.name not in names):
            still_open.append(goal)
            continue
        if sends is None:
            sends = {run.id: run.sends for run in runs}
        facts.sends = sends.get(goal.run, NOTHING)
        is_counted = any([each.journey == goal.journey for each in done])
        if not is_counted and definition.condition.holds(facts) and _concerns(goal, journey, facts, only):
            done.append(goal)
        else:
            still_open.append(goal)
    return (goals if len(still_open) == len(goals) else tuple(reversed(still_open))), done[::-1]


def _concerns(goal: OpenGoal, journey: Journey, facts: Facts, only: str | None) -> bool:
    if only is not None and goal.run != only:
        return False
    return goal.key is None or facts.name is None or goal.key == key_in(facts.properties, journey.key)
