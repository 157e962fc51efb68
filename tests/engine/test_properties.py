"""What holds for every journey and every history: the fold is pure, and time passes in it as it should."""

from dataclasses import replace
from datetime import timedelta
from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Delay, Journey, WaitFor
from engine.actor import handle
from engine.catalog import Catalog
from engine.definitions import dump, load
from engine.durations import milliseconds
from engine.turn import MAX_RUNS
from schemas.inputs import Event, WakeUp
from schemas.state import User
from tests.engine.generated import HOUR, Happening, Life, catalog_of, histories, journeys, live, seeds

catalogs = st.tuples(journeys("one"), journeys("two")).map(lambda both: catalog_of(*both))
plain_catalogs = st.tuples(journeys("one", plain=True), journeys("two", plain=True)).map(lambda both: catalog_of(*both))

encode = msgspec.msgpack.Encoder().encode


@given(catalogs, histories)
def test_the_fold_is_pure_what_it_is_given_stays_as_it_was_and_the_same_gives_the_same_bytes(
    catalog: Catalog, history: list[Happening]
) -> None:
    life = Life(catalog)
    for happening in history:
        life.wait(life.now + happening.pause)
        before, given_before = encode(life.user), encode(happening.event)
        user, older = life.user, life.older
        life.meet(happening)
        if happening.event is not None:
            again = handle(catalog, "t", "u", user, happening.event, life.now, older)
            from_disk = handle(
                catalog, "t", "u", msgspec.msgpack.decode(before, type=User), happening.event, life.now, older
            )
            assert encode(again.user) == encode(from_disk.user) == encode(life.user)
            assert again.messages == from_disk.messages
            assert encode(again.journal) == encode(from_disk.journal)
        assert encode(user) == before
        assert encode(happening.event) == given_before


@given(catalogs, histories)
def test_a_state_comes_back_from_the_store_as_it_went_in(catalog: Catalog, history: list[Happening]) -> None:
    life = Life(catalog)
    for happening in history:
        life.wait(life.now + happening.pause)
        life.meet(happening)
        stored = encode(life.user)
        back = msgspec.msgpack.decode(stored, type=User)
        assert back == life.user
        assert encode(back) == stored


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


@given(plain_catalogs, histories, st.lists(st.booleans(), min_size=13, max_size=13))
def test_a_worker_that_was_down_now_and_then_takes_the_same_paths_as_one_that_never_was(
    catalog: Catalog, history: list[Happening], down: list[bool]
) -> None:
    """Without receipts: there are none of messages that the worker has not asked for yet."""
    events = [happening for happening in history if happening.event is not None]
    expected = live(catalog, events)
    life = Life(catalog)
    for happening, was_down in zip([*events, Happening(200 * HOUR)], down, strict=False):
        if was_down:
            life.now += happening.pause
        else:
            life.wait(life.now + happening.pause)
        if happening.event is not None:
            life.meet(happening)
    life.wait(expected.now)
    assert life.user == expected.user
    assert [(entry.kind, entry.at, entry.run, entry.step, entry.reason) for entry in life.journal] == [
        (entry.kind, entry.at, entry.run, entry.step, entry.reason) for entry in expected.journal
    ]
    assert [message.id for message in life.messages] == [message.id for message in expected.messages]


@given(catalogs, histories)
def test_no_two_messages_share_an_id(catalog: Catalog, history: list[Happening]) -> None:
    messages = live(catalog, history).messages
    assert len({message.id for message in messages}) == len(messages)


@given(catalogs, histories)
def test_nothing_happens_early_and_no_wait_is_longer_than_it_says(catalog: Catalog, history: list[Happening]) -> None:
    life = live(catalog, history)
    arrivals: dict[str, tuple[str, int]] = {}
    for entry in life.journal:
        if entry.kind == "step":
            if entry.run in arrivals:
                step, arrived_at = arrivals[entry.run]
                _check_stay(catalog.journeys["t", entry.journey, entry.version], step, entry.at - arrived_at)
            arrivals[entry.run] = (entry.step, entry.at)
    for message in life.messages:
        sent = [entry.at for entry in life.journal if entry.message == message.id and entry.kind == "sent"]
        assert sent == [message.requested_at]  # The worker was never down: each at its own time.


