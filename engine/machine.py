"""How a run moves through its journey.

A run is a step's name and a few fields. It moves in two ways: a *walk* passes through steps until one waits or the run
ends; an *input* (an event, a receipt, the end of a wait) concerns the step where the run waits, or changes nothing.

    start     -> walk from the journey's first step
    resume    -> ask the step where this input leads; walk on from there
    time_out  -> the wait is over: walk on from where the step says; what was held is considered again
    decide    -> the policy has judged the message a walk came to: walk on, or wait
    granted   -> a quota has answered
    move_to   -> a new version takes the run over

A walk stops where it comes to a message: what goes out first among several runs is for `engine/actor.py` to say. It passes
each step at most once: `Journey` refuses tables that could loop without waiting, and the walk makes sure.

Every function returns a `Move`: the run as it is now and all that was asked for. Nothing here reads a clock, draws a number
or does I/O, so the same inputs give the same moves in production, on replay after a crash, and in a simulation.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.conditions import Facts
from engine.journey import Journey
from engine.outcomes import Consider, Finish, Forward, Go, Outcome, Place, Visit, Wait
from engine.policy import Request, Verdict
from engine.profiles import merged
from schemas.inputs import Asked
from schemas.outputs import JournalEntry, JournalKind, Message
from schemas.state import Run, Sent


class Move(Struct, gc=False):
    """What happened to a run. `run` is None when it has ended; `request` is the message it came to."""

    run: Run | None
    messages: list[Message] = []
    journal: list[JournalEntry] = []
    inputs: list[Forward] = []
    request: Request | None = None
    passed: list[str] = []


def start(journey: Journey, run: Run, place: Place) -> Move:
    """Let a run that has not arrived anywhere yet enter the journey's first step."""
    return _walk(journey, run, journey.start, place, Move(run))


def resume(journey: Journey, run: Run, place: Place, facts: Facts) -> Move | None:
    """Let a run see what is the case: its exit first, then the step where it waits. Return None if it concerns neither.

    A suspended run obeys its exit, nothing else; so does one that was suspended on its very first walk.
    """
    if journey.exit_on is not None and journey.exit_on.holds(facts):
        return end(run, "exit_on", place)
    if run.suspended or run.visit == 0 or run.mode:
        return None
    step = journey.steps[run.step]
    target = step.resume(facts)
    if target is not None:
        return _walk(journey, run, target, place, Move(run))
    look_at = step.look_at(facts)
    return None if look_at == run.look_at else Move(replace(run, look_at=look_at))


def time_out(journey: Journey, run: Run, place: Place) -> Move:
    """End the wait of a run whose time has come, or look whether time alone has ended it; or end the run, if its exit holds."""
    if run.visit == 0:
        return start(journey, run, place)
    facts = place.facts(run)
    if journey.exit_on is not None and journey.exit_on.holds(facts):
        return end(run, "exit_on", place)
    step = journey.steps[run.step]
    if run.mode == "granted":
        return granted(journey, replace(run, due_at=None), place.at, place)
    if run.mode == "held":
        return _apply(
            journey, replace(run, mode="", due_at=None), step.enter(_visit(journey, run, place)), place, Move(run)
        )
    if run.look_at is not None and (run.due_at is None or run.look_at < run.due_at):
        target = step.resume(facts)
        if target is None:
            looked = replace(run, look_at=step.look_at(facts))
            return follow(journey, looked, place) or Move(looked)
        return _walk(journey, run, target, place, Move(run))
    return _walk(journey, run, step.time_out(), place, Move(run))


def follow(journey: Journey, run: Run, place: Place) -> Move | None:
    """Let a run whose step follows the profile read its target again."""
    if run.suspended or run.visit == 0 or run.mode:
        return None
    outcome = journey.steps[run.step].follow(_visit(journey, run, place))
    if outcome is None or (isinstance(outcome, Wait) and outcome.until_at == run.due_at):
        return None
    return _apply(journey, run, outcome, place, Move(run))


def look_later(journey: Journey, run: Run, place: Place) -> Move | None:
    """Let a paused run look when its journey goes on: what has come for it meanwhile isn't lost."""
    look_at = place.now + 1  # after the pause has begun, so that the pause holds it up
    if run.suspended or run.visit == 0 or run.mode or (run.look_at is not None and run.look_at <= look_at):
        return None
    return Move(replace(run, look_at=look_at))


def decide(journey: Journey, run: Run, verdict: Verdict, place: Place, passed: list[str]) -> Move:
    """Let a run that came to a message go on by the policy's verdict."""
    move = Move(run, passed=passed)
    step = journey.steps[run.step]
    match verdict.kind:
        case "hold":
            reason = f"{verdict.reason} until {_shown(verdict.until_at)}"
            move.journal.append(entry("held", run, place, reason=reason))
            move.run = replace(run, due_at=verdict.until_at, mode="held")
            return move
        case "ask":
            assert verdict.budget is not None
            asked = Asked(f"{run.id}:{run.visit}", place.user, most=verdict.budget.per_day, within_ms=DAY_MS)
            move.journal.append(entry("asked", run, place, reason=verdict.reason))
            move.inputs.append(Forward(f"quota:budget.{verdict.budget.channel}.{verdict.day}", asked))
            move.run = replace(run, mode="asked", due_at=None)
            return move
        case "drop":
            move.journal.append(entry("blocked", run, place, reason=verdict.reason))
    return _apply(journey, run, step.decide(_visit(journey, run, place), verdict), place, move)


