"""How many messages one user can get from a journey at most.

    most_messages(journey, window) -> the most within any stretch of time of that length; None if there is no such number

The bound holds for every history: whatever events and receipts come, and when. It is computed from the graph. A send asks
for one message per visit, and between two visits at least the shortest time must pass that a run can take from one to the
other: a Delay takes its duration, the end of a wait its timeout, every other way out no time at all (the event may come at
once). So the earliest arrival at the first, second, third send follows layer by layer, and counting stops where it lies
beyond the window. Runs of one user follow one another, as closely as the re-entry rule allows.

Three things are not as they seem:

- A message may go out later than its send was reached: after an outage, or held until a quiet hour is over, but never later
  than its `max_lateness`. So what was due up to that much before a window can fall into it, and the bound counts it.
- A key makes runs that don't know of each other. There is no bound for a user with any number of carts, only one for each
  cart: `Bound.each`.
- A time of day says nothing about how soon it comes again: a user's time zone may change. Only a Delay in a loop does.

It speaks of one user id and one version. What a merged id got before the merge comes on top.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from heapq import heapify, heappop, heappush

from engine.durations import days, describe, hours, milliseconds
from engine.entries import Schedule
from engine.journey import After, Journey, Once
from engine.steps import Branch, Call, Cohorts, Delay, DelayUntil, Emit, Enter, Exit, Send, Step, Update, WaitFor
from engine.steps.sends import RECEIPT_PATIENCE

LONGEST_QUIET = hours(
    25
)  # a message held on its last moment waits for one more quiet time, on the day the clocks go back
MOST = 1000  # where counting stops: who gets a thousand mails in a month doesn't care about the rest

OVER = ""  # where a run goes when it ends; no step has this name

Graph = Mapping[str, Sequence[tuple[str, int]]]  # step -> where it leads and the least time (ms) until then


@dataclass(frozen=True, slots=True)
class Bound:
    """`most` for one user, `each` for each value of the key; None where there is none, and `why` says so."""

    most: int | None
    each: int | None
    why: str = ""


def most_messages(journey: Journey, window: timedelta) -> int | None:
    """Return the most messages one user can get from this journey within any time of this length, or None: no bound."""
    return bound(journey, window).most


def bound(journey: Journey, window: timedelta) -> Bound:
    """Return the most messages within any time of this length, its end excluded; or why there is no such number."""
    graph = _graph(journey)
    if not any(isinstance(journey.steps[name], Send) for name in graph):
        return Bound(0, 0)
    each = _most_in_turn(journey, graph, milliseconds(window))
    if each is None:
        return Bound(None, None, _why_unbounded(journey, graph))
    if journey.key is not None:
        return Bound(None, each, f"each {journey.key} has a run of its own, and a user can have any number of them")
    return Bound(each, each)


def reachable(journey: Journey) -> set[str]:
    """Return the steps that a run can come to: from the start, or from where an older version's runs are moved."""
    found: set[str] = set()
    ahead = [journey.start, *_moved_to(journey)]
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += [target for _, target in journey.steps[name].edges()]
    return found


def longest_run(journey: Journey) -> timedelta | None:
    """Return the longest time from the entry to the end of a run that nothing holds up, or None if there is no longest."""
    arrivals = dict(_latest_arrivals(journey, 0, longest_stay))
    ends = [arrivals[name] for name in reachable(journey) if not journey.steps[name].edges()]
    known = [at for at in ends if at is not None]
    return timedelta(milliseconds=max(known)) if known and len(known) == len(ends) else None


def first_message_after(journey: Journey) -> timedelta | None:
    """Return the shortest time from the entry to a message, or None if there is none."""
    graph = _graph(journey)
    sends = frozenset(name for name in graph if isinstance(journey.steps[name], Send))
    found = _until_next_send(graph, sends, {journey.start: 0}, milliseconds(timedelta.max))
    first = min((at for name, at in found.items() if name != OVER), default=None)
    return None if first is None else timedelta(milliseconds=first)


def least_stays(step: Step) -> list[tuple[str, int]]:
    """Return every way out with the shortest time (ms) after which a run can take it."""
    match step:
        case Delay():
            return [(step.then, milliseconds(step.duration))]
        case DelayUntil() if "exit" in (step.if_past, step.if_missing):
            return [*((target, 0) for _, target in step.edges()), (OVER, 0)]
        case WaitFor():
            return [*((target, 0) for _, target in step.cases), (step.on_timeout, milliseconds(step.timeout))]
        case _:
            return [(target, 0) for _, target in step.edges()]


