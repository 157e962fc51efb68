"""How a run moves through its journey.

A run is a step's name and a few fields. It moves in two ways: a *walk* passes through steps until one waits or the run
ends; an *input* (an event, a receipt, the end of a wait) concerns the step where the run waits, or changes nothing.

    start     -> walk from the journey's first step
    resume    -> ask the step where this input leads; walk on from there
    time_out  -> the wait is over: walk on from where the step says

A walk passes each step at most once: `Journey` refuses tables that could loop without waiting, and the walk makes sure.
Every function returns a `Move`: the run as it is now, the messages it asked for and what goes into the journal. Nothing
here reads a clock, draws a number or does I/O, so the same inputs give the same moves in production, on replay after a
crash, and in a simulation.
"""

from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from engine.conditions import Facts
from engine.journey import Journey
from engine.outcomes import Finish, Go, Visit, Wait
from schemas.outputs import JournalEntry, Message
from schemas.state import Run, Sent


@dataclass(slots=True)
class Place:
    """Whose run it is and when: the same for everything that one input does to one run."""

    tenant: str
    user: str
    profile: dict[str, Any]
    at: int  # the time by which paths are decided
    now: int  # the record's time
    cause: str


@dataclass(slots=True)
class Move:
    """What happened to a run. `run` is None when it has ended."""

    run: Run | None
    messages: list[Message] = field(default_factory=list)
    journal: list[JournalEntry] = field(default_factory=list)


def start(journey: Journey, run: Run, place: Place) -> Move:
    """Let a run that has not arrived anywhere yet enter the journey's first step."""
    return _walk(journey, run, journey.start, place, Move(run))


def resume(journey: Journey, run: Run, place: Place, facts: Facts) -> Move | None:
    """Let a run see what is the case: its exit first, then the step where it waits. Return None if it concerns neither.

    A suspended run obeys its exit, nothing else; so does one that was suspended on its very first walk.
    """
    if journey.exit_on is not None and journey.exit_on.holds(facts):
        return _end(run, "exit_on", place)
    if run.suspended or run.visit == 0:
        return None
    target = journey.steps[run.step].resume(facts)
    return None if target is None else _walk(journey, run, target, place, Move(run))


def time_out(journey: Journey, run: Run, place: Place) -> Move:
    """End the wait of a run whose time has come; or end the run, if its exit holds by now."""
    if run.visit == 0:
        return start(journey, run, place)
    if journey.exit_on is not None and journey.exit_on.holds(Facts(place.profile, None, run.event, run.sends)):
        return _end(run, "exit_on", place)
    return _walk(journey, run, journey.steps[run.step].time_out(), place, Move(run))


def _end(run: Run, reason: str, place: Place) -> Move:
    return Move(None, [], [_entry("exited", run, place, reason=reason)])


def _walk(journey: Journey, run: Run, target: str, place: Place, move: Move) -> Move:
    """Pass through steps until one waits or the run ends."""
    passed: list[str] = []
    while True:
        if target in passed:
            raise LoopError(f"{journey.label}: {' > '.join([*passed, target])} loops without waiting")
        passed.append(target)
        run = replace(run, step=target, visit=run.visit + 1, arrived_at=place.at, due_at=None)
        step = journey.steps[target]
        move.journal.append(_entry("step", run, place))
        outcome = step.enter(
            Visit(run, place.tenant, place.user, place.profile, journey.templates, place.at, place.now)
        )
        match outcome:
            case Go():
                if outcome.blocked:
                    move.journal.append(_entry("blocked", run, place, reason=outcome.blocked))
                run = _ask(run, outcome.messages, place, move)
                target = outcome.step
            case Wait():
                run = _ask(run, outcome.messages, place, move)
                move.run = replace(run, due_at=outcome.until_at)
                return move
            case Finish():
                move.journal.append(_entry("exited", run, place, reason=outcome.reason))
                move.run = None
                return move


def _ask(run: Run, messages: tuple[Message, ...], place: Place, move: Move) -> Run:
    """Ask for messages, and remember that this step's receipts are now those of this visit."""
    for message in messages:
        move.messages.append(message)
        move.journal.append(
            _entry(
                "sent",
                run,
                place,
                message=message.id,
                detail={"channel": message.channel, "template": message.template},
            )
        )
        run = replace(run, sends={**run.sends, run.step: Sent(run.visit)})
    return run


def _entry(kind: Any, run: Run, place: Place, **more: Any) -> JournalEntry:
    return JournalEntry(
        kind, place.at, place.tenant, place.user, place.cause, run.journey, run.version, run.id, run.step, **more
    )


class LoopError(Exception):
    """A walk came back to a step it had passed. `Journey` refuses such tables, unless a wait was over on arrival."""