def granted(journey: Journey, run: Run, at: int | None, place: Place) -> Move:
    """Let a run that asked a quota go on by its answer."""
    if run.visit == 0:
        return (
            end(run, "the entry cap is reached", place) if at is None else start(journey, replace(run, mode=""), place)
        )
    move = Move(run)
    if at is None:
        move.journal.append(entry("blocked", run, place, reason="the budget of the day is used up"))
    run = replace(run, mode="")
    return _apply(journey, run, journey.steps[run.step].granted(_visit(journey, run, place), at), place, move)


def granted_in_pause(journey: Journey, run: Run, at: int | None, place: Place) -> Move:
    """Let a run that a quota has answered during a pause begin, or go on by the answer, when its journey goes on.

    What was granted is worth something then, or not: that is for the step to say. What was refused is asked for anew.
    """
    due_at = place.now + 1  # after the pause has begun, so that the pause holds it up
    if run.visit == 0:
        return end(run, "the entry cap is reached", place) if at is None else Move(replace(run, mode="", due_at=due_at))
    if at is None:
        return Move(replace(run, mode="held", due_at=due_at))
    return Move(replace(run, mode="granted", due_at=max(at, due_at)))


def move_to(journey: Journey, run: Run, step: str, place: Place) -> Move:
    """Let a new version take a run over: it enters the step that `moves` names, unless its exit holds already."""
    moved = replace(run, version=journey.version, mode="", suspended="", look_at=None)
    told = entry("moved", moved, place, reason=f"from v{run.version}, {run.step}")
    if journey.exit_on is not None and journey.exit_on.holds(place.facts(moved)):
        return Move(None, [], [told, entry("exited", moved, place, reason="exit_on")])
    return _walk(journey, moved, step, place, Move(run, [], [told]))


def stop(journey: Journey, run: Run, place: Place) -> Move:
    """End a run because an operator stopped its journey."""
    return end(run, "stopped", place)


def end(run: Run, reason: str, place: Place) -> Move:
    """End a run where it stands."""
    return Move(None, [], [entry("exited", run, place, reason=reason)])


def _walk(journey: Journey, run: Run, target: str, place: Place, move: Move) -> Move:
    """Pass through steps until one waits, a message is come to, or the run ends."""
    return _apply(journey, run, Go(target), place, move)


def _apply(journey: Journey, run: Run, outcome: Outcome, place: Place, move: Move) -> Move:
    """Carry out what a step answered; walk on as long as it says so."""
    visit = _visit(journey, run, place)
    while type(outcome) is Go:
        if outcome.messages:
            run = _ask(run, outcome.messages, place, move)
        if outcome.inputs:
            move.inputs += outcome.inputs
        if outcome.updates:
            place.profile = merged(place.profile, outcome.updates)
            move.journal.append(entry("updated", run, place, detail=dict(outcome.updates)))
        target = outcome.step
        if target in move.passed:
            raise LoopError(f"{journey.label}: {' > '.join([*move.passed, target])} loops without waiting")
        move.passed.append(target)
        run = replace(run, step=target, visit=run.visit + 1, arrived_at=place.at, due_at=None, look_at=None)
        move.journal.append(entry("step", run, place))
        visit.run = run
        outcome = journey.steps[target].enter(visit)
    match outcome:
        case Wait():
            if outcome.messages:
                run = _ask(run, outcome.messages, place, move)
            if outcome.inputs:
                move.inputs += outcome.inputs
            move.run = replace(run, due_at=outcome.until_at, look_at=outcome.look_at, mode=outcome.quota)
        case Consider():
            move.run, move.request = run, outcome.request
        case Finish():
            move.journal.append(entry("exited", run, place, reason=outcome.reason))
            move.run = None
    return move


def _visit(journey: Journey, run: Run, place: Place) -> Visit:
    return Visit(run, place, journey.templates)


def _ask(run: Run, messages: tuple[Message, ...], place: Place, move: Move) -> Run:
    """Ask for messages, and remember that this step's receipts are now those of this visit."""
    for message in messages:
        move.messages.append(message)
        detail = {"channel": message.channel, "template": message.template}
        move.journal.append(entry("sent", run, place, message=message.id, detail=detail))
        run = replace(run, sends={**run.sends, run.step: Sent(run.visit)})
    return run


def entry(
    kind: JournalKind, run: Run, place: Place, message: str = "", reason: str = "", detail: dict[str, Any] | None = None
) -> JournalEntry:
    """Return a journal entry about a run."""
    return JournalEntry(
        kind, place.at, place.tenant, place.user, place.cause, run.journey, run.version, run.id, run.step, message, reason,
        detail if detail is not None else {},
    )  # fmt: skip


def _shown(at: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)).strftime("%Y-%m-%d %H:%M UTC")


DAY_MS = 86_400_000


class LoopError(Exception):
    """A walk came back to a step it had passed. `Journey` refuses such tables, unless a wait was over on arrival."""
