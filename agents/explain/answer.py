"""The short answer: is the user in the journey, and why, or why not."""

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo

from agents.trace import because, blocked
from engine.explain import Explanation, Look, Moment
from engine.journey import Journey
from schemas.outputs import JournalEntry
from schemas.state import Run

MOST_NAMES = 5  # of events that concerned nothing


def answer(explanation: Explanation, zone: tzinfo | None = UTC) -> Iterator[str]:
    """Yield sentences: where the user is in the journey, or how they left, or why they never entered."""
    entered, considered = _entries(explanation)
    identity = explanation.state.identity
    if identity is not None and identity.alias_of:
        yield f"{explanation.user} stands for {identity.alias_of}, who took over all of it: ask for {identity.alias_of}."
    if explanation.runs:
        for run in explanation.runs:
            yield from _of_run(explanation, run, zone)
    elif entered:
        yield from _of_the_past(explanation, entered, zone)
    elif considered:
        yield f"Never entered. Considered {_times(len(considered))}, the last time {shown(considered[-1].at, zone)}."
    else:
        yield "Never entered, and never considered."
        yield from _of_what_came(explanation)
    if considered and (not entered or considered[-1].at > entered[-1].at):
        yield from _why_not(considered[-1])


def why_not(moment: Moment) -> str:
    """Say why an entry that was considered came to nothing, or return an empty text."""
    refusal = next((entry.reason for entry in moment.journal if entry.kind == "not_entered"), "")
    if refusal:
        return refusal
    look = next((look for look in moment.looks if look.place == "entry" and not look.judged.holds), None)
    return "" if look is None else f"`{look.judged.text}` did not hold"


def flips_of(look: Look) -> Iterator[str]:
    """Yield what alone would have made a "no" a yes, each tried by folding the input once more."""
    for flip in look.flips:
        here = "entered" if look.place == "entry" else "gone another way"
        if flip.is_enough:
            yield f"with `{flip.text}` the other way round (it saw {flip.saw}) they would have {here}"
        else:
            reason = f", for then: {flip.otherwise}" if flip.otherwise else ""
            yield f"`{flip.text}` (it saw {flip.saw}) stood in the way, but not alone{reason}"


def shown(at: int, zone: tzinfo | None) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC).astimezone(zone):%Y-%m-%d %H:%M:%S}"


def _entries(explanation: Explanation) -> tuple[list[JournalEntry], list[Moment]]:
    """Return the entries of runs, and the moments at which one was considered and did not come about."""
    entered: list[JournalEntry] = []
    considered: list[Moment] = []
    for moment in explanation.moments:
        begun = [entry for entry in moment.journal if entry.kind == "entered"]
        entered += begun
        if not begun and why_not(moment):
            considered.append(moment)
    return entered, considered


def _of_run(explanation: Explanation, run: Run, zone: tzinfo | None) -> Iterator[str]:
    key = f" (for {run.key})" if run.key else ""
    yield f"In it{key} since {shown(run.entered_at, zone)}, in version {run.version}."
    journey = explanation.versions.get(run.version)
    step = journey.steps.get(run.step) if journey else None
    if run.suspended:
        yield f"It stands still at '{run.step}' after an error: {run.suspended}"
        return
    does = f": {step.describe()}" if step else ""
    until = "" if run.due_at is None else f", until {shown(run.due_at, zone)}"
    held = " Its message is held by the policy." if run.mode == "held" else ""
    asked = " It waits for a quota's answer." if run.mode == "asked" else ""
    yield f"At '{run.step}' since {shown(run.arrived_at, zone)}{does}{until}.{held}{asked}"


def _of_the_past(explanation: Explanation, entered: list[JournalEntry], zone: tzinfo | None) -> Iterator[str]:
    last = entered[-1]
    ends = [
        entry
        for moment in explanation.moments
        for entry in moment.journal
        if entry.kind == "exited" and entry.run == last.run
    ]
    yield f"Not in it now; entered {_times(len(entered))}, the last time {shown(last.at, zone)}, because {because(last.cause)}."
    for end in ends[-1:]:
        journey = explanation.versions.get(end.version)
        yield f"Left {shown(end.at, zone)} at '{end.step}': {_how_it_ended(end, journey)}."


def _how_it_ended(end: JournalEntry, journey: Journey | None) -> str:
    if end.reason == "exit_on":
        condition = f" (`{journey.exit_on}`)" if journey and journey.exit_on is not None else ""
        return f"its exit condition{condition} held, because {because(end.cause)}"
    return "it came to the end" if end.reason == "done" else blocked(end.reason)


def _of_what_came(explanation: Explanation) -> Iterator[str]:
    newest = max(explanation.versions, default=None)
    if newest is not None:
        yield f"It begins with `{explanation.versions[newest].entry}`, and nothing of that kind came."
    if explanation.passed_over:
        names = [f"{name} ({count:,})" for name, count in explanation.passed_over.most_common(MOST_NAMES)]
        more = len(explanation.passed_over) - len(names)
        yield f"What came: {', '.join(names)}{f' and {more} others' if more else ''}."
    else:
        yield "Nothing at all came about this user."


def _why_not(moment: Moment) -> Iterator[str]:
    yield f"Then, on {moment.input}: no, because {why_not(moment)}."
    for look in moment.looks:
        if look.place == "entry":
            flips = list(flips_of(look))
            yield from (f"{flip[:1].upper()}{flip[1:]}." for flip in flips)
            if not flips and not look.judged.holds:
                yield "No single part decided that: more than one stood in the way."


def _times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count:,} times"
