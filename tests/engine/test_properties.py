"""What holds for every journey and every history: the fold is pure, and time passes in it as it should."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import EXIT, Journey, Policy
from engine.actor import handle
from engine.admission import MAX_RUNS
from engine.catalog import Catalog
from engine.definitions import dump, load
from engine.simulator.invariants import (
    a_state_can_be_stored,
    no_run_is_lost,
    nothing_happens_after_the_end,
    nothing_happens_twice,
    nothing_is_early,
    the_same_log_gives_the_same,
)
from schemas.inputs import Event, WakeUp
from schemas.state import User
from tests.engine.generated import (
    HOUR,
    PLAIN_KINDS,
    Happening,
    Life,
    catalog_of,
    histories,
    journeys,
    live,
    policies,
    seeds,
    some_happening,
    some_journey,
    some_policy,
)

catalogs = st.tuples(journeys("one"), journeys("two", hears=("from_one",)), policies()).map(
    lambda each: catalog_of(*each)
)

encode = msgspec.msgpack.Encoder().encode


@given(catalogs, histories)
def test_the_fold_is_pure_what_it_is_given_stays_as_it_was_and_the_same_gives_the_same_bytes(
    catalog: Catalog, history: list[Happening]
) -> None:
    state, older = live(catalog, []).user, b""
    for folded in live(catalog, history).simulated.log:
        given_before = encode((state, folded.input))
        from_disk = msgspec.msgpack.decode(encode(state), type=User)
        first, again, third = (
            handle(catalog, "t", "u", user, folded.input, folded.at, older) for user in (state, state, from_disk)
        )
        for other in (again, third):
            assert encode((first.user, first.older, first.messages)) == encode(
                (other.user, other.older, other.messages)
            )
            assert encode((first.journal, first.inputs)) == encode((other.journal, other.inputs))
        assert encode((state, folded.input)) == given_before
        state, older = first.user, first.older


@given(catalogs, histories)
def test_what_holds_for_every_life_holds(catalog: Catalog, history: list[Happening]) -> None:
    life = Life(catalog)
    for happening in history:
        life.wait(life.now + happening.pause)
        life.meet(happening)
        a_state_can_be_stored(life.simulated)
        slots = [(run.journey, run.key) for run in life.user.runs]
        assert len(slots) == len(set(slots)) <= MAX_RUNS
        dues = [at for run in life.user.runs if not run.suspended for at in (run.due_at, run.look_at) if at is not None]
        assert all(due_at > life.now for due_at in dues)
    life.wait(life.now + 200 * HOUR)
    nothing_happens_twice(life.simulated)
    nothing_happens_after_the_end(life.simulated)
    nothing_is_early(life.simulated)
    no_run_is_lost(life.simulated)
    the_same_log_gives_the_same(life.simulated)
    for message in life.messages:
        [sent] = [entry.at for entry in life.journal if entry.message == message.id and entry.kind == "sent"]
        assert sent == message.requested_at  # The worker was never down: each at its own time.


@given(catalogs, histories, seeds)
def test_events_that_come_again_change_nothing(catalog: Catalog, history: list[Happening], seed: int) -> None:
    dice = Random(seed)
    repeated: list[Happening] = []
    for happening in history:
        repeated.append(happening)
        events = [each for each in repeated if each.event is not None]
        if events and dice.random() < 0.5:
            repeated.append(Happening(0, dice.choice(events).event))
    once, twice = live(catalog, history), live(catalog, repeated)
    assert twice.user == once.user
    assert twice.messages == once.messages
    assert twice.told() == once.told()


@given(catalogs, histories, st.lists(st.integers(0, 400 * HOUR), max_size=10))
def test_a_wake_up_too_many_changes_nothing_whenever_it_comes(
    catalog: Catalog, history: list[Happening], wake_ups: list[int]
) -> None:
    expected = live(catalog, history)
    life = Life(catalog)
    extra = sorted(life.now + pause for pause in wake_ups)
    for happening in [*history, Happening(200 * HOUR)]:
        until = life.now + happening.pause
        while extra and extra[0] <= until:
            life.wait(max(life.now, extra.pop(0)))
            life.give(WakeUp(life.now))
        life.wait(until)
        if happening.event is not None or happening.message:
            life.meet(happening)
    assert (life.user, life.messages, life.journal) == (expected.user, expected.messages, expected.journal)


# A worker that was down


@dataclass(frozen=True)
class Outages:
    """What happens to a user, what operators do meanwhile, and when the worker is down: before which events."""

    first: Journey
    beside: Journey
    events: list[Happening]
    actions: list[str]
    later: list[Journey]
    down: list[bool]

    def live(self, *policy: Policy) -> tuple["Life", "Life"]:
        """Return the life with a worker that is never down, and that with one that is down now and then."""
        catalog = catalog_of(self.first, self.beside, *policy)
        return self._live(catalog, [False] * len(self.down)), self._live(catalog, self.down)

    def _live(self, catalog: Catalog, down: list[bool]) -> Life:
        life = Life(catalog)
        for number, event in enumerate(self.events):
            (life.sleep if down[number] else life.wait)(life.now + event.pause)
            self._steer(life, number, down[number])
            life.meet(event)
        life.wait(life.now + 200 * HOUR)
        life.give(WakeUp(life.now))
        return life

    def _steer(self, life: Life, number: int, is_down: bool) -> None:
        user, action = life.simulated, self.actions[number]
        if action == "publish":
            user.catalog = user.catalog.activate("t", self.later[number % len(self.later)], life.now)
        elif action:
            user.catalog = user.catalog.control("t", "one", action, life.now)  # type: ignore[arg-type]
        if action and not is_down:
            user.wake_up()


SENDING = (*(kind for kind in PLAIN_KINDS if kind != "update"), "delay", "delay", "send")
SILENT = tuple(kind for kind in PLAIN_KINDS if kind != "send")
ENTERED = ("bare",)  # schedules are missed by whoever is down, and whom a late step makes enter enters late
STEERED = (*[""] * 8, "pause", "resume", "resume", "resume", "publish", "publish", "retire")


def some_outages(dice: Random, kinds: Sequence[str], actions: Sequence[str]) -> Outages:
    """Return outages without receipts: there are none of messages that a worker has not asked for yet."""

    def some(name: str, version: int = 1) -> Journey:
        return some_journey(dice, name, plain=True, version=version, kinds=kinds, entries=ENTERED)

    first, size = some("one"), dice.randint(1, 12)
    later = [
        replace(each, moves={step: dice.choice([*each.steps, EXIT]) for step in first.steps})
        for each in (some("one", 2), some("one", 3))
    ]
    events = [
        replace(some_happening(dice, number, receipts=0), pause=dice.choice([0, dice.randint(0, 90 * HOUR)]))
        for number in range(size)
    ]
    down = [dice.random() < 0.6 for _ in range(size)]
    return Outages(first, some("two"), events, [dice.choice(actions) for _ in range(size)], later, down)


def outages(kinds: Sequence[str], actions: Sequence[str] = STEERED) -> st.SearchStrategy[Outages]:
    return seeds.map(lambda seed: some_outages(Random(seed), kinds, actions))


@given(st.one_of(outages(SENDING), outages(SILENT)))
def test_a_worker_that_was_down_now_and_then_takes_the_same_paths_as_one_that_never_was(drawn: Outages) -> None:
    """Also through pauses, new versions that move runs, waits that time alone ends, and changes that others wait for.

    That one run sends and another waits for what it changes then isn't among it: messages that are due together are
    judged together, so what follows a late one comes late to others.
    """
    never, sometimes = drawn.live()
    assert sometimes.user == never.user
    assert paths(sometimes) == paths(never)
    assert sorted(message.id for message in sometimes.messages) == sorted(message.id for message in never.messages)


Path = list[tuple[int, int, str, str, str, dict[str, Any]]]  # when, version, what, step, why, details


def paths(life: Life) -> dict[str, Path]:
    """What was told of each run, in order."""
    told: dict[str, Path] = {}
    for entry in life.journal:
        happened = (entry.at, entry.version, entry.kind, entry.step, entry.reason, entry.detail)
        told.setdefault(entry.run, []).append(happened)
    return told


@given(outages(PLAIN_KINDS, (*STEERED, "stop")), policies())
def test_with_a_policy_it_does_so_until_a_message_that_came_late_is_judged_otherwise(
    drawn: Outages, policy: Policy
) -> None:
    never, sometimes = drawn.live(policy)
    ours, theirs = paths(sometimes), paths(never)
    partings = [parting for run in theirs if (parting := _parting(ours.get(run, []), theirs[run])) is not None]
    if partings:
        _, before, happened = min(partings)
        assert happened in ("sent", "blocked", "held", "asked") or before in ("held", "asked")
    else:
        assert ours.keys() == theirs.keys()


def _parting(ours: Path, theirs: Path) -> tuple[int, str, str] | None:
    """Return when two paths of one run part, and what happened before and then in the second."""
    before = ""
    for here, there in zip(ours, theirs, strict=False):
        if here[:-1] != there[:-1]:
            return min(here[0], there[0]), before, there[2]
        before = there[2]
    return None


@given(catalogs, histories)
def test_a_goal_is_counted_at_most_once_for_each_run(catalog: Catalog, history: list[Happening]) -> None:
    reached = [entry.run for entry in live(catalog, history).journal if entry.kind == "goal"]
    assert len(reached) == len(set(reached))


APART = ("delay", "delay_until", "wait_for", "branch", "cohorts", "send", "call", "exit")


@given(seeds, seeds, histories)
def test_what_one_journey_does_is_the_same_whether_or_not_there_is_another(
    one: int, two: int, history: list[Happening]
) -> None:
    """As long as none changes the profile, gives the other events or takes its turns; and without receipts of the other's."""
    both = [some_journey(Random(seed), name, kinds=APART) for name, seed in (("one", one), ("two", two))]
    both = [replace(journey, entry_cap=None) for journey in both]
    events = [happening for happening in history if happening.event is not None]
    together = live(catalog_of(*both), events)
    for journey in both:
        alone = live(catalog_of(journey), events)
        assert [entry for entry in together.journal if entry.journey == journey.name] == alone.journal
        assert [message for message in together.messages if message.journey == journey.name] == alone.messages


