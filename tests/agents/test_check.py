"""That `equeengage check` finds what is wrong in a folder, tells it to people, programs and GitHub, and exits accordingly."""

import json
from pathlib import Path

import pytest

from agents.channels.roster import CHANNELS as WORKERS
from agents.checking import CHANNELS
from agents.event_schemas import read_declarations
from engine.errors import JourneyError
from tests.agents.command import equeengage

EXAMPLES = Path(__file__).parents[2] / "journeys"

JOURNEY = """from engine import Delay, Exit, Journey, Send, days, on, where

journey = Journey(
    name="trial", version=2, entry=on("trial_started", where("plna", "==", "team")), start="pause",
    steps={
        "pause": Delay(days(1), then="hello"),
        "hello": Send("email", template="hello", then="done"),
        "done": Exit(),
        "lost": Exit(),
    },
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journey with one error and two warnings."""
    place = tmp_path / "journeys"
    (place / "templates").mkdir(parents=True)
    (place / "schemas").mkdir()
    (place / "trial.py").write_text(JOURNEY)
    (place / "templates" / "hello.subject.txt").write_text("Hello")
    (place / "templates" / "hello.html").write_text("<p>Hello</p>\n")
    (place / "schemas" / "trial_started.json").write_text('{"properties": {"plan": {"type": "string"}}}')
    return place


def test_people_are_told_what_is_wrong_where_and_what_would_be_right(folder: Path) -> None:
    result = equeengage("check", "--journeys", folder)
    assert result.returncode == 1
    assert "entry: `event.plna` is not declared for 'trial_started'; did you mean 'plan'?" in result.stdout
    assert f"{folder / 'trial.py'}:4" in result.stdout
    assert "lost: no way leads to this step" in result.stdout
    assert f"{folder / 'trial.py'}:9" in result.stdout
    assert "hello.html: a mail about 'marketing' without a way out" in result.stdout
    assert "1 error, 2 warnings in 1 journey" in result.stdout
    assert "1 in 30 days" in result.stdout
    assert result.stderr == ""


def test_a_program_is_told_the_same(folder: Path) -> None:
    result = equeengage("check", "--journeys", folder, "--format", "json")
    assert result.returncode == 1
    told = json.loads(result.stdout)
    assert (told["errors"], told["warnings"], told["unused_templates"]) == (1, 2, [])
    assert told["findings"][0] == {
        "severity": "error", "rule": "undeclared", "journey": "trial", "version": 2, "place": "entry",
        "problem": "`event.plna` is not declared for 'trial_started'", "remedy": "did you mean 'plan'?",
        "file": str(folder / "trial.py"), "line": 4,
    }  # fmt: skip
    assert told["journeys"] == [
        {
            "name": "trial", "version": 2, "file": str(folder / "trial.py"),
            "most_messages": {"7 days": {"most": 1, "each": 1, "why": ""}, "30 days": {"most": 1, "each": 1, "why": ""}},
        }
    ]  # fmt: skip


def test_github_shows_findings_at_their_lines(folder: Path) -> None:
    result = equeengage("check", "--journeys", "journeys", "--format", "github", cwd=folder.parent)
    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        "::error file=journeys/trial.py,line=4,title=trial v2%3A undeclared::entry: `event.plna` is not declared for"
        " 'trial_started'; did you mean 'plan'?",
        "::warning file=journeys/trial.py,line=9,title=trial v2%3A unreachable::lost: no way leads to this step; lead to it"
        " from another step, or remove it",
        "::warning file=journeys/templates/hello.html,title=trial v2%3A no_unsubscribe::hello.html: a mail about 'marketing'"
        " without a way out of it that its reader can see; put a link to {{ unsubscribe_url }} into it, or say"
        " transactional=True if it is no marketing",
    ]


def test_warnings_are_errors_only_when_asked_for(folder: Path) -> None:
    (folder / "trial.py").write_text(JOURNEY.replace("plna", "plan"))
    assert equeengage("check", "--journeys", folder).returncode == 0
    assert equeengage("check", "--journeys", folder, "--strict").returncode == 1
    assert equeengage("check", "--journeys", EXAMPLES, "--strict").returncode == 0


def test_a_module_that_cannot_be_loaded_is_a_finding_too(folder: Path) -> None:
    (folder / "trial.py").write_text(JOURNEY.replace('then="done"', 'then="don"'))
    plain = equeengage("check", "--journeys", folder)
    assert plain.returncode == 1
    assert "did you mean 'done'?" in plain.stderr
    told = json.loads(equeengage("check", "--journeys", folder, "--format", "json").stdout)
    assert (told["errors"], told["findings"][0]["rule"], told["findings"][0]["line"]) == (1, "unreadable", 3)
    line = equeengage("check", "--journeys", folder, "--format", "github").stdout
    assert line.startswith(f"::error file={folder}/trial.py,line=3,title=journeys::trial v2: 'hello' leads to 'don'")
    assert equeengage("check", "--journeys", folder / "schemas", "--format", "github").returncode == 1


def test_a_template_that_nobody_sends_is_named(folder: Path) -> None:
    (folder / "templates" / "old.html").write_text("{{ unsubscribe_url }}")
    assert "no journey sends old" in equeengage("check", "--journeys", folder).stdout


def test_a_policy_in_the_folder_counts(folder: Path) -> None:
    (folder / "trial.py").write_text(JOURNEY.replace("plna", "plan"))
    (folder / "policy.py").write_text(
        "from engine import Policy\npolicy = Policy(version=1, topics={'marketting': 'opt_in'})\n"
    )
    assert "the policy has no topic 'marketing'" in equeengage("check", "--journeys", folder).stdout


def test_every_channel_with_a_worker_is_known() -> None:
    assert frozenset(WORKERS) == CHANNELS


def test_declarations_may_be_written_as_models(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "shop.py").write_text(
        "from pydantic import BaseModel, ConfigDict\n"
        "from decimal import Decimal\n"
        "class Line(BaseModel):\n    name: str\n"
        "class CartUpdated(BaseModel):\n    items: int\n    lines: list[Line] = []\n    note: str | None = None\n"
        "class Done(BaseModel):\n    model_config = ConfigDict(title='Order Completed')\n    total: float\n"
        "class Profile(BaseModel):\n    tier: str\n"
    )
    declared = read_declarations(tmp_path)
    assert sorted(declared.events) == ["Order Completed", "cart_updated", "line"]
    cart = declared.events["cart_updated"]
    assert cart.names() == ["items", "lines", "note"]
    note, name = cart.at("note"), cart.member("lines")
    assert note is not None
    assert note.kinds() == {"string", "null"}
    assert name is not None
    assert (item := name.item()) is not None
    assert item.names() == ["name"]
    assert declared.profile is not None
    assert declared.profile.names() == ["tier"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.json", "{", "a.json: a schema is a JSON object"),
        ("a.json", '{"properties": {"x": {"type": "text"}}}', "a.json: a: at x: 'text' is not a type"),
        ("a.json", '{"$ref": "other.json"}', "leads out of the file"),
        ("a.json", '{"properties": {"x": {"$ref": "#/$defs/y"}}}', "names nothing that is there"),
        ("b.py", "import nowhere", "b.py:1: ModuleNotFoundError"),
        ("b.py", "from pydantic import BaseModel\nclass A(BaseModel):\n    x: int", "'a' is declared in"),
    ],
)
def test_a_schema_that_is_wrong_is_named_with_its_file(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "a.json").write_text("{}")
    (tmp_path / "schemas" / name).write_text(text)
    with pytest.raises(JourneyError) as raised:
        read_declarations(tmp_path)
    assert expected in str(raised.value)
