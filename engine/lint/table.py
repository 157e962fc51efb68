"""The rules about the table: steps, ways, loops, times, and the most messages that one user can get."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from engine.bound import bound, first_message_after, longest_run, reachable
from engine.conditions import AllOf, AnyOf, Condition, Not, ReceiptOf, event_names, leaves
from engine.durations import days, describe
from engine.journey import After, Journey
from engine.lint.findings import Finding, Surroundings, nearest
from engine.steps import Branch, DelayUntil, Enter, Send, WaitFor

LONGEST_WAIT = days(366)


def check(journey: Journey, surroundings: Surroundings) -> Iterator[Finding]:
    """Yield what is wrong with the table."""
    yield from _unreachable(journey)
    yield from _loops_on_arrival(journey)
    yield from _cases(journey)
    yield from _dates(journey)
    yield from _times(journey)
    yield from broken_promise(journey)
    if surroundings.journeys is not None:
        yield from _other_journeys(journey, surroundings.journeys)


def _unreachable(journey: Journey) -> Iterator[Finding]:
    for name in journey.steps.keys() - reachable(journey):
        yield Finding(
            "warning", "unreachable", name, "no way leads to this step", "lead to it from another step, or remove it"
        )


def _loops_on_arrival(journey: Journey) -> Iterator[Finding]:
    """A wait that is over on arrival makes a loop of what looks like none; the machine suspends the run that is in it."""
    ways = {name: list(step.passes()) for name, step in journey.steps.items()}
    conditions: dict[tuple[str, str], Condition] = {}
    for name, step in journey.steps.items():
        for condition, target in step.cases if isinstance(step, WaitFor) else ():
            if event_names(condition) is None and not any(isinstance(leaf, ReceiptOf) for leaf in leaves(condition)):
                ways[name].append(target)
                conditions[name, target] = condition
    for (name, target), condition in conditions.items():
        path = _way(ways, target, name)
        if path is not None:
            yield Finding(
                "warning",
                "loop_on_arrival",
                name,
                f"{' > '.join([name, *path])} is a loop that does not wait while `{condition}` holds, and the run would be"
                " suspended",
                "put a Delay into it",
            )


def _way(ways: Mapping[str, Sequence[str]], begin: str, end: str) -> list[str] | None:
    """Return the steps of a shortest way, both ends included, or None."""
    before: dict[str, str] = {begin: ""}
    ahead = deque([begin])
    while ahead:
        name = ahead.popleft()
        if name == end:
            path = [name]
            while path[-1] != begin:
                path.append(before[path[-1]])
            return path[::-1]
        for target in ways[name]:
            if target not in before:
                before[target] = name
                ahead.append(target)
    return None


def _cases(journey: Journey) -> Iterator[Finding]:
    for name, step in journey.steps.items():
        if isinstance(step, Branch):
            for condition, target in step.cases:
                if event_names(condition) is not None:
                    yield Finding(
                        "error",
                        "event_in_branch",
                        name,
                        f"`{condition}` can never hold: a Branch decides at once, and no event is at hand then",
                        f"wait for it with WaitFor, or ask what has happened with did(...), to get to {target!r}",
                    )
        cases: Sequence[tuple[Condition, str]] = step.cases if isinstance(step, Branch | WaitFor) else ()
        for index, (condition, target) in enumerate(cases):
            if condition in [earlier for earlier, _ in cases[:index]]:
                yield Finding(
                    "warning",
                    "same_case",
                    name,
                    f"the second `{condition}` never leads to {target!r}: the first that holds wins",
                    "remove it, or change one of the two",
                )
    for place, condition in journey.conditions():
        for part in _empty_parts(condition):
            yield Finding(
                "warning",
                "empty_condition",
                place.strip("'"),
                f"`{part.kind}()` without conditions {'always' if isinstance(part, AllOf) else 'never'} holds",
                "put conditions into it, or leave it out",
            )


def _empty_parts(condition: Condition) -> Iterator[AllOf | AnyOf]:
    match condition:
        case AllOf() | AnyOf():
            if not condition.conditions:
                yield condition
            for part in condition.conditions:
                yield from _empty_parts(part)
        case Not():
            yield from _empty_parts(condition.condition)


def _dates(journey: Journey) -> Iterator[Finding]:
    for name, step in journey.steps.items():
        if not isinstance(step, DelayUntil) or step.date is None:
            continue
        ways = {"if_past": step.if_past, "if_missing": step.if_missing or step.if_past}
        for field, way in ways.items():
            target = step.then if way == "continue" else way
            if target in journey.steps and isinstance(journey.steps[target], Send):
                what = "a date that has passed" if field == "if_past" else "a user without the date"
                yield Finding(
                    "warning",
                    "sends_at_once",
                    name,
                    f"{what} leads to {target!r}, which sends at once, at whatever time of day",
                    f'say `{field}="exit"`, or lead to a step that waits for a good time',
                )


def _times(journey: Journey) -> Iterator[Finding]:
    for name, step in journey.steps.items():
        if isinstance(step, WaitFor) and step.timeout > LONGEST_WAIT:
            yield Finding(
                "warning",
                "long_wait",
                name,
                f"the wait may last {describe(step.timeout)}, and its run stays in the user's state that long",
                "wait for a year at most, and let the event begin a journey of its own",
            )
    longest = longest_run(journey)
    reentry = journey.reentry
    if isinstance(reentry, After) and longest is not None and longest > reentry.duration:
        yield Finding(
            "warning",
            "reentry",
            "reentry",
            f"a user may enter again after {describe(reentry.duration)}, and a run may last {describe(longest)}: who is"
            " still in it then is turned away",
            f"say after({describe(longest)}) or longer",
        )
    first = first_message_after(journey)
    if journey.goal is not None and first is not None and first >= journey.goal.within:
        yield Finding(
            "warning",
            "goal_too_short",
            "goal",
            f"the goal counts for {describe(journey.goal.within)}, and the first message goes out after {describe(first)}:"
            " nothing that is counted can come of a message",
            f"say `within` more than {describe(first)}",
        )


def broken_promise(journey: Journey) -> Iterator[Finding]:
    """Yield what is wrong with `at_most`, if the table allows more; publishing refuses such a journey, too."""
    if journey.at_most is None:
        return
    promised, within = journey.at_most.messages, journey.at_most.within
    found = bound(journey, within)
    promise = f"at_most promises {promised} within {describe(within)}"
    if found.most is None:
        each = "" if found.each is None else f" (for each {journey.key} at most {found.each})"
        yield Finding(
            "error",
            "at_most",
            "at_most",
            f"{promise}, and nothing bounds how many a user can get{each}: {found.why}",
            "change what goes around, or leave at_most to a cap of the policy",
        )
    elif found.most > promised:
        yield Finding(
            "error",
            "at_most",
            "at_most",
            f"{promise}, and a user can get {found.most} (what is late by less than `max_lateness` counts where it goes out)",
            f"put longer delays between the sends, or promise {found.most}",
        )


def _other_journeys(journey: Journey, names: frozenset[str]) -> Iterator[Finding]:
    for name, step in journey.steps.items():
        if isinstance(step, Enter) and step.journey not in names:
            yield Finding(
                "error",
                "unknown_journey",
                name,
                f"there is no journey {step.journey!r} to enter",
                nearest(step.journey, sorted(names), "there are"),
            )
