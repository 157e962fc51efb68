"""That what is built and installed is enough to write a journey and test it: no file of this folder, no tool of developers."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEVELOPERS = ("hypothesis", "aiosmtpd", "segment", "pyarrow", "yaml", "mkdocs", "packaging.metadata")

JOURNEY = """
from engine import Delay, Exit, Journey, Send, days, on

journey = Journey(
    name="greeting", version=1, entry=on("signed_up"), start="hello",
    steps={"hello": Send("email", template="hello", then="pause"), "pause": Delay(days(3), then="tips"),
           "tips": Send("email", template="tips", then="done"), "done": Exit()},
)
"""
TEST = f"""
import os
import sys
import engine
from engine import days
from greeting import journey

for name in {DEVELOPERS}:
    sys.modules[name] = None


def test_two_mails_in_three_days(simulate):
    user = simulate(journey)
    user.event("signed_up")
    user.wait(days(3))
    assert user.sent == ["email:hello", "email:tips"]
    assert engine.__file__.startswith(os.environ["PYTHONPATH"])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel was unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [wheel] = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_whoever_installs_it_writes_a_journey_and_tests_it(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "greeting.py").write_text(JOURNEY)
    (tmp_path / "test_greeting.py").write_text(TEST)
    others = [f"-pno:{name}" for name in ("asyncio", "hypothesispytest", "xdist", "xdist.looponfail", "cacheprovider")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *others, "--journey-coverage", str(tmp_path)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "greeting v1   100 %" in done.stdout


def test_the_wheel_brings_the_command_the_fixture_and_what_is_beside_the_code(installed: Path) -> None:
    [told] = installed.glob("*.dist-info")
    entry_points = (told / "entry_points.txt").read_text()
    assert "equeengage = agents.cli:main" in entry_points
    assert "equeengage = engine.pytest_plugin" in entry_points
    beside = [
        each for each in ROOT.glob("*/**/*") if each.suffix in (".css", ".js", ".html", ".json", ".txt", ".typed")
    ]
    shipped = [
        each.relative_to(ROOT) for each in beside if each.relative_to(ROOT).parts[0] in ("agents", "engine", "journeys")
    ]
    assert len(shipped) > 10
    assert [each for each in shipped if not (installed / each).exists()] == []
    assert not (installed / "tests").exists()
