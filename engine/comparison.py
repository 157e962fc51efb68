"""How two lanes of a backtest compare: what each came to, and whom they treat differently."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from engine.backtest import DAY_MS, Backtest, Lane, Person, Tally

Kind = Literal[
    "only_old", "only_new", "goal_only_old", "goal_only_new", "more", "fewer", "others", "times", "entries", "ends",
]  # fmt: skip

# In this order: a user who differs in several ways is counted under the first.
KINDS: dict[Kind, str] = {
    "only_new": "enter only the new version",
    "only_old": "enter only the old version",
    "goal_only_new": "reach the goal only in the new version",
    "goal_only_old": "reach the goal only in the old version",
    "more": "get more messages from the new version",
    "fewer": "get fewer messages from the new version",
    "others": "get as many messages, but other ones",
    "times": "get the same messages at other times",
    "entries": "get the same, but enter more or less often",
    "ends": "get the same, but leave or are kept back for another reason",
}

RANKED = frozenset(
    {"not_entered", "messages", "templates", "blocked", "held", "receipts", "exits", "suspended"}
)  # fields of an Outcome whose greatest count comes first

BUSIEST = 20  # users with so many messages and more are counted together


class Outcome(Struct, frozen=True):
    """What one side came to: a version of a journey, or several journeys together.

    Days are dates, UTC; shares are between 0 and 1; `cost` is in the unit of the prices.
    """

    journey: str
    entered: int
    users_entered: int
    not_entered: dict[str, int]
    messages: dict[str, int]  # by channel
    messages_per_day: dict[str, dict[str, int]]  # channel -> date -> messages
    templates: dict[str, int]  # by channel:template
    users_messaged: int
    messages_per_user: dict[int, int]  # messages -> users who got so many; the last number stands for it and more
    most_messages: int  # that one user got
    blocked: dict[str, int]
    held: dict[str, int]
    receipts: dict[str, int]
    exits: dict[str, int]
    still_in: int  # runs that had not ended at the horizon
    suspended: dict[str, int]
    calls: int
    entered_per_day: dict[str, int]
    goals: int
    goals_per_day: dict[str, int]
    goal_rate: float  # of the runs
    goal_value: float
    cost: float
    by_journey: dict[str, dict[str, int]]  # where several are counted: journey -> entered, messages, blocked, goals

    @property
    def sent(self) -> int:
        return sum(self.messages.values())


class Difference(Struct, frozen=True):
    """Users for whom the versions differ in one way. `example` is the one with the shortest story, of `length` entries."""

    kind: Kind
    text: str
    users: int
    example: str
    length: int


class Comparison(Struct, frozen=True):
    """A backtest's result. Times are ISO 8601, UTC."""

    old: Outcome
    new: Outcome
    inputs: int
    users: int
    first_at: str
    last_at: str
    until_at: str
    disordered: int
    furthest_back_seconds: float
    differing_users: int
    differences: list[Difference]
    prices: dict[str, float]
    reactions: dict[str, float]


def compare(backtest: Backtest, prices: Mapping[str, float] = {}) -> Comparison:
    """Return what a finished backtest came to. `prices`: what one message costs, by channel; 0 for those not named."""
    differences = _differences(backtest)
    reactions = backtest.old.reactions
    return Comparison(
        old=_outcome(backtest.old, prices),
        new=_outcome(backtest.new, prices),
        inputs=backtest.inputs,
        users=len(backtest.old.people),
        first_at=_instant(backtest.first_at or 0),
        last_at=_instant(backtest.last_at),
        until_at=_instant(backtest.until_at),
        disordered=backtest.disordered,
        furthest_back_seconds=backtest.furthest_back_ms / 1000,
        differing_users=sum(difference.users for difference in differences),
        differences=differences,
        prices=dict(prices),
        reactions={"opens": reactions.opens, "clicks": reactions.clicks, "bounces": reactions.bounces},
    )


def merged(parts: Sequence[Comparison]) -> Comparison:
    """Return the comparison over all users of parts that were played apart, each with the users of its own."""
    first = parts[0]
    found: dict[Kind, list[Difference]] = {}
    for part in parts:
        for difference in part.differences:
            found.setdefault(difference.kind, []).append(difference)
    differences = [
        _difference(
            kind, sum(each.users for each in found[kind]), min((each.length, each.example) for each in found[kind])
        )
        for kind in KINDS
        if kind in found
    ]
    return replace(
        first,
        old=_sum([part.old for part in parts]),
        new=_sum([part.new for part in parts]),
        inputs=sum(part.inputs for part in parts),
        users=sum(part.users for part in parts),
        disordered=sum(part.disordered for part in parts),
        furthest_back_seconds=max(part.furthest_back_seconds for part in parts),
        differing_users=sum(part.differing_users for part in parts),
        differences=differences,
    )