def longest_stay(step: Step) -> int | None:
    """Return the longest time (ms) that a run stays at a step if no message is held up; None if nothing limits it."""
    match step:
        case Delay():
            return milliseconds(step.duration)
        case DelayUntil(date=None, follows=False):
            return milliseconds(days(7 if step.weekdays else 1))
        case WaitFor() | Call():
            return milliseconds(step.timeout)
        case Send(on_failed=str()):
            return milliseconds(RECEIPT_PATIENCE)
        case Send() | Branch() | Cohorts() | Update() | Emit() | Enter() | Exit():
            return 0
        case _:
            return None


def _held_stay(step: Step) -> int | None:
    """Return the longest time (ms) that a run stays at a step if its message is held as long as may be."""
    stay = longest_stay(step)
    match step:
        case Send(transactional=False):
            return milliseconds(step.max_lateness + LONGEST_QUIET + RECEIPT_PATIENCE)
        case DelayUntil():
            return None if stay is None else stay + milliseconds(hours(2))  # the clocks may go back on the way
        case _:
            return stay


def _moved_to(journey: Journey) -> list[str]:
    return [target for target in journey.moves.values() if target in journey.steps]


def _graph(journey: Journey) -> Graph:
    """Return the steps that can be reached, with their ways; where an exit rule can end a run, that is a way too."""
    over = [] if journey.exit_on is None else [(OVER, 0)]
    ways = {name: least_stays(journey.steps[name]) for name in sorted(reachable(journey))}
    return {name: [*out, *over] if out else [(OVER, 0)] for name, out in ways.items()}


def _latest_arrivals(
    journey: Journey, start: int | None, stay_at: Callable[[Step], int | None]
) -> Iterator[tuple[str, int | None]]:
    """Yield for each step the latest time (ms since the entry) at which a run can arrive there; None: there is no latest.

    A run arrives at its first step at `start` at the latest.

    Steps come in an order in which every way leads forward. Those in a loop, or behind one, have no such order.
    """
    names = reachable(journey)
    waiting = dict.fromkeys(names, 0)  # ways in that have not been followed yet
    for name in names:
        for _, target in journey.steps[name].edges():
            waiting[target] += 1
    latest: dict[str, int | None] = dict.fromkeys(names, 0)
    latest[journey.start] = start
    latest |= dict.fromkeys(_moved_to(journey))  # however long they were in the older version
    ready = sorted(name for name in names if not waiting[name])
    while ready:
        name = ready.pop()
        at, stay = latest[name], stay_at(journey.steps[name])
        yield name, at
        for _, target in journey.steps[name].edges():
            before = latest[target]
            latest[target] = None if at is None or stay is None or before is None else max(before, at + stay)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    for name in sorted(names):
        if waiting[name]:
            yield name, None


def _most_in_turn(journey: Journey, graph: Graph, window: int) -> int | None:
    """Return the most messages of runs that follow one another; None if there are more than MOST.

    The fullest window begins with a message. Its send may have been reached up to its `max_lateness` earlier, so that is
    how much later than the latest of all it begins, on an axis that is longer by that much.
    """
    lateness = {
        name: milliseconds(step.max_lateness)
        for name, step in journey.steps.items()
        if isinstance(step, Send) and name in graph
    }
    latest = max(lateness.values())
    span = window + latest
    begins = {name: latest - late for name, late in lateness.items()}
    midway = _passage(graph, lateness, begins, span)
    most = len(midway.reach) - 1
    if not isinstance(journey.reentry, Once) and most <= MOST:
        gap = milliseconds(journey.reentry.duration) if isinstance(journey.reentry, After) else 0
        entries = _first_entries(journey, graph, lateness, begins, gap, span) if gap else _known(midway.leave)
        whole = _passage(graph, lateness, {journey.start: 0}, span)
        most = max(most, _most_with_entries(entries, whole, gap, span))
    return most if most <= MOST else None


