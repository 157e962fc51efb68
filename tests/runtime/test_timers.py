"""That nobody's timer is forgotten, whatever is written and when one looks; and who is woken."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.runtime.store import Memory, MemoryStore, RocksStore
from engine.runtime.timers import NEVER, Alarm, TimerIndex

FAMILIES = ("timers", "meta")
PREFIX = b"events\0\0\1"


def new_index(store: MemoryStore, prefix: bytes = PREFIX) -> TimerIndex:
    index = TimerIndex(store, prefix=prefix)
    if not index.is_complete:
        list(index.rebuild([]))
    return index


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(FAMILIES)


def test_nobody_is_due_before_their_time(store: MemoryStore) -> None:
    index = new_index(store)
    store.write(index.writes({b"t:ann": (None, 1000)}))

    assert index.due(999, 10) == []
    assert index.due(1000, 10) == [(1000, b"t:ann")]
    assert index.due(5000, 10) == [(1000, b"t:ann")], "looking changes nothing"


def test_a_fold_that_moves_a_timer_leaves_one_entry(store: MemoryStore) -> None:
    index = new_index(store)
    store.write(index.writes({b"t:ann": (None, 1000)}))
    store.write(index.writes({b"t:ann": (1000, 3000)}))
    assert index.due(2000, 10) == []
    store.write(index.writes({b"t:ann": (3000, 500)}))  # and earlier than all that was there

    assert index.due(2000, 10) == [(500, b"t:ann")]


def test_a_timer_cleared_is_gone(store: MemoryStore) -> None:
    index = new_index(store)
    store.write(index.writes({b"t:ann": (None, 1000)}))
    store.write(index.writes({b"t:ann": (1000, None)}))

    assert index.due(9999, 10) == []
    assert index.next_at() == NEVER


def test_partitions_that_share_a_store_do_not_see_each_other(store: MemoryStore) -> None:
    ours, theirs = new_index(store, b"events\0\0\1"), new_index(store, b"events\0\0\2")
    store.write(ours.writes({b"t:ann": (None, 1000)}))
    store.write(theirs.writes({b"t:bob": (None, 1000)}))
    list(theirs.rebuild([]))

    assert ours.due(1000, 10) == [(1000, b"t:ann")]
    assert theirs.due(1000, 10) == []


def test_a_backlog_does_not_keep_waiting_who_is_due_just_now(store: MemoryStore) -> None:
    index = new_index(store)
    store.write(index.writes({b"t:old%d" % number: (None, 1000) for number in range(5000)}))
    store.write(index.writes({b"t:new": (None, 9000)}))
    due = index.due(9000, 100)

    assert len(due) == len(set(due)) == 100
    assert due == sorted(due, key=lambda each: each[0])
    assert due[-1] == (9000, b"t:new")


def test_an_index_is_rebuilt_from_the_states_of_the_users(store: MemoryStore) -> None:
    index = new_index(store)
    store.write(index.writes({b"t:gone": (None, 7)}))
    states = [(b"ut:user%05d" % number, b"\1" + (number % 3 * 1000).to_bytes(8) + b"...") for number in range(25_000)]
    progress = list(index.rebuild(states))

    assert progress[-1] == 25_000
    assert index.next_at() == 1000
    assert len(index.due(1999, 100_000)) == len([number for number in range(25_000) if number % 3 == 1])
    assert TimerIndex(store, prefix=PREFIX).due(2000, 1) == [(1000, index.due(1000, 1)[0][1])]


def test_a_rebuild_that_was_interrupted_is_not_taken_for_an_index(store: MemoryStore) -> None:
    index = new_index(store)
    states = [(b"ut:user%05d" % number, b"\1" + (1000).to_bytes(8)) for number in range(25_000)]
    next(index.rebuild(states))

    assert not TimerIndex(store, prefix=PREFIX).is_complete


instants = st.none() | st.integers(1, 50)
actors = st.sampled_from([b"t:ann", b"t:bob", b"u:cid", b"u:dan"])


class IndexMachine(RuleBasedStateMachine):
    """Against a dict of who waits until when: through folds, looks, rebuilds, restarts and crashes."""

    @initialize()
    def begin(self) -> None:
        self.store = MemoryStore((*FAMILIES, "states"))
        self.index = new_index(self.store)
        self.waiting: dict[bytes, int] = {}
        self.synced: dict[bytes, int] = {}

    @rule(dues=st.dictionaries(actors, instants, min_size=1))
    def fold(self, dues: dict[bytes, int | None]) -> None:
        changes = {actor: (self.waiting.get(actor), due) for actor, due in dues.items()}
        self.store.write(self.index.writes(changes))
        for actor, due in dues.items():
            self.waiting.pop(actor, None)
            if due is not None:
                self.waiting[actor] = due

    @rule(now=st.integers(0, 60), limit=st.integers(1, 5))
    def look(self, now: int, limit: int) -> None:
        due = self.index.due(now, limit)
        expected = {(at, actor) for actor, at in self.waiting.items() if at <= now}
        assert set(due) <= expected
        assert len(due) == len(set(due)) == min(limit, len(expected))

    @rule()
    def sync(self) -> None:
        self.store.sync()
        self.synced = dict(self.waiting)

    @rule()
    def restart(self) -> None:
        self.store = self.store.reopen()
        self.index = new_index(self.store)

    @rule()
    def crash(self) -> None:
        self.store = self.store.crash()
        self.waiting = dict(self.synced)
        self.index = new_index(self.store)

    @rule()
    def rebuild(self) -> None:
        list(self.index.rebuild((b"u" + actor, b"\1" + at.to_bytes(8)) for actor, at in self.waiting.items()))

    @invariant()
    def the_watermark_never_passes_an_entry(self) -> None:
        persisted = self.store.get("meta", b"timers-watermark" + PREFIX)
        earliest = min(self.waiting.values(), default=NEVER)
        assert self.index.next_at() <= earliest
        assert persisted is None or int.from_bytes(persisted) <= earliest


IndexMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestIndexAgainstADict = IndexMachine.TestCase


def test_a_tick_with_none_due_does_not_pass_the_tombstones_of_those_that_fired(tmp_path: Path) -> None:
    """Counted in steps, not in time: how many keys the store is asked to go over."""
    store = RocksStore.open(tmp_path / "store", FAMILIES, "test 1", Memory(8 << 20, 64 << 20))
    index = TimerIndex(store, prefix=PREFIX)
    list(index.rebuild([]))
    store.write(index.writes({b"t:%d" % number: (None, 1000 + number) for number in range(20_000)}))
    store.write(index.writes({b"t:later": (None, 90_000)}))
    store.write(index.writes({b"t:%d" % number: (1000 + number, None) for number in range(20_000)}))
    assert index.due(50_000, 10) == []
    assert index.next_at() == 90_000, "from here on a tick compares two numbers"
    store.write(index.writes({b"t:x": (None, 95_000)}))
    store.close()

    store = RocksStore.open(tmp_path / "store", FAMILIES, "test 1", Memory(8 << 20, 64 << 20))
    assert TimerIndex(store, prefix=PREFIX).next_at() == 90_000, "and after a restart, too"
    store.close()


# The alarm.


def test_an_actor_is_woken_once_and_again_after_half_a_minute() -> None:
    alarm = Alarm()
    due = [(1000, b"t:ann")]

    assert alarm.choose(due, 1000) == due
    assert alarm.choose(due, 30_999) == []
    assert alarm.choose(due, 31_000) == due


def test_who_has_answered_may_be_woken_for_the_next_timer_at_once() -> None:
    alarm = Alarm()
    alarm.choose([(1000, b"t:ann"), (1000, b"t:bob")], 1000)
    alarm.settle({b"t:ann": (1000, 1500), b"t:bob": (1000, 1000)})

    assert alarm.unanswered() == 1
    assert alarm.choose([(1000, b"t:bob"), (1500, b"t:ann")], 1500) == [(1500, b"t:ann")]


def test_no_more_than_the_limit_are_unanswered() -> None:
    alarm = Alarm(limit=10)
    due = [(1000, b"t:%d" % number) for number in range(30)]
    first = alarm.choose(due, 1000)
    alarm.settle({actor: (at, None) for at, actor in first[:4]})
    second = alarm.choose(due, 2000)

    assert (len(first), len(second), alarm.unanswered()) == (10, 4, 10)


def test_a_small_tenant_is_not_kept_waiting_by_a_large_one() -> None:
    alarm = Alarm(limit=10)
    flood = [(1000, b"large:%d" % number) for number in range(1000)]
    chosen = alarm.choose([*flood, (2000, b"small:ann"), (2000, b"small:bob")], 2000)

    assert {(2000, b"small:ann"), (2000, b"small:bob")} <= set(chosen)
    assert len(chosen) == 10


@given(
    rounds=st.lists(
        st.tuples(st.sets(st.sampled_from([b"a:%d" % n for n in range(9)])), st.integers(0, 20_000)), max_size=9
    )
)
def test_everybody_due_is_woken_within_the_limit_or_waits_for_an_answer(rounds: list[tuple[set[bytes], int]]) -> None:
    alarm, now = Alarm(limit=5), 0
    woken_at: dict[bytes, int] = {}
    for actors, passed in rounds:
        now += passed
        before = alarm.unanswered()
        due = [(0, actor) for actor in sorted(actors)]
        chosen = alarm.choose(due, now)
        assert alarm.unanswered() <= 5
        assert all(now - woken_at[actor] >= 30_000 for _, actor in chosen if actor in woken_at)
        if before + len(due) <= 5:
            assert {actor for _, actor in chosen} == {
                actor for actor in actors if now - woken_at.get(actor, -30_000) >= 30_000
            }
        woken_at |= {actor: now for _, actor in chosen}
