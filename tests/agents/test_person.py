"""That a person's story is whole, whichever of their ids is asked for."""

import pytest

from agents.person import MOST_IDS, gather
from engine import Delay, Exit, Journey, hours, minutes, on
from engine.simulator import Simulate
from schemas.outputs import JournalEntry

CART = Journey(
    name="cart", version=1, entry=on("cart_updated"), start="pause",
    steps={"pause": Delay(hours(1), then="done"), "done": Exit()},
)  # fmt: skip


@pytest.mark.parametrize("asked", ["ann", "anna", "anon:phone", "anon:desk"])
def test_the_story_is_that_of_the_person(simulate: Simulate, asked: str) -> None:
    anna = simulate(CART, user_id="anna")
    ann, phone, desk = anna.visitor("ann"), anna.visitor("anon:phone"), anna.visitor("anon:desk")
    stranger = anna.visitor("stranger")
    stranger.event("cart_updated")
    phone.event("cart_updated")
    anna.wait(minutes(1))
    phone.becomes(ann)
    anna.wait(minutes(1))
    desk.becomes(ann)
    anna.wait(minutes(1))
    ann.becomes(anna)
    anna.wait(hours(2))
    told = gather(lambda who: anna.simulation.people[who].journal, asked)
    assert [(entry.user, entry.kind) for entry in told if entry.kind in ("entered", "linked", "exited")] == [
        ("anon:phone", "entered"), ("anon:phone", "linked"), ("anon:desk", "linked"), ("ann", "linked"), ("anna", "exited"),
    ]  # fmt: skip
    assert [entry.at for entry in told] == sorted(entry.at for entry in told)


def test_somebody_with_one_id_is_told_as_the_journal_has_it() -> None:
    journal = [JournalEntry("dropped", at, "shop", "ann") for at in (5, 3, 4)]
    assert gather(lambda who: iter(journal), "ann") == journal


def test_more_ids_than_can_be_looked_up_end_somewhere() -> None:
    asked: list[str] = []

    def read(who: str) -> list[JournalEntry]:
        asked.append(who)
        return [JournalEntry("absorbed", 1, "shop", who, detail={"alias": f"{who}+"})]

    assert len(gather(read, "ann")) == len(asked) == MOST_IDS
