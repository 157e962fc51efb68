"""One short round of chaos, see `chaos.py`: `make chaos` runs many long ones."""

import json
from pathlib import Path

import pytest

from schemas.records import Record
from tests.scenarios.chaos import measure, planned, rounds_of_chaos
from tests.scenarios.chaos_faults import IN_TURN, Fault
from tests.scenarios.chaos_report import page
from tests.scenarios.tale import seed


@pytest.mark.kafka
@pytest.mark.chaos
async def test_after_a_short_round_of_chaos_everything_is_as_it_must_be(kafka_bootstrap: str, tmp_path: Path) -> None:
    """Without the faults that take long. `kafka_bootstrap` is asked for so that this is skipped where there is no broker."""
    (row,) = await rounds_of_chaos(1, 4, seed(), tmp_path / "report", in_turn=0)
    assert row["clean"], (tmp_path / "report" / "round-1" / "verdict.txt").read_text()
    assert row["faults"]
    assert row["events"] > 100
    assert row["expected"] > 50
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report == {"rounds": [row]}
    assert f"seed {row['seed']}" in (tmp_path / "report" / "index.html").read_text()


def test_a_fault_lasts_as_long_as_the_partition_that_stood_still_longest() -> None:
    faults = [Fault("first", 0, 1000), Fault("second", 0, 9000)]
    steady = [Record(at, at, b"\0source", b"1") for at in range(500, 20_000, 500)]
    paused = [Record(at, at, b"\0source", b"1") for at in (500, 900, 1100, 5100, 9500, 9600)]
    measure(faults, {0: steady, 1: paused}, 9800)
    assert [fault.recovery_seconds for fault in faults] == [4.4, 0.5]


def test_the_page_shows_what_was_found_in_red() -> None:
    row = {
        "round": 1, "seed": 5, "workers": 2, "events": 10, "expected": 5, "lost": 1, "duplicated": 0, "phantom": 0,
        "early": 0, "wrong_state": 0, "recovery_seconds": 2.5, "clean": False, "conditions": ["poison"],
        "answers": {"0": 2, "200": 7}, "complaints": ["a 200 <without> a broker"],
        "faults": [{"name": "<SIGKILL>", "at_seconds": 1.0, "whom": "one", "recovery_seconds": 2.5}],
    }  # fmt: skip
    shown = page([row])
    assert '<td class="bad">1</td>' in shown
    assert "&lt;SIGKILL&gt;" in shown
    assert "0 of 1 rounds are clean" in shown
    assert "a 200 &lt;without&gt; a broker" in shown
    assert "2 x nothing, 7 x 200" in shown


def test_seven_rounds_in_a_row_have_every_fault_whose_turn_it_is() -> None:
    for first in range(20):
        assert {do for seed in range(first, first + 7) for do in planned(seed, 2)} == set(IN_TURN)