def _first_entries(
    journey: Journey, graph: Graph, sends: Iterable[str], begins: Mapping[str, int], gap: int, span: int
) -> dict[int, int]:
    """Return when the next run can begin at the earliest, by how many messages the window has had so far.

    The run in which the window opens was entered before its first send was reached: how long before is limited.
    """
    begins_at_once = journey.entry_cap is None and not isinstance(journey.entry, Schedule)
    latest = dict(_latest_arrivals(journey, 0 if begins_at_once else None, _held_stay))
    entries: dict[int, int] = {}
    for send in sends:
        before = latest[send]
        allowed = begins[send] + (0 if before is None else max(0, gap - before))
        for count, left in _known(_passage(graph, begins.keys(), {send: begins[send]}, span).leave).items():
            entries[count] = min(max(left, allowed), entries.get(count, span))
    return entries


def _most_with_entries(entries: Mapping[int, int], whole: "Passage", gap: int, span: int) -> int:
    """Return the most messages of a run's end, any number of whole runs and a run's beginning, entries `gap` apart."""
    earliest = dict(entries)
    most = 0
    for count in range(MOST + 1):
        at = earliest.get(count, span)
        if at >= span:
            continue
        most = max(most, count + max(more for more, time in enumerate(whole.reach) if at + time < span))
        for more, left in _known(whole.leave).items():
            if more > 0 and (again := at + max(gap, left)) < span:
                earliest[count + more] = min(again, earliest.get(count + more, again))
    return max([most, *earliest])


@dataclass(frozen=True, slots=True)
class Passage:
    """One run within a span: `reach[n]` is the least time (ms) until n messages, `leave[n]` until it is over after n."""

    reach: list[int]
    leave: list[int | None]


def _known(times: Sequence[int | None]) -> dict[int, int]:
    return {count: time for count, time in enumerate(times) if time is not None}


def _passage(graph: Graph, sends: Iterable[str], begins: Mapping[str, int], span: int) -> Passage:
    """Follow a run that begins at one of these steps, message by message, until the span is over or MOST exceeded."""
    passage = Passage([], [])
    sending = frozenset(sends)
    arrivals = dict(begins)
    at: int | None = 0
    while at is not None and len(passage.reach) <= MOST + 1:
        found = _until_next_send(graph, sending, arrivals, span)
        passage.reach.append(at)
        passage.leave.append(found.pop(OVER, None))
        at = min(found.values(), default=None)
        arrivals = {}
        for send, time in found.items():
            for target, stay in graph[send]:
                arrivals[target] = min(time + stay, arrivals.get(target, time + stay))
    return passage


def _until_next_send(graph: Graph, sends: frozenset[str], arrivals: Mapping[str, int], span: int) -> dict[str, int]:
    """Return the earliest arrival, within the span, at each step that sends and at the end; Dijkstra, not passing sends."""
    ahead = [(at, name) for name, at in arrivals.items() if at < span]
    heapify(ahead)
    seen: set[str] = set()
    found: dict[str, int] = {}
    while ahead:
        at, name = heappop(ahead)
        if name in seen:
            continue
        seen.add(name)
        if name == OVER or name in sends:
            found[name] = at
            continue
        for target, stay in graph[name]:
            if at + stay < span and target not in seen:
                heappush(ahead, (at + stay, target))
    return found


def _why_unbounded(journey: Journey, graph: Graph) -> str:
    """Say which way can be taken again and again."""
    loops = [_shortest_loop(graph, name) for name in graph if isinstance(journey.steps[name], Send)]
    loop = min((loop for loop in loops if loop is not None), default=None)
    if loop is None:
        return f"re-entry is {journey.reentry}, and a run can be over at once: every entry sends again"
    time, path = loop
    pace = f"once in {describe(timedelta(milliseconds=time))}" if time else "without any time in between"
    clocks = [name for name in path if isinstance(journey.steps[name], DelayUntil)]
    hint = (
        f"; {clocks[0]!r} alone makes none, because a time zone may change: put a Delay into the loop" if clocks else ""
    )
    return f"a run can go around {' > '.join(path)} {pace}{hint}"


def _shortest_loop(graph: Graph, begin: str) -> tuple[int, list[str]] | None:
    """Return the time and the steps of the quickest way from a step back to itself."""
    ahead = [(stay, target, begin) for target, stay in graph[begin]]
    heapify(ahead)
    before: dict[str, str] = {}
    while ahead:
        at, name, source = heappop(ahead)
        if name == begin:
            path = [begin, source]
            while path[-1] != begin:
                path.append(before[path[-1]])
            return at, path[::-1]
        if name in before or name == OVER:
            continue
        before[name] = source
        for target, stay in graph[name]:
            heappush(ahead, (at + stay, target, name))
    return None