@given(catalogs, histories)
def test_not_showing_a_run_the_events_that_cannot_concern_it_changes_nothing(
    catalog: Catalog, history: list[Happening]
) -> None:
    shown_all = catalog_of(*[replace(journey) for journey in catalog.journeys.values()], catalog.policy_of("t"))
    for journey in shown_all.journeys.values():
        vars(journey).update(hearing=dict.fromkeys(journey.steps), goal_names=None)
    life, expected = live(catalog, history), live(shown_all, history)
    assert (life.user, life.messages, life.journal) == (expected.user, expected.messages, expected.journal)


@given(journeys(), histories)
def test_a_journey_read_back_from_json_is_equal_and_does_the_same(journey: Journey, history: list[Happening]) -> None:
    body = dump(journey)
    back = load(body)
    assert back == journey
    assert dump(back) == body
    assert list(back.steps) == list(journey.steps)
    here, there = live(catalog_of(journey), history), live(catalog_of(back), history)
    assert (there.user, there.messages, there.journal) == (here.user, here.messages, here.journal)


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=5), st.integers(0, 1 << 40))
def test_an_event_that_concerns_nobody_leaves_only_its_id_behind(values: dict[str, int], now: int) -> None:
    user = User(profile={"email": "a@example.com"})
    handled = handle(Catalog(), "t", "u", user, Event("m1", "unheard", now, dict(values)), now)
    assert not (handled.messages or handled.journal or handled.errors)
    assert handled.user == User(profile=user.profile, seen=handled.user.seen)
    assert handled.user.profile is user.profile


