"""What is read from a recording: whose input it is, when, and what; and what could not be read."""

from collections import Counter
from typing import NamedTuple

from schemas.inputs import UserInput


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
        self.count += 1
        reason = reason[:200]
        if reason not in self.reasons and len(self.reasons) >= 20:
            reason = "other reasons"
        self.reasons[reason] += 1
        self.first.setdefault(reason, place)
