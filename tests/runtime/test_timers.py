"""That nobody's timer is forgotten, whatever is written and when one looks; and who is woken."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from xxhash import xxh64_digest

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


def due_by_a_dict(waiting: dict[bytes, int], now: int, limit: int) -> list[tuple[int, bytes]]:
    due = sorted((at, xxh64_digest(actor), actor) for actor, at in waiting.items() if at <= now)
    if len(due) > limit:
        half = (limit + 1) // 2
        due = due[:half] + due[len(due) - limit + half :]
    return [(at, actor) for at, _, actor in due]


instants = st.none() | st.integers(1, 50)
actors = st.sampled_from([b"t:%d" % number for number in range(12)])


class IndexMachine(RuleBasedStateMachine):
    """Against a dict of who waits until when: through folds, looks, rebuilds, restarts and crashes."""

    @initialize()
    def begin(self) -> None:
        self.store = MemoryStore((*FAMILIES, "states"))
        self.index = new_index(self.store)
        self.waiting: dict[bytes, int] = {}
        self.synced: dict[bytes, int] = {}

    @rule(dues=st.dictionaries(actors, instants, min_size=1, max_size=6))
    def fold(self, dues: dict[bytes, int | None]) -> None:
        changes = {actor: (self.waiting.get(actor), due) for actor, due in dues.items()}
        self.store.write(self.index.writes(changes))
        for actor, due in dues.items():
            self.waiting.pop(actor, None)
            if due is not None:
                self.waiting[actor] = due

    @rule(now=st.integers(0, 60) | st.just(55), limit=st.integers(1, 5))
    def look(self, now: int, limit: int) -> None:
        assert self.index.due(now, limit) == due_by_a_dict(self.waiting, now, limit)

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


@given(
    folds=st.lists(st.dictionaries(actors, instants, max_size=6), min_size=2, max_size=12),
    looks=st.lists(st.sampled_from([50, 50, 50, 25]), min_size=12, max_size=12),
    limit=st.integers(2, 6),
)
def test_what_looks_have_learned_hides_nobody_who_comes_later(
    folds: list[dict[bytes, int | None]], looks: list[int], limit: int
) -> None:
    store = MemoryStore(FAMILIES)
    index = new_index(store)
    waiting: dict[bytes, int] = {b"t:%d" % number: 5 * number + 1 for number in range(10)}
    store.write(index.writes({actor: (None, at) for actor, at in waiting.items()}))
    for fold, now in zip(folds, looks, strict=False):
        assert index.due(now, limit) == due_by_a_dict(waiting, now, limit)
        store.write(index.writes({actor: (waiting.get(actor), at) for actor, at in fold.items()}))
        waiting = {actor: at for actor, at in {**waiting, **fold}.items() if at is not None}
    assert index.due(50, limit) == due_by_a_dict(waiting, 50, limit)


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


def test_the_lines_are_taken_from_until_they_are_used_up_or_a_second_has_passed() -> None:
    alarm = Alarm(limit=10)
    alarm.look([(1000, b"t:%d" % number) for number in range(30)], 1000)
    first = alarm.take(1000, 10)
    alarm.settle({actor: (at, None) for at, actor in first})

    assert not alarm.needs_look(1500, 10)
    assert alarm.needs_look(2000, 10)
    second = alarm.take(1500, 10)
    alarm.settle({actor: (at, None) for at, actor in second})
    third = alarm.take(1600, 10)
    assert sorted(first + second + third) == sorted((1000, b"t:%d" % number) for number in range(30))
    assert not alarm.needs_look(1600, 10), "there is no room"
    alarm.settle({actor: (at, None) for at, actor in third[:4]})
    assert not alarm.needs_look(1600, 10), "not for a few places"
    alarm.settle({actor: (at, None) for at, actor in third[4:5]})
    assert alarm.needs_look(1600, 10)


def test_who_was_heard_from_while_in_line_is_not_woken() -> None:
    alarm = Alarm()
    alarm.look([(1000, b"t:ann"), (1000, b"t:bob"), (1000, b"t:cid")], 1000)
    alarm.settle({b"t:ann": (1000, None), b"t:bob": (1000, 1000), b"t:cid": (1000, 9000)})

    assert alarm.waiting() == 1
    assert alarm.take(1000, 10) == [(1000, b"t:bob")]


def test_tenants_keep_their_turns_from_look_to_look() -> None:
    """With room for one at a time, each of them is the one as often as the others."""
    alarm = Alarm()
    left = [(1000, b"%s:%d" % (tenant, number)) for tenant in (b"a", b"b", b"c") for number in range(4)]
    order = b""
    for now in range(1000, 1012):
        alarm.look(left, now)
        (chosen,) = alarm.take(now, 1)
        alarm.settle({chosen[1]: (1000, None)})
        left.remove(chosen)
        order += chosen[1][:1]
    assert order == b"abc" * 4


def test_who_was_not_woken_after_all_is_seen_and_woken_again_at_once() -> None:
    alarm = Alarm()
    due = [(1000, b"t:ann"), (1000, b"t:bob")]
    assert alarm.choose(due, 1000) == due
    alarm.recall([b"t:ann"])

    assert alarm.needs_look(1000, 10)
    assert alarm.choose(due, 1000) == [(1000, b"t:ann")]