def test_generated_journeys_are_worth_the_name() -> None:
    """Generators that made only trivial things would prove nothing: count what these reach."""
    reached: set[str] = set()
    kinds: set[str] = set()
    reasons: set[str] = set()

    for seed in range(500):  # What Hypothesis draws depends on the modules that a process has loaded.
        dice = Random(seed)
        hearing = some_journey(dice, "two", hears=("from_one",))
        catalog = catalog_of(some_journey(dice, "one"), hearing, some_policy(dice))
        life = live(catalog, [some_happening(dice, number) for number in range(dice.randint(1, 12))])
        reached.update(entry.kind for entry in life.journal)
        reasons.update(entry.reason.partition(" ")[0] for entry in life.journal if entry.kind in ("blocked", "held"))
        passed = [(entry.journey, entry.step) for entry in life.journal if entry.kind == "step"]
        kinds.update(catalog.journeys["t", journey, 1].steps[step].kind for journey, step in passed)
    assert reached >= {
        "entered", "step", "sent", "blocked", "held", "receipt", "goal", "exited", "not_entered", "suspended", "updated",
        "asked",
    }  # fmt: skip
    assert reasons >= {"no", "holdout", "quiet", "cap:", "the"}
    assert kinds == {
        "delay", "delay_until", "wait_for", "throttle", "branch", "cohorts", "send", "call", "update", "emit", "enter", "exit",
    }  # fmt: skip


def test_outages_are_worth_the_name() -> None:
    """Neither would outages in which nothing is due, or versions that move nobody."""
    seen: set[str] = set()
    late = 0
    for seed in range(300):
        for kinds in (SENDING, SILENT):
            never, sometimes = some_outages(Random(seed), kinds, (*STEERED, "stop")).live()
            seen.update(entry.kind for entry in never.journal)
            seen.update(entry.reason.partition(" by ")[0] for entry in never.journal if entry.reason)
            late += sometimes.messages != never.messages
    assert seen >= {"moved", "stopped", "moved out", "the journey is paused", "updated", "sent"}
    assert late > 12


def test_a_plain_journey_never_waits_for_a_provider() -> None:
    """Guards the strategy that the property about outages relies on."""

    @given(journeys(plain=True))
    @settings(max_examples=50)
    def look(journey: Journey) -> None:
        for step in journey.steps.values():
            assert getattr(step, "on_failed", None) is None
            assert getattr(step, "max_lateness", timedelta(days=1000)) == timedelta(days=1000)

    look()
