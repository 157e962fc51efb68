"""How long an event's id is remembered, and that a repeated event changes nothing."""

from engine import Delay, Exit, Journey, always, days, hours, minutes, on, seconds
from engine.actor import handle
from engine.catalog import Catalog
from engine.duplicates import CELL, IN_STATE, LAST, MOST, is_known, noted
from engine.simulator import Simulate, SimulatedUser
from schemas.inputs import Event
from schemas.state import User

COUNTING = Journey(
    name="counting",
    version=1,
    entry=on("start"),
    reentry=always,
    start="end",
    steps={"end": Exit()},
)


def cell(id: str, now: int) -> bytes:
    cells = noted(b"", b"", id, now)
    assert cells is not None
    return cells


def counted(user: SimulatedUser) -> int:
    return len(user.exits)


def kept(user: SimulatedUser) -> tuple[int, int]:
    """How many ids are in the user's state, and how many in the record of older ones."""
    assert user.state.has_older is bool(user.older)
    return len(user.state.seen) // CELL, len(user.older) // CELL


def test_an_event_that_comes_twice_counts_once(simulate: Simulate) -> None:
    user = simulate(COUNTING)
    user.event("start", message_id="m1")
    user.event("start", message_id="m1")
    assert counted(user) == 1
    assert [(entry.cause, entry.reason) for entry in user.journal if entry.kind == "dropped"] == [
        ("event start #m1", "duplicate")
    ]


def test_the_id_decides_not_what_the_event_says(simulate: Simulate) -> None:
    user = simulate(COUNTING)
    user.event("other", message_id="m1", total=1)
    user.event("start", message_id="m1", total=2)
    assert counted(user) == 0


def test_a_repeated_identify_sets_nothing(simulate: Simulate) -> None:
    user = simulate()
    for plan in ("a", "b"):
        user.give(Event("m1", "identify", user.now_ms, {}, {"plan": plan}))
    assert user.profile["plan"] == "a"


def test_the_last_64_ids_are_known_however_old_they_are(simulate: Simulate) -> None:
    user = simulate(COUNTING)
    for number in range(LAST):
        user.event("start", message_id=f"m{number}")
        user.wait(days(1))
    for number in range(LAST):
        user.event("start", message_id=f"m{number}")
    assert counted(user) == LAST


def test_an_older_id_is_forgotten_when_it_is_neither_among_the_last_64_nor_of_the_last_hour(simulate: Simulate) -> None:
    user = simulate(COUNTING)
    user.event("start", message_id="first")
    for number in range(3 * IN_STATE):
        user.wait(minutes(2))
        user.event("other", message_id=f"m{number}")
    user.event("start", message_id="first")
    assert counted(user) == 2


def test_an_sdk_may_repeat_its_largest_batch_within_the_hour(simulate: Simulate) -> None:
    user = simulate(COUNTING)
    for number in range(2_500):
        user.event("start", message_id=f"m{number}")
    user.wait(minutes(59))
    for number in range(2_500):
        user.event("start", message_id=f"m{number}")
    assert counted(user) == 2_500


def test_at_most_4096_ids_are_kept(simulate: Simulate) -> None:
    user = simulate(COUNTING)
    for number in range(6_000):
        user.event("start", message_id=f"m{number}")
        in_state, older = kept(user)
        assert in_state <= IN_STATE and older <= MOST - LAST
    before = counted(user)
    for number in range(6_000 - MOST + LAST, 6_000):
        user.event("start", message_id=f"m{number}")
    assert counted(user) == before
    user.event("start", message_id="m0")
    assert counted(user) == before + 1


def test_ids_move_into_a_record_of_their_own_only_when_a_user_outgrows_the_state(simulate: Simulate) -> None:
    user = simulate(COUNTING)
    for number in range(IN_STATE):
        user.event("start", message_id=f"m{number}")
    assert kept(user) == (IN_STATE, 0)
    user.event("start", message_id="one more")
    assert kept(user) == (LAST, IN_STATE + 1 - LAST)


def test_the_record_of_older_ids_is_gone_when_all_of_them_are_old(simulate: Simulate) -> None:
    user = simulate(COUNTING)
    for number in range(IN_STATE + 1):
        user.event("start", message_id=f"m{number}")
    assert kept(user)[1] > 0
    for number in range(2 * IN_STATE):
        user.wait(hours(2))
        user.event("start", message_id=f"late{number}")
    assert kept(user)[1] == 0


def test_without_its_older_record_a_user_is_never_asked_for_it() -> None:
    """What the store relies on: `older` comes back as it was given, unless ids have moved."""
    older = cell("known", 0)
    user = User(has_older=True)
    known = handle(Catalog(), "t", "u", user, Event("known", "start", 0), 0, older)
    new = handle(Catalog(), "t", "u", user, Event("new", "start", 0), 0, older)
    assert known.user is user
    assert known.older is new.older is older
    assert new.user.has_older


def test_a_hash_that_lies_across_two_cells_is_not_mistaken_for_an_id() -> None:
    wanted = cell("wanted", 0)
    assert is_known(wanted, cell("wanted", 99_000))
    for shift in range(1, CELL):
        cells = bytes(shift) + wanted[:8] + bytes(3 * CELL - shift - 8)
        assert not is_known(cells, wanted)
        assert is_known(cells + wanted, wanted)


def test_a_duplicate_neither_restarts_a_wait_nor_reaches_a_run(simulate: Simulate) -> None:
    journey = Journey(
        name="patient",
        version=1,
        entry=on("start"),
        exit_on=on("stop"),
        start="pause",
        steps={"pause": Delay(hours(1), then="end"), "end": Exit()},
    )
    user = simulate(journey)
    user.event("stop", message_id="m1")
    user.event("start")
    user.wait(seconds(1))
    user.event("stop", message_id="m1")
    assert user.step == "pause"
