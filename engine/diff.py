"""What is different between two versions of a journey: in words, step by step, and in the texts it sends.

Steps are matched by name. Where a step was only given another name (see `engine/renaming.py`), the old version is read with
the new names, so that whatever leads to the step, or asks for its receipts, is no change.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import time, timedelta
from difflib import unified_diff
from typing import Any, Literal

from engine.conditions import AllOf, Condition, On
from engine.durations import describe
from engine.journey import EXIT, AtMost, EntryCap, Journey
from engine.renaming import TARGETS, renamed_steps, with_new_names
from engine.steps import AnyStep, Branch, Cohorts, WaitFor

Kind = Literal["added", "removed", "renamed", "changed"]
Templates = Mapping[str, Mapping[str, str]]  # name -> part -> Liquid source

PARTS = ("subject", "html", "text", "json")
RULES = (
    "entry", "key", "reentry", "exit_on", "goal", "start", "late_after", "priority", "holdout", "entry_cap", "at_most",
    "moves", "on_merge", "description",
)  # fmt: skip
CASES = {"awaits", "cases", "then"}  # how a step's cases may be written; they are compared as cases


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is different. `place` is a step's name in the new version (the old one's if it is gone), or a rule."""

    kind: Kind
    place: str
    words: str


@dataclass(frozen=True, slots=True)
class TextChange:
    """A part of a template that is different, as the lines of a unified diff."""

    template: str
    part: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """All that is different. Steps have the kind of their change here, edges the label of their way."""

    old: Journey
    new: Journey
    earlier: Journey  # the old version, read with the new names
    rules: Sequence[Change] = ()
    steps: Sequence[Change] = ()
    texts: Sequence[TextChange] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)  # old name -> new name

    @property
    def is_empty(self) -> bool:
        return not (self.rules or self.steps or self.texts)

    @property
    def needs_version(self) -> bool:
        """Is this a change under an old number, which publishing refuses?"""
        return not self.is_empty and (self.old.name, self.old.version) == (self.new.name, self.new.version)

    def kind_of(self, step: str) -> Kind | None:
        """Return what happened to a step of either version, or None if nothing did."""
        place = self.renamed.get(step, step)
        kinds = [change.kind for change in self.steps if change.place == place]
        return next((kind for kind in ("added", "removed", "renamed") if kind in kinds), kinds[0] if kinds else None)

    def edges(self) -> Iterator[tuple[str, str, str, Kind | None]]:
        """Yield the ways of both versions as (from, label, to, what happened to it), by the new names."""
        gone = list(self.earlier.edges())
        kept = []
        for edge in self.new.edges():
            kept.append(edge in gone)
            if edge in gone:
                gone.remove(edge)
        for (source, label, target), is_kept in zip(self.new.edges(), kept, strict=True):
            other = next((edge for edge in gone if (edge[0], edge[2]) == (source, target)), None)
            if not is_kept and other is not None:
                gone.remove(other)
            yield source, label, target, None if is_kept else "added" if other is None else "changed"
        for edge in gone:
            yield *edge, "removed"


