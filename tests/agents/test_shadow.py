"""That `equeengage shadow` lets a version run unseen beside a server, and says what it would have done."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.cli.program import run
from agents.demo.mailbox import Mailbox
from tests.agents.command import equeengage, serving
from tests.agents.trial import IDENTIFY, TRIAL, post, write_journey
from tests.agents.waiting import until

SHADOW = """
from engine import Delay, Exit, Journey, Send, on, {how}, seconds

journey = Journey(
    name="trial", version={version}, entry={entry}, start="hello",
    steps={{
        "hello": Send("email", template="hello", then="pause"),
        "pause": Delay(seconds(1), then="thanks"),
        "thanks": Send("email", template="thanks", then="done"),
        "done": Exit(),
    }},
)
"""
BOB = {"type": "track", "userId": "bob", "messageId": "m3", "event": "trial_started"}


def write_shadow(journeys: Path, version: int = 2, entry: str = 'on("trial_started")') -> Path:
    """Write a version that doesn't wait for a click into a folder of its own, and return the file."""
    place = journeys.parent / "next"
    (place / "templates").mkdir(parents=True, exist_ok=True)
    for file in (journeys / "templates").iterdir():
        (place / "templates" / file.name).write_text(file.read_text())
    (place / "trial.py").write_text(SHADOW.format(version=version, entry=entry, how=entry.partition("(")[0]))
    return place / "trial.py"


def shadow(*arguments: object, **settings: Any) -> str:
    result = equeengage("shadow", *arguments, **settings)
    assert result.returncode == 0, result.stderr
    return result.stdout


async def test_a_version_runs_beside_a_server_and_nobody_gets_a_mail_of_it(
    tmp_path: Path, journeys: Path, mailbox: tuple[Mailbox, str], capsys: pytest.CaptureFixture[str]
) -> None:
    box, smtp_url = mailbox
    data = tmp_path / "data"
    place = write_shadow(journeys)
    keys = {"EQUEENGAGE_WRITE_KEYS": "default:s3cret-key", "EQUEENGAGE_SMTP_URL": smtp_url}
    with serving(tmp_path, "--data", data, "--port", 0, "--journeys", journeys, **keys) as server:
        said = shadow("start", place, "--data", data)
        assert said == (
            "default: trial v2 runs as a shadow beside v1; nothing of it is sent; appended through the server that runs on"
            f" {data}\n"
        )
        async with aiohttp.ClientSession() as session:
            await post(session, server.url, IDENTIFY, TRIAL, BOB)

            def reported() -> dict[str, Any]:
                assert run(["shadow", "report", "trial", "--json", "--data", str(data)]) == 0
                found: dict[str, Any] = json.loads(capsys.readouterr().out)
                return found

            await until(lambda: reported()["shadow"]["exits"] == {"done": 2}, "the shadow's runs")
        await until(lambda: len(box.mails) == 1, "ann's mail")
        found = reported()
        assert (found["active"]["messages"], found["shadow"]["messages"]) == ({"email": 1}, {"email": 2})
        assert found["active"]["blocked"] == {"no address for email": 1}
        assert found["shadow"]["blocked"] == {"no address for email": 2}
        assert {each["kind"]: (each["users"], each["example"]) for each in found["differences"]} == {
            "more": (1, "ann"), "ends": (1, "bob"),
        }  # fmt: skip
        story = found["differences"][0]["story"]
        assert [each["step"] for each in story["shadow"] if each["kind"] == "sent"] == ["hello", "thanks"]
        shown = shadow("report", "trial", "--data", data)
        assert "trial: active v1 beside its shadow v2" in shown
        assert "1 get more messages from the shadow; for example ann:" in shown
        assert "email 'thanks' asked for" in shown
        told = equeengage("trace", "ann", "--data", data).stdout
        assert "thanks" not in told
        assert "v2" not in told
        assert "the shadow v2 of trial has ended; its report stays" in shadow("stop", "trial", "--data", data)
        assert reported()["has_ended"]
        assert len(box.mails) == 1
        assert server.stop() == 0


def test_a_shadow_that_was_changed_is_started_again_and_its_number_is_free_to_publish(
    tmp_path: Path, journeys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    place = write_shadow(journeys)

    def said(*arguments: object) -> str:
        assert run([*map(str, arguments), "--data", str(data)]) == 0
        return capsys.readouterr().out

    said("publish", "--journeys", journeys)
    assert "beside v1; nothing of it is sent" in said("shadow", "start", place)
    assert "runs as a shadow already, since" in said("shadow", "start", place)
    place.write_text(place.read_text().replace("seconds(1)", "seconds(2)"))
    assert "beside v1, instead of its shadow v2" in said("shadow", "start", place)
    listed = said("journey", "list")
    assert "v2" not in listed
    assert said("shadow", "list").startswith("trial v2 runs as a shadow since 20")
    published = said("publish", "--journeys", place.parent)
    assert "trial v2 replaces v1" in published
    assert "beside v2" in said("shadow", "start", "trial@1")
    assert "has ended" in said("shadow", "stop", "trial")
    assert "has ended already" in said("shadow", "stop", "trial")
    assert said("shadow", "list") == "no shadow runs for the tenant 'default'\n"


def test_what_can_not_be_a_shadow_is_refused_in_a_line_that_says_what_to_do(
    tmp_path: Path, journeys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert run(["publish", "--journeys", str(journeys), "--data", str(data)]) == 0
    capsys.readouterr()

    def refused(*arguments: object) -> str:
        assert run(["shadow", *map(str, arguments), "--data", str(data)]) == 1
        told = capsys.readouterr()
        assert told.out == ""
        return " ".join(told.err.split())

    assert "is published with another body" in refused("start", write_shadow(journeys, version=1))
    assert "give this one version=2" in refused("start", write_shadow(journeys, version=1))
    assert "trial v1 is the active version" in refused("start", "trial@1")
    assert "trial@7 was not published" in refused("start", "trial@7")
    scheduled = write_shadow(journeys, entry='schedule("0 9 * * 1")')
    assert "a shadow has only the active version's schedule" in refused("start", scheduled)
    assert "has no shadow of 'trial'; begin one with: equeengage shadow start JOURNEY" in refused("report", "trial")
    assert "has no shadow of 'trial'; none runs" in refused("stop", "trial")
    write_journey(journeys, version=2)
    (journeys / "again.py").write_text((journeys / "trial.py").read_text().replace('"trial"', '"again"'))
    assert "has several journeys: again, trial; say which:" in refused("start", journeys)
    assert run(["journey", "stop", "trial", "--data", str(data)]) == 0
    capsys.readouterr()
    assert "trial is stopped, which holds for its shadow too" in refused("start", write_shadow(journeys))
