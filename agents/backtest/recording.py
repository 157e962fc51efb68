"""What is read from a recording: whose input it is, when, and what; and what could not be read."""

from collections import Counter
from typing import NamedTuple

from schemas.inputs import UserInput

MAX_REASONS = 20


class Recorded(NamedTuple):
    """One recorded input. `at` is the time of its record, in milliseconds."""

    user: str
    at: int
    input: UserInput


class Rejects:
    """What could not be read or used, and why: how often, with the first example of each reason."""

    def __init__(self) -> None:
        self.count = 0
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, place: str, reason: str) -> None:
        """Note one. Reasons that quote values are cut and bounded: a file may be wrong in every line."""
        self._add(place, reason[:200], 1)

    def include(self, others: "Rejects") -> None:
        """Add what others have noted."""
        for reason, count in others.reasons.items():
            self._add(others.first[reason], reason, count)

    def _add(self, place: str, reason: str, count: int) -> None:
        self.count += count
        if reason not in self.reasons and len(self.reasons) >= MAX_REASONS:
            reason = "other reasons"
        self.reasons[reason] += count
        self.first.setdefault(reason, place)
