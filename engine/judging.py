"""What a condition saw when it was judged, part by part; and which single part would have changed the verdict.

    judge(condition, facts) -> Judged      a tree like the condition's; its verdict is always that of `condition.holds(facts)`
    decisive(judged)                       the paths of the leaves that, flipped alone, flip the whole
    with_flipped(condition, path)          the condition in which that leaf says the opposite

A path is the places of the parts from the top down: (1, 0) is the first part of the second part. An event with properties
(`on("paid", where(...))`) has its name as part 0. A name is never flipped: what happened is not what one would change.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from engine.conditions import (
    AllOf,
    Answer,
    AnyOf,
    Condition,
    Did,
    Facts,
    Not,
    On,
    Profile,
    ReceiptOf,
    Where,
    tracker_id,
)
from engine.durations import describe, milliseconds
from engine.operators import ABSENT, read
from schemas.state import Track

Path = tuple[int, ...]
MAX_SHOWN = 80  # characters of a value


class Judged(Struct, frozen=True):
    """One condition and its verdict. `saw` is what a leaf was compared with, in words; it is empty for the others."""

    text: str
    holds: bool
    kind: Literal["leaf", "name", "all_of", "any_of", "not"]
    saw: str = ""
    parts: tuple["Judged", ...] = ()


def judge(condition: Condition, facts: Facts) -> Judged:
    """Return the verdict on a condition, with what every part of it saw."""
    holds = condition.holds(facts)
    match condition:
        case AllOf() | AnyOf():
            parts = tuple(judge(part, facts) for part in condition.conditions)
            return Judged(str(condition), holds, condition.kind, "", parts)
        case Not():
            return Judged(str(condition), holds, "not", "", (judge(condition.condition, facts),))
        case On():
            return _judge_event(condition, facts, holds)
        case _:
            return Judged(str(condition), holds, "leaf", saw(condition, facts))


def decisive(judged: Judged) -> Iterator[Path]:
    """Yield the paths of the leaves of which each alone would turn the verdict into its opposite."""
    for path in _leaves(judged, ()):
        if _evaluate(judged, path) is not judged.holds:
            yield path


def part_at(judged: Judged, path: Path) -> Judged:
    for place in path:
        judged = judged.parts[place]
    return judged


def with_flipped(condition: Condition, path: Path) -> Condition:
    """Return the condition in which the leaf at the path says the opposite of what it says."""
    if not path:
        return Not(condition)
    place, rest = path[0], path[1:]
    match condition:
        case AllOf():
            return AllOf(_with(condition.conditions, place, rest))
        case AnyOf():
            return AnyOf(_with(condition.conditions, place, rest))
        case Not():
            return Not(with_flipped(condition.condition, rest))
        case On() if place > 0:
            return On(condition.name, _with(condition.where, place - 1, rest))
        case _:
            raise ValueError(f"`{condition}` has no part {place} that could be flipped")


def saw(leaf: Where | Profile | Answer | Did | ReceiptOf, facts: Facts) -> str:
    """Say what a leaf was compared with."""
    match leaf:
        case Where():
            return shown(read(facts.properties, leaf.field))
        case Profile():
            return shown(read(facts.profile, leaf.field))
        case Answer():
            return shown(read(facts.answers, leaf.field))
        case Did():
            return _history(leaf, facts.history, facts.now)
        case ReceiptOf():
            sent = facts.sends.get(leaf.step)
            return "nothing sent so far" if sent is None else ", ".join(sent.statuses) or "nothing heard so far"


def shown(value: Any) -> str:
    """Write a value in at most 80 characters."""
    text = "absent" if value is ABSENT else repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def _judge_event(condition: On, facts: Facts, holds: bool) -> Judged:
    if facts.since is not None and facts.name != condition.name:
        track = facts.history.get(tracker_id(condition))
        return Judged(str(condition), holds, "name", _last(track, facts.now))
    name = Judged(condition.name, facts.name == condition.name, "name", facts.name or "no event")
    if not condition.where or not name.holds:  # Properties of another event say nothing.
        return Judged(str(condition), holds, "name", name.saw)
    return Judged(str(condition), holds, "all_of", "", (name, *(judge(part, facts) for part in condition.where)))


def _leaves(judged: Judged, path: Path) -> Iterator[Path]:
    if judged.kind == "leaf":
        yield path
    for place, part in enumerate(judged.parts):
        yield from _leaves(part, (*path, place))


def _evaluate(judged: Judged, flipped: Path | None) -> bool:
    """Judge the tree by the verdicts of its leaves, of which one is turned round."""
    if not judged.parts and judged.kind in ("leaf", "name"):
        return judged.holds is not (flipped == ())
    parts = [
        _evaluate(part, flipped[1:] if flipped and flipped[0] == place else None)
        for place, part in enumerate(judged.parts)
    ]
    match judged.kind:
        case "not":
            return not parts[0]
        case "any_of":
            return any(parts)
        case _:
            return all(parts)


def _with(parts: tuple[Condition, ...], place: int, rest: Path) -> tuple[Condition, ...]:
    return (*parts[:place], with_flipped(parts[place], rest), *parts[place + 1 :])


def _history(leaf: Did, history: Mapping[str, Track], now: int) -> str:
    track = history.get(tracker_id(leaf.event, leaf.total))
    if track is None:
        return "never"
    if leaf.first:
        return f"first on {_date(track.first_at)}"
    if leaf.within is None:
        count, total = track.count, track.total
        when = "ever"
    else:
        since = now - milliseconds(leaf.within)
        inside = [worth for at, worth in track.recent if at >= since]
        count, total = len(inside), sum(inside)
        when = f"within {describe(leaf.within)}"
    summed = "" if leaf.total is None else f", {leaf.total} {total:g} in all"
    return f"{count} {'time' if count == 1 else 'times'} {when}{summed}"


def _last(track: Track | None, now: int) -> str:
    return (
        "never, as far as is remembered"
        if track is None or not track.recent
        else f"last on {_date(track.recent[-1][0])}"
    )


def _date(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M} UTC"
