"""What becomes of what is kept about two actors, at its bounds."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Delay, Exit, Journey, days, duplicates, on
from engine.admission import MAX_ENTERED, MAX_RUNS
from engine.catalog import Catalog
from engine.goals import MAX_GOALS
from engine.history import MAX_TRACKS
from engine.identity import MAX_PART_BYTES, PORTIONS, Ended, portions, united
from engine.policy import MAX_CONTACTS
from engine.profiles import MAX_ATTRIBUTES, MAX_PROFILE_BYTES
from engine.turn import MAX_REFUSED
from schemas.state import Contact, OpenGoal, Run, Sent, Track, User

CART = Journey(
    name="cart", version=1, entry=on("go"), key="cart", start="pause",
    steps={"pause": Delay(days(1), then="done"), "done": Exit()},
)  # fmt: skip
CATALOG = Catalog().activate("shop", CART)
NOW = 1_767_600_000_000


def with_all(user: User, older: bytes, other: User, others_older: bytes = b"") -> tuple[User, bytes, list[Ended]]:
    """Unite a user with all parts that another hands over."""
    ended: list[Ended] = []
    for part in portions(other, others_older):
        user, older, more = united(user, older, part, CATALOG, "shop", NOW)
        ended += more
    return user, older, ended


def a_run(number: int, key: str | None = None, weight: int = 0) -> Run:
    answers = {f"a{each}": {"said": "x" * 4000} for each in range(weight)}
    return Run(
        f"cart.1.{number:016}", "cart", 1, "pause", 1, NOW + number, NOW, key=key or f"k{number}", answers=answers
    )


def cell(id: str, at: int) -> bytes:
    noted = duplicates.noted(b"", b"", id, at)
    assert noted is not None
    return noted


def ids(first: int, count: int, at: int = NOW) -> bytes:
    return b"".join(cell(f"m{number}", at) for number in range(first, first + count))


LARGE = User(
    profile={f"a{number}": "x" * 700 for number in range(90)},
    runs=tuple(a_run(number, weight=3) for number in range(MAX_RUNS)),
    entered={f"cart|k{number}": number for number in range(MAX_ENTERED)},
    goals=tuple(OpenGoal(f"r{number}", "cart", 1, NOW, f"k{number}") for number in range(MAX_GOALS)),
    seen=ids(0, 100),
    history={f"h{number}": Track(1, 300, 300, tuple((at, 1.5) for at in range(256))) for number in range(MAX_TRACKS)},
    contacts=tuple(Contact(NOW + number, "email", "marketing") for number in range(MAX_CONTACTS)),
    refused=tuple(f"email:{number}" for number in range(MAX_REFUSED)),
)


def test_a_large_state_is_handed_over_in_parts_and_nothing_of_it_is_missing() -> None:
    parts = portions(LARGE, ids(100, 3900))
    assert len(parts) > 10
    assert max(map(len, parts)) <= MAX_PART_BYTES
    after, older, ended = with_all(User(), b"", LARGE, ids(100, 3900))
    for name in PORTIONS:
        if name != "seen":
            assert getattr(after, name) == getattr(LARGE, name), name
    known = older + after.seen
    assert all(duplicates.is_known(known, cell(f"m{number}", NOW)) for number in range(4000))
    assert (after.has_older, ended) == (True, [])


def test_a_run_that_is_too_large_by_itself_leaves_its_oldest_answers_behind() -> None:
    after, _, ended = with_all(User(), b"", User(runs=(a_run(1, weight=40), a_run(2))))
    assert [run.id for run in after.runs] == [a_run(1).id, a_run(2).id]
    assert 10 < len(after.runs[0].answers) < 40 and "a39" in after.runs[0].answers
    assert ended == []


def test_a_small_state_is_one_part() -> None:
    assert len(portions(User(), b"")) == len(portions(User(profile={"a": 1}, runs=(a_run(1),)), ids(0, 60))) == 1


def test_two_large_states_are_one_within_all_bounds() -> None:
    other = User(
        profile={f"b{number}": "x" * 700 for number in range(90)},
        runs=tuple(a_run(number) for number in range(MAX_RUNS, 2 * MAX_RUNS)),
        entered={f"cart|l{number}": 1000 + number for number in range(MAX_ENTERED)},
        goals=tuple(OpenGoal(f"s{number}", "cart", 1, NOW, f"k{number}") for number in range(MAX_GOALS)),
        seen=ids(5000, 100),
        history={f"i{number}": Track(1, 1) for number in range(MAX_TRACKS)},
        contacts=tuple(Contact(NOW - number, "email", "marketing") for number in range(MAX_CONTACTS)),
        refused=tuple(f"sms:{number}" for number in range(MAX_REFUSED)),
    )
    after, _, ended = with_all(LARGE, ids(100, 3900), other)
    assert len(after.runs) == MAX_RUNS and {reason for _, reason in ended} == {"64 runs are live already"}
    assert len(ended) == MAX_RUNS
    assert len(msgspec.msgpack.encode(after.profile)) <= MAX_PROFILE_BYTES
    assert (
        len(after.profile) <= MAX_ATTRIBUTES and {name: after.profile[name] for name in LARGE.profile} == LARGE.profile
    )
    assert len(after.profile) > len(LARGE.profile)
    assert list(after.entered) == [f"cart|l{number}" for number in range(MAX_ENTERED)]
    assert [len(after.goals), len(after.history), len(after.contacts)] == [MAX_GOALS, MAX_TRACKS, MAX_CONTACTS]
    assert after.refused == ("email:all", "sms:all")


def test_a_part_that_comes_twice_changes_nothing() -> None:
    other = User({"a": 1}, (a_run(1),), {"cart": 5}, (OpenGoal("r", "cart", 1, NOW),), ids(0, 3), refused=("sms:all",))
    once = with_all(User(), b"", other)[0]
    assert with_all(once, b"", other)[0] == once


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 90)), max_size=150), st.lists(st.integers(0, 40), max_size=90)
)
def test_seen_ids_are_united_newest_last_and_each_once(ours: list[tuple[int, int]], theirs: list[int]) -> None:
    mine = b"".join(cell(f"m{number}", NOW + at * 1000) for number, at in sorted(ours, key=lambda each: each[1]))
    other = b"".join(cell(f"m{number}", NOW) for number in theirs)
    seen, older = duplicates.united(mine, other, NOW)
    cells = [(older + seen)[at : at + 12] for at in range(0, len(older + seen), 12)]
    assert {cell[:8] for cell in cells} == {(mine + other)[at : at + 8] for at in range(0, len(mine + other), 12)}
    assert len({cell[:8] for cell in cells}) == len(cells)
    assert [cell[8:] for cell in cells] == sorted(cell[8:] for cell in cells)
    assert not duplicates.overflows(seen)


def test_what_happened_to_both_is_added_up() -> None:
    ours = User(history={"v": Track(5, 2, 3.0, ((5, 1.0), (9, 2.0)))})
    theirs = User(history={"v": Track(3, 1, 4.0, ((3, 4.0),)), "w": Track(1, 1)})
    after, *_ = with_all(ours, b"", theirs)
    assert after.history == {"v": Track(3, 3, 7.0, ((3, 4.0), (5, 1.0), (9, 2.0))), "w": Track(1, 1)}


def test_the_latest_entry_counts_and_the_receipts_of_a_run_come_with_it() -> None:
    heard = msgspec.structs.replace(a_run(1), sends={"pause": Sent(1, ("clicked",))})
    after, *_ = with_all(User(entered={"cart": 9, "a": 1}), b"", User(runs=(heard,), entered={"cart": 5, "b": 2}))
    assert (after.runs, after.entered) == ((heard,), {"a": 1, "b": 2, "cart": 9})


@pytest.mark.parametrize("fields", [1, 9, 10])
def test_a_state_that_was_written_before_there_were_identities_is_read(fields: int) -> None:
    written = msgspec.msgpack.encode(list(msgspec.structs.astuple(LARGE))[:fields])
    read = msgspec.msgpack.decode(written, type=User)
    assert (read.profile, read.aliases, read.identity) == (LARGE.profile, {}, None)