def compare(
    old: Journey, new: Journey, old_texts: Templates | None = None, new_texts: Templates | None = None
) -> Difference:
    """Return the difference of two versions; texts are compared if those of both are known."""
    renamed = dict(renamed_steps(old, new))
    earlier = with_new_names(old, renamed)
    texts: list[TextChange] = []
    if old_texts is not None and new_texts is not None:
        names = [name for name in new.template_names() if name in old_texts and name in new_texts]
        texts = [change for name in names for change in _text_changes(name, old_texts[name], new_texts[name])]
    rules = [Change("changed", rule, words) for rule in RULES for words in _rule_changes(rule, earlier, new)]
    return Difference(old, new, earlier, rules, list(_step_changes(earlier, new, renamed)), texts, renamed)


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of the runs that wait at a step of an earlier version when the new one is activated."""

    version: int
    step: str
    runs: int
    kind: Kind | None  # what happens to the step
    state: str  # the same in words; empty for a version that is not the one compared with
    words: str  # what the runs do


def fates(difference: Difference, runs: Mapping[tuple[int, str], int]) -> list[Fate]:
    """Say what becomes of the runs that are live: `runs` counts them by version and step. Most runs first."""
    found = []
    for (version, step), count in runs.items():
        if version != difference.new.version:
            is_compared = version == difference.old.version
            kind = difference.kind_of(step) if is_compared else None
            state = f"is {kind}" if kind else "is as it was" if is_compared else ""
            found.append(Fate(version, step, count, kind, state, _fate(difference.new, version, step)))
    return sorted(found, key=lambda fate: (-fate.runs, fate.version, fate.step))


def _fate(new: Journey, version: int, step: str) -> str:
    target = new.moves.get(step)
    if target is None:
        return f"finish on v{version}"
    return f"leave when v{new.version} is activated" if target == EXIT else f"move to {target!r} of v{new.version}"


# In words


def _step_changes(old: Journey, new: Journey, renamed: Mapping[str, str]) -> Iterator[Change]:
    """Say what is different in the steps; `old` has the new names already."""
    before = {new_name: old_name for old_name, new_name in renamed.items()}
    for name, step in new.steps.items():
        if name not in old.steps:
            yield Change("added", name, step.describe())
            continue
        if name in before:
            drawn = " (who falls where is drawn anew: the name is the salt)" if _is_salted_by_name(step) else ""
            yield Change("renamed", name, f"was called {before[name]!r}{drawn}")
        for words in _field_changes(old.steps[name], step):
            yield Change("changed", name, words)
    for name, step in old.steps.items():
        if name not in new.steps:
            yield Change("removed", name, step.describe())


def _is_salted_by_name(step: AnyStep) -> bool:
    return isinstance(step, Cohorts) and step.salt is None


def _field_changes(before: AnyStep, after: AnyStep) -> Iterator[str]:
    if before.kind != after.kind:
        yield f"{after.describe()}, instead of {before.describe()}"
        return
    has_cases = isinstance(before, Branch | WaitFor) and isinstance(after, Branch | WaitFor)
    if isinstance(before, Branch | WaitFor) and isinstance(after, Branch | WaitFor):
        yield from _case_changes(before.cases, after.cases)
    if isinstance(before, Cohorts) and isinstance(after, Cohorts):
        kept = [name for name in before.weights if name in after.weights]
        if kept != [name for name in after.weights if name in before.weights]:
            yield "weights: in another order, so that users fall elsewhere"
    for each in fields(after):
        one, other = getattr(before, each.name), getattr(after, each.name)
        if one == other or (has_cases and each.name in CASES):
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _entry_changes(each.name, one, other)
        elif each.name in TARGETS and one is not None and other is not None:
            yield f"{each.name} leads to {other!r} instead of {one!r}"
        else:
            yield from _value_change(each.name, one, other)


def _rule_changes(rule: str, old: Journey, new: Journey) -> Iterator[str]:
    one, other = getattr(old, rule), getattr(new, rule)
    if one == other:
        return
    if rule == "description":
        yield "has other words"
    elif rule == "moves":
        yield from _entry_changes("", one, other)
    elif one is not None and other is not None and (parts := list(_part_changes(one, other))):
        yield from parts
    else:
        yield from _value_change("", one, other)


def _value_change(name: str, one: Any, other: Any) -> Iterator[str]:
    prefix = f"{name}: " if name else ""
    if one is None or one == ():
        yield f"{prefix}{_told(other)} is new"
    elif other is None or other == ():
        yield f"{prefix}{_told(one)} is gone"
    else:
        yield f"{prefix}{_told(other)} instead of {_told(one)}"


def _part_changes(one: Any, other: Any) -> Iterator[str]:
    """Say what a condition asks in addition and what no longer, if it is about the same event or joins conditions."""
    before, after = _parts(one), _parts(other)
    if before is None or after is None or before[0] != after[0]:
        return
    more = [part for part in after[1] if part not in before[1]]
    less = [part for part in before[1] if part not in after[1]]
    if len(more) == len(less) == 1:
        yield f"asks `{more[0]}` instead of `{less[0]}`"
        return
    yield from (f"now also asks `{part}`" for part in more)
    yield from (f"no longer asks `{part}`" for part in less)


def _parts(condition: Any) -> tuple[str, Sequence[Condition]] | None:
    """Return what a condition is about and the conditions that must all hold."""
    match condition:
        case On():
            return condition.name, condition.where
        case AllOf():
            return "", condition.conditions
        case _:
            return None


def _case_changes(before: Sequence[tuple[Condition, str]], after: Sequence[tuple[Condition, str]]) -> Iterator[str]:
    old = {str(condition): target for condition, target in before}
    new = {str(condition): target for condition, target in after}
    for condition, target in new.items():
        if condition not in old:
            yield f"`{condition}` leads to {target!r}: a new case"
        elif old[condition] != target:
            yield f"`{condition}` leads to {target!r} instead of {old[condition]!r}"
    for condition, target in old.items():
        if condition not in new:
            yield f"`{condition}` no longer leads to {target!r}"
    kept = [condition for condition in old if condition in new]
    if kept != [condition for condition in new if condition in old]:
        yield f"its cases are asked in another order: {', '.join(f'`{condition}`' for condition in new)}"


def _entry_changes(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    prefix = f"{name}: " if name else ""
    for key, value in other.items():
        if key not in one:
            yield f"{prefix}{key!r} is new: {_told(value)}"
        elif one[key] != value:
            yield f"{prefix}{key!r} is {_told(value)} instead of {_told(one[key])}"
    for key, value in one.items():
        if key not in other:
            yield f"{prefix}{key!r} is gone: it was {_told(value)}"


def _told(value: Any) -> str:
    match value:
        case timedelta():
            return f"-{describe(-value)}" if value < timedelta(0) else describe(value)
        case time():
            return f"{value:%H:%M}"
        case AtMost():
            return f"{value.messages} messages within {describe(value.within)}"
        case EntryCap():
            return f"{value.most} entries within {describe(value.within)}"
        case bool() | None:
            return {True: "yes", False: "no", None: "nothing"}[value]
        case int() | float():
            return f"{value:g}"
        case str():
            return repr(value)
        case tuple() | list():
            return ", ".join(map(_told, value)) or "nothing"
        case _:
            return f"`{value}`"


def _text_changes(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[TextChange]:
    for part in PARTS:
        before, after = old.get(part, ""), new.get(part, "")
        if before != after:
            yield TextChange(name, part, tuple(_diff_lines(before.splitlines(), after.splitlines())))


def _diff_lines(before: Iterable[str], after: Iterable[str]) -> Iterator[str]:
    lines = unified_diff(list(before), list(after), lineterm="", n=2)
    return (line for line in lines if not line.startswith(("--- ", "+++ ")))
