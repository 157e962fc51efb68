"""What is remembered of the events that definitions ask about: `did(...)` and the lookback of waits.

Only what some journey asks is tracked, from the moment that journey is active. A track holds the first occurrence, how
often and how much in all, and the most recent occurrences: as many as the most demanding question needs, so a question for
"at least 3 within 30 days" costs three instants. Sums over a window keep up to 256 occurrences; older ones of a busier
user no longer count.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.conditions import Did, Facts, On, leaves, tracker_id
from engine.durations import milliseconds
from engine.journey import Journey
from engine.operators import read
from engine.steps import WaitFor
from schemas.state import Track

MAX_TRACKS = 256  # per user


@dataclass(frozen=True, slots=True)
class Tracker:
    """One question to the past: which events, what of them is summed, how many and how far back must be known."""

    id: str
    event: On
    total: str | None
    keep: int
    window_ms: int


def trackers_of(journey: Journey) -> list[Tracker]:
    """Return what must be tracked for a journey's conditions and lookbacks."""
    found: dict[str, Tracker] = {}
    for _, condition in journey.conditions():
        for leaf in leaves(condition):
            if isinstance(leaf, Did):
                window = 0 if leaf.within is None or leaf.first else milliseconds(leaf.within)
                _add(found, Tracker(tracker_id(leaf.event, leaf.total), leaf.event, leaf.total, leaf.keep, window))
    for step in journey.steps.values():
        if isinstance(step, WaitFor) and step.lookback is not None:
            for condition in step.conditions():
                for leaf in leaves(condition):
                    if isinstance(leaf, On):
                        _add(found, Tracker(tracker_id(leaf), leaf, None, 1, milliseconds(step.lookback)))
    return list(found.values())


def merged(trackers: Iterable[Tracker]) -> list[Tracker]:
    """Return the trackers with those of one name made one that serves all."""
    found: dict[str, Tracker] = {}
    for tracker in trackers:
        _add(found, tracker)
    return list(found.values())


def note(history: Mapping[str, Track], trackers: Iterable[Tracker], facts: Facts, at: int) -> dict[str, Track]:
    """Return the history with an event taken down by every tracker that it is for. `at`: when it occurred (ms)."""
    after = dict(history)
    for tracker in trackers:
        if not tracker.event.holds(facts):
            continue
        before = after.get(tracker.id)
        if before is None and len(after) >= MAX_TRACKS:
            continue
        found = read(facts.properties, tracker.total) if tracker.total else 0
        is_number = isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < 1 << 53
        worth = float(found) if is_number else 0.0  # as it comes back from the store: sums must not depend on restarts
        after[tracker.id] = _noted(before, tracker, at, worth, facts.now)
    return after


def _noted(before: Track | None, tracker: Tracker, at: int, worth: float, now: int) -> Track:
    recent = before.recent if before is not None else ()
    if tracker.keep:
        recent = tuple(sorted([*(each for each in recent if each[0] >= now - tracker.window_ms), (at, worth)]))
        recent = recent[-tracker.keep :]
    if before is None:
        return Track(at, 1, worth, recent)
    return Track(min(before.first_at, at), before.count + 1, before.total + worth, recent)


def _add(found: dict[str, Tracker], tracker: Tracker) -> None:
    other = found.get(tracker.id)
    if other is not None:
        keep, window = max(other.keep, tracker.keep), max(other.window_ms, tracker.window_ms)
        tracker = Tracker(tracker.id, tracker.event, tracker.total, keep, window)
    found[tracker.id] = tracker
