"""How a found value is compared with a wanted one.

Strictly by kind: "5" isn't 5, true isn't 1. Values that have no order are neither above nor below; what is absent equals
nothing, is above and below nothing, and is unequal to everything. So `!=` is the exact opposite of `==`, and `not_in` of
`in`. Dates are compared as instants; a date without a zone is read as UTC, the same for every user.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal

import re2

from engine.local_time import find_zone, read_date

Scalar = bool | int | float | str | None
Value = Scalar | tuple[Scalar, ...]
Operator = Literal[
    "==", "!=", ">", ">=", "<", "<=", "in", "not_in", "exists",
    "contains", "contains_any", "contains_all", "starts_with", "ends_with", "matches",
    "before", "after", "within_last", "longer_ago_than", "within_next", "further_ahead_than",
]  # fmt: skip

RELATIVE: tuple[Operator, ...] = (
    "within_last",
    "longer_ago_than",
    "within_next",
    "further_ahead_than",
)  # these take a duration
MAX_TEXT = 10_000  # characters that a pattern is searched in: events are up to 32 kB, and patterns are linear


class _Absent:
    """What reading an attribute that isn't there gives."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


def read(values: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path, or ABSENT. A name that contains dots itself is found first."""
    found = values.get(path, ABSENT)
    if found is ABSENT and "." in path:
        found = values
        for part in path.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return ABSENT
            found = found[part]
    return found


def compare(found: Any, op: str, value: Value) -> bool:
    """Judge an operator that doesn't depend on the time."""
    return OPERATORS[op](found, value)


def compare_dates(found: Any, op: str, span: int, now: int) -> bool:
    """Judge an operator that compares a date with `now`; `span` and `now` in milliseconds. What isn't a date is no match."""
    at = instant(found)
    if at is None:
        return False
    match op:
        case "within_last":
            return now - span <= at <= now
        case "longer_ago_than":
            return at < now - span
        case "within_next":
            return now <= at <= now + span
        case _:
            return at > now + span


def turning_points(found: Any, span: int) -> tuple[int, ...]:
    """Return the instants at or right after which `compare_dates` may change its answer for this value."""
    at = instant(found)
    return () if at is None else (at, at + 1, at + span, at + span + 1, at - span, at - span + 1)


def instant(value: Any) -> int | None:
    """Return the instant (ms) that a value means, or None: ISO 8601, or milliseconds since the epoch."""
    utc = find_zone("UTC")
    assert utc is not None
    return read_date(value, utc, None)


@lru_cache(maxsize=4096)
def pattern(source: str) -> Any:
    """Return the compiled pattern. RE2 takes time linear in the text, whatever the pattern. Raises re2.error."""
    options = re2.Options()
    options.max_mem = 1 << 20
    options.log_errors = False
    return re2.compile(source, options=options)


def _equal(found: Any, value: Any) -> bool:
    if found is ABSENT or isinstance(found, bool) is not isinstance(value, bool):
        return False
    return bool(found == value)


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def judge(found: Any, value: Any) -> bool:
        if isinstance(found, bool) or isinstance(value, bool):
            return False
        numbers = isinstance(found, int | float) and isinstance(value, int | float)
        texts = isinstance(found, str) and isinstance(value, str)
        return (numbers or texts) and test(found, value)

    return judge


def _in(found: Any, value: Any) -> bool:
    if isinstance(value, tuple):
        for item in value:
            if _equal(found, item):
                return True
    return False


def _contains(found: Any, value: Any) -> bool:
    if isinstance(found, str):
        return isinstance(value, str) and value in found
    return isinstance(found, list | tuple) and any([_equal(item, value) for item in found])


def _text(test: Callable[[str, str], Any]) -> Callable[[Any, Any], bool]:
    return lambda found, value: isinstance(found, str) and isinstance(value, str) and bool(test(found, value))


def _searches(source: str, text: str) -> bool:
    """Is the pattern found? One that can't be compiled, which a journey refuses, is found nowhere."""
    try:
        return pattern(source).search(text) is not None
    except re2.error:
        return False


def _dated(test: Callable[[int, int], bool]) -> Callable[[Any, Any], bool]:
    def judge(found: Any, value: Any) -> bool:
        at, wanted = instant(found), instant(value)
        return at is not None and wanted is not None and test(at, wanted)

    return judge


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": _equal,
    "!=": lambda found, value: not _equal(found, value),
    ">": _ordered(lambda found, value: found > value),
    ">=": _ordered(lambda found, value: found >= value),
    "<": _ordered(lambda found, value: found < value),
    "<=": _ordered(lambda found, value: found <= value),
    "in": _in,
    "not_in": lambda found, value: not _in(found, value),
    "exists": lambda found, value: (found is not ABSENT and found is not None) is not (value is False),
    "contains": _contains,
    "contains_any": lambda found, value: isinstance(value, tuple) and any([_contains(found, item) for item in value]),
    "contains_all": lambda found, value: isinstance(value, tuple) and all([_contains(found, item) for item in value]),
    "starts_with": _text(str.startswith),
    "ends_with": _text(str.endswith),
    "matches": _text(lambda found, value: _searches(value, found[:MAX_TEXT])),
    "before": _dated(lambda at, wanted: at < wanted),
    "after": _dated(lambda at, wanted: at > wanted),
}


def problem_with(op: str, value: Any, has_duration: bool) -> str:
    """Say why an operator can never hold for what it is given, or nothing."""
    if op in RELATIVE:
        return "" if has_duration else f"{op!r} needs a duration, such as days(3)"
    if has_duration:
        return f"{op!r} compares with a value, not with a duration; durations go with {', '.join(RELATIVE)}"
    if op in ("in", "not_in", "contains_any", "contains_all") and not isinstance(value, tuple):
        return f"{op!r} needs a list of values, such as [{value!r}]"
    if op in (">", ">=", "<", "<=") and (isinstance(value, bool | tuple) or value is None):
        return f"{op!r} needs a number or a text to compare with"
    if op in ("==", "!=", "contains") and isinstance(value, tuple):
        return f"to compare with several values write {'contains_any' if op == 'contains' else 'in'!r}, {list(value)!r}"
    if op in ("starts_with", "ends_with", "matches") and not isinstance(value, str):
        return f"{op!r} needs a text"
    if op in ("before", "after") and instant(value) is None:
        return f"{op!r} needs a date such as '2026-05-01', not {value!r}"
    if op == "exists" and not (value is None or isinstance(value, bool)):
        return f"'exists' takes True, False or nothing, not {value!r}"
    return _problem_with_pattern(value) if op == "matches" else ""


def _problem_with_pattern(source: str) -> str:
    try:
        pattern(source)
    except re2.error as error:
        return f"'matches' can't use the pattern {source!r}: {error}"
    return ""
