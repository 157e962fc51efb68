"""A worker dies on purpose only where it was told to, in a build for tests, and at that point."""

import os
import subprocess
import sys

import pytest

from engine.runtime import crash_points
from engine.runtime.crash_points import EXIT_CODE, POINTS, chosen
from tests.scenarios.embedded_server import ROOT

TWICE = """
import time
from engine.runtime import crash_points
crash_points.reach("{0}")
print("once", flush=True)
crash_points.reach("{0}")
time.sleep(5)
"""


def test_without_both_variables_nobody_dies() -> None:
    assert chosen({}) is None
    assert chosen({"EQUEENGAGE_CRASHPOINT": "folded:1"}) is None
    assert chosen({"EQUEENGAGE_TEST_BUILD": "1"}) is None
    assert crash_points.ARMED is None
    crash_points.reach("folded")


@pytest.mark.parametrize("given", ["folded", "folded:0", "folded:x", "nowhere:1", ":1"])
def test_a_point_that_does_not_exist_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="is not name:n"):
        chosen({"EQUEENGAGE_CRASHPOINT": given, "EQUEENGAGE_TEST_BUILD": "1"})


@pytest.mark.parametrize("point", ["folded", "writing"])
def test_it_dies_when_it_comes_there_for_the_second_time(point: str) -> None:
    armed = {**os.environ, "EQUEENGAGE_CRASHPOINT": f"{point}:2", "EQUEENGAGE_TEST_BUILD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TWICE.format(point)], cwd=ROOT, env=armed, capture_output=True, timeout=30, text=True
    )
    assert (done.returncode, done.stdout) == (EXIT_CODE, "once\n")


def test_it_passes_all_other_points() -> None:
    armed = {**os.environ, "EQUEENGAGE_CRASHPOINT": "folded:1", "EQUEENGAGE_TEST_BUILD": "1"}
    others = "; ".join(f"c.reach({point!r})" for point in POINTS if point != "folded")
    code = f"from engine.runtime import crash_points as c; {others}"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=armed, timeout=30).returncode == 0
