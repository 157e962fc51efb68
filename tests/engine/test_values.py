"""That values which steps fill in stay what they were written as."""

from typing import Any

import pytest

from engine import Exit, Journey, Update, on, value
from engine.definitions import dump, load
from engine.simulator import Simulate


@pytest.mark.parametrize("written", ["01234", "yes", "1.5", 1, 1.0, True, False, 0, "", None])
def test_a_text_stays_a_text_and_a_number_a_number(written: Any, simulate: Simulate) -> None:
    journey = Journey(
        name="trial", version=1, entry=on("a"), start="mark",
        steps={"mark": Update({"x": written, "y": value("event.none", default=written)}, then="done"), "done": Exit()},
    )  # fmt: skip
    for each in (journey, load(dump(journey))):
        user = simulate(each, x="before", y="before")
        user.event("a")
        for name in ("x", "y"):
            found = user.profile.get(name)
            assert found == written
            assert type(found) is type(written)