def _check_stay(journey: Journey, step: str, stay: int) -> None:
    match journey.steps[step]:
        case Delay(duration=duration):
            assert stay == milliseconds(duration)
        case WaitFor(timeout=timeout):
            assert 0 <= stay <= milliseconds(timeout)
        case other:
            assert stay == 0 or getattr(other, "on_failed", None)
            assert stay <= HOUR


@given(catalogs, histories)
def test_what_is_entered_is_live_or_has_ended_and_one_run_is_live_for_each_journey_and_key(
    catalog: Catalog, history: list[Happening]
) -> None:
    life = Life(catalog)
    for happening in history:
        life.wait(life.now + happening.pause)
        life.meet(happening)
        slots = [(run.journey, run.key) for run in life.user.runs]
        assert len(slots) == len(set(slots)) <= MAX_RUNS
        entered = [entry.run for entry in life.journal if entry.kind == "entered"]
        ended = [entry.run for entry in life.journal if entry.kind == "exited"]
        assert sorted(entered) == sorted([*ended, *(run.id for run in life.user.runs)])
        dues = [run.due_at for run in life.user.runs if not run.suspended]
        assert all(due_at is not None and due_at > life.now for due_at in dues)


@given(catalogs, histories)
def test_a_goal_is_counted_at_most_once_for_each_run(catalog: Catalog, history: list[Happening]) -> None:
    reached = [entry.run for entry in live(catalog, history).journal if entry.kind == "goal"]
    assert len(reached) == len(set(reached))


@given(catalogs, histories)
def test_what_one_journey_does_is_the_same_whether_or_not_there_is_another(
    catalog: Catalog, history: list[Happening]
) -> None:
    """Only events, no receipts: those would be of other messages."""
    events = [happening for happening in history if happening.event is not None]
    both = live(catalog, events)
    for journey in catalog.journeys.values():
        alone = live(catalog_of(journey), events)
        assert [entry for entry in both.journal if entry.journey == journey.name] == alone.journal
        assert [message for message in both.messages if message.journey == journey.name] == alone.messages


@given(catalogs, histories)
def test_not_showing_a_run_the_events_that_cannot_concern_it_changes_nothing(
    catalog: Catalog, history: list[Happening]
) -> None:
    shown_all = catalog_of(*[replace(journey) for journey in catalog.journeys.values()])
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
    assert (handled.messages, handled.journal, handled.errors) == ([], [], [])
    assert handled.user == User(profile=user.profile, seen=handled.user.seen)
    assert handled.user.profile is user.profile


def test_generated_journeys_are_worth_the_name() -> None:
    """Generators that made only trivial things would prove nothing: count what these reach."""
    reached: set[str] = set()
    kinds: set[str] = set()

    @given(catalogs, histories)
    @settings(max_examples=200, derandomize=True)
    def look(catalog: Catalog, history: list[Happening]) -> None:
        life = live(catalog, history)
        reached.update(entry.kind for entry in life.journal)
        passed = [(entry.journey, entry.step) for entry in life.journal if entry.kind == "step"]
        kinds.update(catalog.journeys["t", journey, 1].steps[step].kind for journey, step in passed)

    look()
    assert reached >= {"entered", "step", "sent", "blocked", "receipt", "goal", "exited", "not_entered", "suspended"}
    assert kinds == {"delay", "wait_for", "branch", "cohorts", "send", "exit"}


def test_a_plain_journey_never_waits_for_a_provider() -> None:
    """Guards the strategy that the property about outages relies on."""

    @given(journeys(plain=True))
    @settings(max_examples=50)
    def look(journey: Journey) -> None:
        for step in journey.steps.values():
            assert getattr(step, "on_failed", None) is None
            assert getattr(step, "max_lateness", timedelta(days=1000)) == timedelta(days=1000)

    look()
