"""That `equeengage diff` tells versions apart: files, folders, what was published; and who is in between."""

from pathlib import Path

import aiohttp
import pytest

from tests.agents.command import equeengage, serving
from tests.agents.trial import IDENTIFY, TRIAL, post, write_journey
from tests.agents.waiting import until

EXAMPLES = Path(__file__).parents[2] / "journeys"

OTHER = """
from engine import Delay, Exit, Journey, Send, WaitFor, days, on, receipt, seconds

journey = Journey(
    name="trial", version=2, entry=on("trial_started"), start="hello", moves={"answer": "pause"},
    steps={
        "hello": Send("email", template="hello", then="answer"),
        "answer": WaitFor(receipt("hello", "clicked"), timeout=days(20), then="pause", on_timeout="done"),
        "pause": Delay(seconds(2), then="thanks"),
        "thanks": Send("email", template="thanks", then="done"),
        "done": Exit(),
    },
)
"""


def other(journeys: Path) -> Path:
    """Return a folder with the second version beside the first."""
    place = journeys.parent / "other"
    (place / "templates").mkdir(parents=True)
    (place / "trial.py").write_text(OTHER)
    for file in (journeys / "templates").iterdir():
        (place / "templates" / file.name).write_text(file.read_text().replace("<p>hello</p>", "<p>Good day</p>"))
    return place


def test_two_folders_are_compared_journey_by_journey(journeys: Path) -> None:
    result = equeengage("diff", journeys, other(journeys))
    assert result.returncode == 0
    assert [line.rstrip() for line in result.stdout.splitlines() if line.strip()] == [
        "trial v1 → v2",
        "  changed  moves   'answer' is new: 'pause'",
        "  changed  answer  timeout: 20 days instead of 30 days",
        "  hello, html",
        "  @@ -1 +1 @@",
        '  -<html><body><p>hello</p><a href="https://shop.example/hello">Go</a></body></html>',
        '  +<html><body><p>Good day</p><a href="https://shop.example/hello">Go</a></body></html>',
    ]


def test_a_pull_request_gets_words_a_picture_and_the_texts(journeys: Path) -> None:
    text = equeengage("diff", journeys / "trial.py", other(journeys) / "trial.py", "--markdown").stdout
    assert text.startswith("### trial v1 → v2\n\n- **moves**: 'answer' is new: 'pause'\n\n- `answer` changed: timeout:")
    assert "```mermaid\nstateDiagram-v2\n" in text
    assert "  class answer changed\n```\n" in text
    assert "<details><summary>hello, html</summary>\n\n```diff\n@@ -1 +1 @@\n-" in text
    assert "| runs |" not in text


def test_what_is_not_different_is_one_line(tmp_path: Path, journeys: Path) -> None:
    whole = equeengage("diff", EXAMPLES, EXAMPLES)
    assert whole.stdout == "Nothing is different in cart_abandonment, welcome, win_back.\n"
    assert "nothing is different" in equeengage("diff", journeys, journeys).stdout
    gone = equeengage("diff", EXAMPLES, journeys).stdout
    assert gone.splitlines() == [
        "cart_abandonment v3 is gone",
        "welcome v1 is gone",
        "win_back v1 is gone",
        "trial v1 is new",
    ]
    assert equeengage("diff", EXAMPLES, journeys, "--markdown").stdout.startswith("### cart_abandonment v3 is gone\n")


def test_a_change_without_a_new_number_is_pointed_out(journeys: Path) -> None:
    place = other(journeys)
    (place / "trial.py").write_text(OTHER.replace("version=2", "version=1"))
    assert "both have the same number" in equeengage("diff", journeys, place).stdout
    assert "**Both have the same number" in equeengage("diff", journeys, place, "--markdown").stdout


async def test_a_data_folder_tells_what_was_published_and_who_waits_where(tmp_path: Path, journeys: Path) -> None:
    """Also while the server runs."""
    data = tmp_path / "data"
    settings = {"EQUEENGAGE_WRITE_KEYS": "default:s3cret-key", "EQUEENGAGE_SMTP_URL": "smtp://127.0.0.1:9"}
    place = other(journeys)
    with serving(tmp_path, "--data", data, "--port", 0, "--journeys", journeys, **settings) as server:
        async with aiohttp.ClientSession() as session:
            await post(session, server.url, IDENTIFY, TRIAL, {**TRIAL, "userId": "ben", "messageId": "m3"})
        drawn = ["draw", "trial", "--journeys", journeys, "--counts", "--data", data]
        await until(lambda: "| 2 here" in equeengage(*drawn).stdout, "both users in the journey")
        assert "  answer: answer | wait up to 30 days for hello clicked | 2 here" in equeengage(*drawn).stdout
        told = equeengage("diff", "trial@1", place, "--data", data).stdout.splitlines()
        table = [line.split() for line in told if "v1 answer" in line]
        assert table == [["2", "v1", "answer", "is", "changed", "move", "to", "'pause'", "of", "v2"]]
        assert any("-<html><body><p>hello</p>" in line for line in told)
        markdown = equeengage("diff", "trial@1", place, "--data", data, "--markdown").stdout
        assert "| 2 | v1 `answer` | is changed | move to 'pause' of v2 |\n" in markdown
        newer = equeengage("draw", "trial", "--journeys", place, "--counts", "--data", data)
        assert "  answer: answer | wait up to 20 days for hello clicked | 0 here" in newer.stdout
        assert newer.stderr == "runs of trial that are not shown: 2 in trial@1\n"
        published = equeengage("draw", "trial@1", "--counts", "--data", data)
        assert "| 2 here" in published.stdout
        assert "published are trial@1" in equeengage("diff", "trial@7", place, "--data", data).stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trial@1", "journeys"], "trial@1 is a version that was published; name the data folder with --data DIR"),
        (["nowhere.py", "journeys"], "there is no file or folder nowhere.py"),
        (["journeys:tral", "journeys"], "journeys has no journey 'tral'; it has trial"),
        (["journeys", "journeys", "--data", "nowhere"], "there is no data folder nowhere; name it with --data DIR"),
        (["templates", "journeys"], "there is no journey in templates"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(journeys: Path, arguments: list[str], expected: str) -> None:
    (journeys.parent / "templates").mkdir()
    result = equeengage("diff", *arguments, cwd=journeys.parent)
    assert result.returncode == 1
    assert expected in result.stderr


def test_the_helper_writes_a_second_version(journeys: Path) -> None:
    """Guards the tests above: both journeys load."""
    write_journey(journeys, version=3)
    assert equeengage("diff", journeys, other(journeys)).stdout.startswith("trial v3 → v2")
