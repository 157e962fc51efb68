"""That `equeengage draw` gives a picture, or what an editor needs to make one."""

import json
from pathlib import Path

from tests.agents.command import equeengage

EXAMPLES = Path(__file__).parents[2] / "journeys"


def test_an_editor_gets_steps_and_ways() -> None:
    drawn = json.loads(equeengage("draw", "welcome", "--journeys", EXAMPLES, "--json").stdout)
    assert (drawn["name"], drawn["start"], drawn["entry"]) == ("welcome", "welcome", "signed_up")
    assert drawn["steps"][0] == {"name": "welcome", "kind": "send", "does": "email: welcome"}
    assert {"from": "welcome", "when": "sent", "to": "first_day"} in drawn["ways"]
    every = json.loads(equeengage("draw", "--journeys", EXAMPLES, "--json").stdout)
    assert [each["name"] for each in every] == ["cart_abandonment", "welcome", "win_back"]


def test_a_file_is_written_when_asked_for(tmp_path: Path) -> None:
    result = equeengage("draw", "welcome", "--journeys", EXAMPLES, "-o", tmp_path / "welcome.mmd")
    assert result.stdout == f"{tmp_path / 'welcome.mmd'} has 1 diagram\n"
    assert (tmp_path / "welcome.mmd").read_text().startswith("stateDiagram-v2\n")


def test_counts_need_a_data_folder(tmp_path: Path) -> None:
    for arguments in (["welcome", "--counts"], ["welcome@1"]):
        result = equeengage("draw", *arguments, "--journeys", EXAMPLES, "--data", tmp_path / "nowhere")
        assert result.returncode == 1
        assert "there is no data folder" in result.stderr
    assert not (tmp_path / "nowhere").exists()