def _sum(parts: Sequence[Outcome]) -> Outcome:
    """Add up all numbers, and the counters in their order; but the most that one user gets, and the rate, which isn't a sum."""
    sums: dict[str, Any] = {}
    for name in Outcome.__struct_fields__:
        values = [getattr(part, name) for part in parts]
        sums[name] = values[0] if isinstance(values[0], str) else _added(values, name in RANKED)
    sums["most_messages"] = max(part.most_messages for part in parts)
    sums["goal_rate"] = sums["goals"] / sums["entered"] if sums["entered"] else 0.0
    sums["goal_value"], sums["cost"] = round(sums["goal_value"], 2), round(sums["cost"], 4)
    return Outcome(**sums)


def _added(values: Sequence[Any], is_ranked: bool) -> Any:
    if not isinstance(values[0], dict):
        return sum(values)
    keys = {key for value in values for key in value}
    inner = {key: _added([value[key] for value in values if key in value], False) for key in sorted(keys)}
    return _ranked(Counter(inner)) if is_ranked else inner


def difference_between(old: Person, new: Person) -> Kind | None:
    """Return in which way the versions treated one user differently, or None if they did not."""
    if bool(old.entered) is not bool(new.entered):
        return "only_new" if new.entered else "only_old"
    if bool(old.goals) is not bool(new.goals):
        return "goal_only_new" if new.goals else "goal_only_old"
    if old.sent != new.sent:
        return "more" if new.sent > old.sent else "fewer"
    if old.plot != new.plot:
        return "others"
    if old.times != new.times:
        return "times"
    if (old.entered, old.goals) != (new.entered, new.goals):
        return "entries"
    return "ends" if old.rest != new.rest else None


def _differences(backtest: Backtest) -> list[Difference]:
    users: Counter[Kind] = Counter()
    examples: dict[Kind, tuple[int, str]] = {}
    for user_id, old in backtest.old.people.items():
        new = backtest.new.person(user_id)
        kind = difference_between(old, new)
        if kind is not None:
            users[kind] += 1
            length = (old.length + new.length, user_id)
            examples[kind] = min(examples.get(kind, length), length)
    return [_difference(kind, users[kind], examples[kind]) for kind in KINDS if users[kind]]


def _difference(kind: Kind, users: int, shortest: tuple[int, str]) -> Difference:
    return Difference(kind, KINDS[kind], users, shortest[1], shortest[0])


def _outcome(lane: Lane, prices: Mapping[str, float]) -> Outcome:
    tally = lane.tally
    per_channel: Counter[str] = Counter()
    per_day: dict[str, dict[str, int]] = {}
    for (channel, day), count in sorted(tally.messages.items()):
        per_channel[channel] += count
        per_day.setdefault(channel, {})[_date(day)] = count
    people = lane.people.values()
    got = Counter(min(person.sent, BUSIEST) for person in people if person.sent)
    entered, goals = tally.entered.total(), tally.goals.total()
    return Outcome(
        journey=lane.label,
        entered=entered,
        users_entered=sum(1 for person in people if person.entered),
        not_entered=_ranked(tally.not_entered),
        messages=_ranked(per_channel),
        messages_per_day=per_day,
        templates=_ranked(tally.templates),
        users_messaged=got.total(),
        messages_per_user=dict(sorted(got.items())),
        most_messages=max((person.sent for person in people), default=0),
        blocked=_ranked(tally.blocked),
        held=_ranked(tally.held),
        receipts=_ranked(tally.receipts),
        exits=_ranked(tally.exits),
        still_in=sum(run.journey in lane.names for person in people for run in person.state.runs),
        suspended=_ranked(tally.suspended),
        calls=tally.calls,
        entered_per_day={_date(day): count for day, count in sorted(tally.entered.items())},
        goals=goals,
        goals_per_day={_date(day): count for day, count in sorted(tally.goals.items())},
        goal_rate=goals / entered if entered else 0.0,
        goal_value=round(tally.goal_value, 2),
        cost=round(sum(count * prices.get(channel, 0.0) for channel, count in per_channel.items()), 4),
        by_journey={name: _counts(each) for name, each in sorted(lane.tallies.items())},
    )


def _counts(tally: Tally) -> dict[str, int]:
    return {
        "entered": tally.entered.total(),
        "messages": tally.messages.total(),
        "blocked": tally.blocked.total(),
        "goals": tally.goals.total(),
    }


def _ranked(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda each: (-each[1], each[0])))


def _date(day: int) -> str:
    return f"{datetime.fromtimestamp(day * DAY_MS / 1000, UTC):%Y-%m-%d}"


def _instant(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
