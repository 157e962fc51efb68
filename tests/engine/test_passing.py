"""An event that passes a user by comes to the same as it would in a turn: it is a shorter way, not another one."""

from unittest.mock import patch

from hypothesis import given

from engine import Delay, Exit, Journey, days, did, on
from engine.actor import NOBODY, handle
from engine.catalog import Catalog
from engine.duplicates import IN_STATE
from engine.passing import passes_by
from schemas.inputs import Event
from tests.engine.generated import Happening, histories, live
from tests.engine.test_properties import catalogs, encode

AT = 1_767_225_600_000

WELCOME = Journey(
    name="welcome",
    version=1,
    entry=on("signed_up"),
    exit_on=on("left"),
    goal=on("bought", within=days(3)),
    start="wait",
    steps={"wait": Delay(days(1), then="end"), "end": Exit()},
)
REGULARS = Journey(
    name="regulars", version=1, entry=on("opened", did("paid", at_least=3, within=days(30))), start="end",
    steps={"end": Exit()},
)  # fmt: skip


@given(catalogs, histories)
def test_whatever_passes_by_would_have_come_to_nothing_else(catalog: Catalog, history: list[Happening]) -> None:
    state, older = NOBODY, b""
    for folded in live(catalog, history).simulated.log:
        short = handle(catalog, "t", "u", state, folded.input, folded.at, older)
        with patch("engine.actor.passes_by", lambda *_: False):
            long = handle(catalog, "t", "u", state, folded.input, folded.at, older)
        for ours, theirs in zip(
            (short.user, short.older, short.messages, short.journal, short.inputs),
            (long.user, long.older, long.messages, long.journal, long.inputs),
            strict=True,
        ):
            assert encode(ours) == encode(theirs)
        state, older = short.user, short.older


def test_the_ids_of_those_that_passed_by_are_remembered_like_all_others() -> None:
    catalog, state, older = Catalog().activate("t", WELCOME), NOBODY, b""
    for number in range(2 * IN_STATE):
        passed = handle(catalog, "t", "u", state, Event(f"m{number}", "viewed", AT), AT + number, older)
        assert passed.user is not state and not passed.journal
        state, older = passed.user, passed.older
    for number in (0, IN_STATE, 2 * IN_STATE - 1):
        again = handle(catalog, "t", "u", state, Event(f"m{number}", "viewed", AT), AT + 1000, older)
        assert [entry.reason for entry in again.journal] == ["duplicate"]


def test_what_begins_ends_counts_or_was_due_does_not_pass_by() -> None:
    catalog = Catalog().activate("t", WELCOME).activate("t", REGULARS)
    waiting = handle(catalog, "t", "u", NOBODY, Event("m1", "signed_up", AT), AT).user
    assert len(waiting.runs) == 1

    def passes(name: str, after_ms: int = 1000) -> bool:
        return passes_by(Event("m2", name, AT), waiting, catalog, "t", AT + after_ms)

    assert passes("viewed")
    assert not passes("left")  # ends the run
    assert not passes("bought")  # is what the run was for
    assert not passes("opened")  # may begin one
    assert not passes("paid")  # is counted
    assert not passes("viewed", after_ms=90_000_000)  # the delay is over
    assert not passes_by(Event("m2", "viewed", AT, {}, {"tier": "gold"}), waiting, catalog, "t", AT)
    assert passes_by(Event("m2", "left", AT), NOBODY, catalog, "other", AT)
