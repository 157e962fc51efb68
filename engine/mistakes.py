"""How what pydantic refuses in a definition is told to its author: what is wrong, where, and what would be right."""

import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError

from engine.conditions import Condition, Goal
from engine.entries import Api, Changed, Schedule
from engine.journey import After, AtMost, EntryCap, Journey
from engine.policy import Budget, Cap, Policy, QuietHours
from engine.steps import AnyStep
from engine.values import Path

STEPS = get_args(get_args(AnyStep)[0])
CONDITIONS = get_args(get_args(Condition)[0])
KINDS: Mapping[str, Any] = {
    each.__name__: each
    for each in (
        *STEPS, *CONDITIONS, Api, Changed, Schedule, Journey, After, AtMost, EntryCap, Goal, Policy, QuietHours, Cap, Budget,
        Path,
    )
}  # fmt: skip
TAGGED = {each.kind: each for each in (*STEPS, *CONDITIONS, Api, Changed, Schedule)}  # as JSON names them

NEEDED = {  # what to say of a field that is missing
    "timeout": "say how long is waited at most, such as timeout=days(1)",
    "on_timeout": "name the step for who has waited in vain",
    "then": "name the step that comes next",
    "otherwise": "name the step for whom no case holds",
    "on_failed": "name the step for who could not be served",
    "template": "name the template, such as template='welcome'",
    "version": "number it, from version=1 on",
    "entry": "say how a run begins, such as on('signed_up')",
    "start": "name the step that comes first",
    "steps": "it is a table of named steps",
    "name": "give it a name",
    "kind": "say which kind it is",
}
PATTERNS = {  # what a pattern means
    r"^[a-z][a-z0-9_]{0,63}$": "write it with lower-case letters, digits and _, a letter first, 64 at most",
    r"^[a-z][a-z0-9_]{0,31}$": "write it with lower-case letters, digits and _, a letter first, 32 at most",
    r"^[a-z][a-z0-9_-]{0,31}$": "write it with lower-case letters, digits, - and _, a letter first, 32 at most",
    r"^[a-z0-9][a-z0-9_.-]{0,63}$": "write it with lower-case letters, digits, dots, - and _, 64 at most",
    r"^[a-z0-9_.-]{1,100}$": "write it with lower-case letters, digits, dots, - and _, 100 at most",
    r"^https?://[^\s]{1,2000}$": "write an address such as 'https://crm.example.com/score'",
    r"^(event|profile|answer|run)\.[^.].*$": "write a path such as 'event.total', 'profile.tier' or 'run.id'",
}
MAX_SHOWN = 60  # characters of what was given


def explain(error: ValidationError) -> str:
    """Say the first thing that is wrong, and where, in one line that says what would be right."""
    found: list[Any] = error.errors(include_url=False)
    slips = [each for each in found if each["type"] in ("unexpected_keyword_argument", "extra_forbidden")]
    first = (slips or found)[0]
    place = _place(first["loc"], error.title)
    told = _told(first, place, error.title)
    says_it = told.startswith(error.title) or not (first["loc"] or first["type"] == "value_error")
    return told if says_it or error.title not in KINDS else f"{error.title}: {told}"


def _told(first: Any, place: str, title: str) -> str:
    kind, given, context = first["type"], first["input"], first.get("ctx", {})
    name = f"`{place}`" if place else "it"
    last = str(first["loc"][-1]) if first["loc"] else ""
    match kind:
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"{name} is missing; {NEEDED.get(last, 'give it')}"
        case "unexpected_keyword_argument" | "extra_forbidden":
            whose = KINDS.get(title) if len(first["loc"]) == 1 else TAGGED.get(str(first["loc"][-2]))
            known = [] if whose is None else [each.name for each in fields(whose) if each.name != "kind"]
            return f"{name} is nothing that it takes; {_nearest(last, known)}"
        case "string_pattern_mismatch" if context.get("pattern") in PATTERNS:
            return f"{name} is {_shown(given)}; {PATTERNS[context['pattern']]}"
        case "too_short" | "string_too_short":
            return f"{name} is empty; it needs at least one {'character' if kind == 'string_too_short' else 'entry'}"
        case "time_delta_type" | "time_delta_parsing":
            unit = given if isinstance(given, int | float) else 3
            right = f"such as days({unit}) or hours({unit}), in JSON 'P1D' or 'PT1H'"
            return f"{name} is {_shown(given)}; write a duration, {right}"
        case "literal_error":
            return f"{name} is {_shown(given)}; {_nearest(str(given), _quoted(context['expected']))}"
        case "union_tag_invalid":
            near = _nearest(context["tag"], _quoted(context["expected_tags"]))
            return f"{name} is of the kind {context['tag']!r}, which is none; {near}"
        case "union_tag_not_found":
            return f"{name} doesn't say which kind it is; give it a `kind`"
        case "value_error":
            said = str(first["msg"]).removeprefix("Value error, ")
            return said if not place else f"{name}: {said}"
    if str(first["msg"]).startswith("Input should be ") and isinstance(given, str | int | float | timedelta):
        return f"{name} is {_shown(given)}; it should be {str(first['msg']).removeprefix('Input should be ')}"
    return f"{name}: {first['msg']}" if place else str(first["msg"])


def _place(steps: tuple[Any, ...], title: str) -> str:
    """Return where it is, by the names of fields: what was given by position has no name of its own."""
    parts = [str(step) for step in steps if re.fullmatch(r"[\w.-]+", str(step)) and step != "constrained-str"]
    if steps and isinstance(steps[0], int) and title in KINDS:
        names = [each.name for each in fields(KINDS[title])]
        parts[0] = names[steps[0]] if steps[0] < len(names) else parts[0]
    return ".".join(parts)


def _nearest(name: str, names: list[str]) -> str:
    near = [each for each in names if name and each.startswith(name)] or get_close_matches(name, names, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'others'}"


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']+)'", text)


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, timedelta) else repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
