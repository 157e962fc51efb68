"""Which step of a new version is which of the old one, when names have changed.

A step that is gone and one that is new are one step if they are of one kind and say the same, apart from the names of steps
in them, and if `moves`, their neighbours or their names agree.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from difflib import SequenceMatcher
from typing import Any

from engine.conditions import AllOf, Answer, AnyOf, Condition, Not, On, ReceiptOf
from engine.journey import Journey
from engine.steps import AnyStep, Cohorts
from engine.values import Path

# The fields that lead to a step, besides cases and weights.
TARGETS = {"then", "otherwise", "on_timeout", "on_blocked", "on_failed", "if_past", "if_missing"}
LIKE_ENOUGH = 0.6  # of two names: "gold_offer" and "offer_gold" are 0.6 alike, "remind" and "offer" 0.36


def renamed_steps(old: Journey, new: Journey) -> Iterator[tuple[str, str]]:
    """Yield the steps that were only given another name, as (old name, new name)."""
    gone = [name for name in old.steps if name not in new.steps]
    fresh = [name for name in new.steps if name not in old.steps]
    for name in gone:
        alike = [other for other in fresh if _says_the_same(old, old.steps[name], new, new.steps[other])]
        sure = [other for other in alike if new.moves.get(name) == other]
        near = [
            other for other in alike if _are_neighbours(old, name, new, other) or _ratio(name, other) >= LIKE_ENOUGH
        ]
        best = max(sure or near, key=lambda other: _ratio(name, other), default=None)
        if best is not None:
            fresh.remove(best)
            yield name, best


def _says_the_same(old: Journey, before: AnyStep, new: Journey, after: AnyStep) -> bool:
    """Are two steps equal but for the names of steps in them?"""
    if before.kind != after.kind:
        return False
    if isinstance(before, Cohorts) and isinstance(after, Cohorts):
        return (before.salt, list(before.weights.values())) == (after.salt, list(after.weights.values()))
    return _step_with_new_names(before, _same(old)) == _step_with_new_names(after, _same(new))


def _same(journey: Journey) -> dict[str, str]:
    return dict.fromkeys(journey.steps, "somewhere")


def _are_neighbours(old: Journey, before: str, new: Journey, after: str) -> bool:
    """Do both come from, or lead to, the same step?"""
    ways = [(old, before), (new, after)]
    (left, right), (left_too, right_too) = [
        (
            {source for source, _, target in journey.edges() if target == name},
            {target for source, _, target in journey.edges() if source == name},
        )
        for journey, name in ways
    ]
    return bool(left & left_too or right & right_too)


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def with_new_names(journey: Journey, renamed: Mapping[str, str]) -> Journey:
    """Return the journey with these steps called otherwise, wherever their names stand."""
    if not renamed:
        return journey
    goal = journey.goal
    return replace(
        journey,
        start=renamed.get(journey.start, journey.start),
        exit_on=journey.exit_on and _condition_with_new_names(journey.exit_on, renamed),
        goal=goal and replace(goal, condition=_condition_with_new_names(goal.condition, renamed)),
        moves={old: renamed.get(new, new) for old, new in journey.moves.items()},
        steps={renamed.get(name, name): _step_with_new_names(step, renamed) for name, step in journey.steps.items()},
    )


def _step_with_new_names(step: AnyStep, renamed: Mapping[str, str]) -> AnyStep:
    changes: dict[str, Any] = {}
    for each in fields(step):
        found = getattr(step, each.name)
        if each.name in TARGETS and found in renamed:
            changes[each.name] = renamed[found]
        elif each.name == "weights":
            changes[each.name] = {renamed.get(name, name): weight for name, weight in found.items()}
        elif isinstance(found, Mapping):
            changes[each.name] = {name: _path_with_new_names(value, renamed) for name, value in found.items()}
        elif each.name in ("awaits", "cases"):
            changes[each.name] = _cases_with_new_names(found, renamed)
        else:
            changes[each.name] = _path_with_new_names(found, renamed)
    return replace(step, **changes)


def _cases_with_new_names(found: Any, renamed: Mapping[str, str]) -> Any:
    if not isinstance(found, tuple):
        return _condition_with_new_names(found, renamed)
    return tuple(
        (_condition_with_new_names(condition, renamed), renamed.get(target, target)) for condition, target in found
    )


def _path_with_new_names(value: Any, renamed: Mapping[str, str]) -> Any:
    if not isinstance(value, Path) or not value.path.startswith("answer."):
        return value
    source, step, *rest = value.path.split(".", 2)
    return replace(value, path=".".join([source, renamed.get(step, step), *rest]))


def _condition_with_new_names(condition: Condition, renamed: Mapping[str, str]) -> Condition:
    match condition:
        case ReceiptOf():
            return replace(condition, step=renamed.get(condition.step, condition.step))
        case Answer():
            step, dot, rest = condition.field.partition(".")
            return replace(condition, field=f"{renamed.get(step, step)}{dot}{rest}")
        case AllOf() | AnyOf():
            parts = tuple(_condition_with_new_names(part, renamed) for part in condition.conditions)
            return replace(condition, conditions=parts)
        case Not():
            return replace(condition, condition=_condition_with_new_names(condition.condition, renamed))
        case On():
            return replace(condition, where=tuple(_condition_with_new_names(part, renamed) for part in condition.where))
        case _:
            return condition
