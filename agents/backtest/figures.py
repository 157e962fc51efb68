"""The figures of a comparison in the order in which they are shown, and the notes that go with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from agents.backtest.play import Played
from engine.comparison import Comparison, Outcome
from engine.durations import describe

Unit = Literal["count", "share", "amount"]
MOST_REASONS = 8  # of each kind; all of them are in the JSON
MOST_JOURNEYS = 12


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: what it is, and its value in both versions."""

    group: str
    label: str
    old: float
    new: float
    unit: Unit = "count"

    @property
    def change(self) -> str:
        """Say how the new value differs: in percent, or in percentage points of a share."""
        if self.old == self.new:
            return "="
        if self.unit == "share":
            return f"{(self.new - self.old) * 100:+.1f} pt"
        if not self.old:
            return "new"
        change = (self.new - self.old) / self.old * 100
        return f"{change:+.0f} %" if abs(change) >= 10 else f"{change:+.1f} %"

    def written(self, value: float) -> str:
        match self.unit:
            case "share":
                return f"{value * 100:.1f} %"
            case "amount":
                return f"{value:,.2f}" if value >= 1 or not value else f"{value:.3g}"
            case _:
                return f"{value:,.0f}"


def figures_of(comparison: Comparison) -> Iterator[Figure]:
    """Yield the figures, those of a group together."""
    old, new = comparison.old, comparison.new
    yield Figure("Entries", "runs begun", old.entered, new.entered)
    yield Figure("Entries", "users who entered", old.users_entered, new.users_entered)
    yield from by_reason("Entries", "not entered: ", old.not_entered, new.not_entered)
    yield Figure("Messages", "messages", old.sent, new.sent)
    if len({**old.messages, **new.messages}) > 1:
        yield from by_reason("Messages", "by ", old.messages, new.messages)
    yield Figure("Messages", "users who get any", old.users_messaged, new.users_messaged)
    yield Figure("Messages", "most that one user gets", old.most_messages, new.most_messages)
    yield from by_reason("Messages", "", old.templates, new.templates)
    yield from by_reason("Kept back", "", old.blocked, new.blocked)
    yield from by_reason("Kept back", "held: ", old.held, new.held)
    yield from by_reason("Ends", "", _ends(old), _ends(new))
    yield Figure("Ends", "still in it", old.still_in, new.still_in)
    if old.suspended or new.suspended:
        yield from by_reason("Ends", "error: ", old.suspended, new.suspended)
    yield Figure("Goal", "goals reached", old.goals, new.goals)
    yield Figure("Goal", "of the runs", old.goal_rate, new.goal_rate, "share")
    if old.goal_value or new.goal_value:
        yield Figure("Goal", "their value", old.goal_value, new.goal_value, "amount")
    if comparison.prices:
        yield Figure("Cost", "of the messages", old.cost, new.cost, "amount")
        yield Figure("Cost", "for each goal", _each(old), _each(new), "amount")
    if old.calls or new.calls:
        yield Figure("Messages", "calls of other systems", old.calls, new.calls)
    yield from _by_journey(old, new)


def notes_of(played: Played) -> Iterator[str]:
    """Yield what whoever reads the figures should know."""
    comparison, rejects = played.comparison, played.rejects
    yield (
        "What people did is as it was recorded: the figures show whom a version reaches, when and how often, not what"
        " they would make of it."
    )
    if comparison.disordered:
        yield (
            f"{comparison.disordered:,} records came out of order, by up to"
            f" {describe(timedelta(seconds=round(comparison.furthest_back_seconds)))}: they count as late. Sort the file by"
            " time if it was not recorded so."
        )
    for reason, count in rejects.reasons.most_common():
        yield f"{count:,} could not be used: {reason} (first: {rejects.first[reason]})"
    yield from _of_receipts(played)
    if played.left_out["given by a run"]:
        yield f"{played.left_out['given by a run']:,} inputs that runs of these journeys gave were left out: they do it anew."
    for label in played.scheduled:
        yield f"{label} is entered by a schedule; files don't hold its entries, the log of the host does."
    unreachable = max(_without_address(comparison.old), _without_address(comparison.new))
    if unreachable:
        yield (
            f"{unreachable:,} messages had no address to go to; if the recording lacks addresses, --reachable gives everybody"
            " one on every channel."
        )
    if comparison.old.calls or comparison.new.calls:
        yield "Calls of other systems were not made: each is taken for accepted, with an empty answer."


def _of_receipts(played: Played) -> Iterator[str]:
    shares = played.comparison.reactions
    if any(shares.values()):
        said = ", ".join(f"{share:.0%} {name}" for name, share in shares.items())
        yield f"Of the messages, by a hash of user and template, the same in both versions: {said}."
    heard = {
        kind.removeprefix("receipt "): count for kind, count in played.left_out.items() if kind.startswith("receipt ")
    }
    delivered = heard.get("delivered") or heard.get("accepted") or 0
    if delivered:
        options = " ".join(
            f"--{option} {min(1.0, heard.get(status, 0) / delivered):.2g}"
            for option, status in (("opens", "opened"), ("clicks", "clicked"), ("bounces", "bounced"))
        )
        yield f"Recorded receipts answer messages that aren't sent here; they came to: {options}"


def _by_journey(old: Outcome, new: Outcome) -> Iterator[Figure]:
    """Yield what each of several journeys came to, those with the most messages first."""

    def count(name: str, what: str) -> tuple[int, int]:
        return old.by_journey.get(name, {}).get(what, 0), new.by_journey.get(name, {}).get(what, 0)

    names = sorted({**old.by_journey, **new.by_journey}, key=lambda name: (-sum(count(name, "messages")), name))
    for name in names[:MOST_JOURNEYS]:
        for what, said in (
            ("entered", "runs begun"),
            ("messages", "messages"),
            ("blocked", "kept back"),
            ("goals", "goals"),
        ):
            was, now = count(name, what)
            if was or now or what == "entered":
                yield Figure("By journey", f"{name}: {said}", was, now)


def by_reason(group: str, prefix: str, old: dict[str, int], new: dict[str, int]) -> Iterator[Figure]:
    """Yield a figure for each reason, the most frequent ones first, and one for all the others."""
    names = sorted({**old, **new}, key=lambda name: -(old.get(name, 0) + new.get(name, 0)))
    for name in names[:MOST_REASONS]:
        yield Figure(group, f"{prefix}{name}", old.get(name, 0), new.get(name, 0))
    rest = names[MOST_REASONS:]
    if rest:
        others = (sum(side.get(name, 0) for name in rest) for side in (old, new))
        yield Figure(group, f"{prefix}{len(rest)} others", next(others), next(others))


def _without_address(outcome: Outcome) -> int:
    return sum(count for reason, count in outcome.blocked.items() if reason.startswith("no address"))


def _ends(outcome: Outcome) -> dict[str, int]:
    said = {"exit_on": "by exit_on", "done": "came to the end"}
    return {said.get(reason, reason): count for reason, count in outcome.exits.items()}


def _each(outcome: Outcome) -> float:
    return outcome.cost / outcome.goals if outcome.goals else 0.0
