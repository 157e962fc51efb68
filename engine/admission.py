"""Who may enter a journey: the rules by which a run begins or doesn't."""

from collections.abc import Mapping, Sequence

from engine.journey import Journey
from schemas.state import Run

MAX_RUNS = 64  # live runs per user
MAX_ENTERED = 256  # journeys and keys whose last entry is remembered per user; the oldest is forgotten


def refusal(
    journey: Journey, key: str | None, runs: Sequence[Run], last_entered_at: int | None, occurred_at: int, now: int,
    is_paused: bool,
) -> str:  # fmt: skip
    """Say why no run of the journey begins at `now` (ms) by what occurred then, or nothing.

    `runs` are the user's live ones, `last_entered_at` is when the user last entered with this key.
    """
    if journey.key is not None and key is None:
        return f"the event has no {journey.key}"
    if now - occurred_at > journey.late_after_ms:
        return "the event came too late"
    if is_paused:
        return "the journey is paused"
    for run in runs:
        if run.journey == journey.name and run.key == key:
            return "already in it"
    if not journey.reentry.allows(last_entered_at, now):
        return f"re-entry is {journey.reentry}"
    return f"{MAX_RUNS} runs are live already" if len(runs) >= MAX_RUNS else ""


def with_entry(entered: Mapping[str, int], slot: str, now: int) -> dict[str, int]:
    """Return when the user last entered what, with one entry more; the oldest forgotten if there are too many."""
    after = dict(entered)
    after.pop(slot, None)  # so that it is the newest
    after[slot] = now
    forget_oldest(after)
    return after


def forget_oldest(entered: dict[str, int]) -> None:
    """Take out of what is ordered by time as many as there are too many.

    Keys go first: three hundred carts must not make a customer new again.
    """
    while len(entered) > MAX_ENTERED:
        del entered[next((slot for slot in entered if "|" in slot), next(iter(entered)))]
