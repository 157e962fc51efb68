"""That the page about sending events is true: a server started as it says takes what it sends; its numbers are true."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agents.ingress import contents, refusals, segment, submissions, webhooks
from engine.runtime.embedded.readonly import ReadOnlyLog
from engine.runtime.settings import Webhook
from tests.agents.command import serving
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "ingress.md").read_text("utf-8")
START, *SENDING = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
SETTINGS: dict[str, str] = dict(re.findall(r"^export (\w+)=(.+)$", START, re.MULTILINE))


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("openssl")),
    reason="CURL OR OPENSSL IS MISSING, the examples of docs/ingress.md were not run",
)
def test_what_the_page_sends_is_taken_as_the_page_says(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(tmp_path, "--data", data, "--port", 0, "--journeys", ROOT / "journeys", **SETTINGS) as server:
        for block in SENDING:
            script = block.replace("http://127.0.0.1:8080", server.url).replace("curl ", "curl -sS ")
            ran = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, timeout=30)
            assert ran.stdout == '{"success":true}' * script.count("curl "), ran.stdout + ran.stderr
        assert server.stop() == 0
    with ReadOnlyLog.open(data) as log:
        values = [json.loads(record.value or b"{}") for record in log.read("events", b"default:ann") if record.key]
    assert [(value["name"], value.get("properties", {})) for value in values if value["type"] == "event"] == [
        ("cart_updated", {"cart_id": "c-1", "items": 2}),
        ("identify", {}),
        ("order_placed", {"total": 59.9}),
        ("order_shipped", {"parcels": 1}),
        ("deal_won", {"customer": {"id": "ann"}, "worth": 900}),
    ]


def test_the_settings_of_a_source_are_those_of_the_page() -> None:
    rows = [row for row in PAGE.splitlines() if row.startswith("| `")]
    named = {name.lower() for row in rows for name in re.findall(r"`([A-Z_]+)`", row.split("|")[1])}
    assert named == set(Webhook.model_fields)


def test_the_limits_and_answers_are_those_of_the_page() -> None:
    text = " ".join(PAGE.split())
    assert segment.LARGEST_BATCH == webhooks.LARGEST_BODY
    most = f"{contents.LARGEST_EVENT >> 10} kB (a batch or a webhook {segment.LARGEST_BATCH // 1000} kB)"
    rest = f"an event {contents.DEEPEST} levels, an id or a name {contents.LONGEST_ID} characters"
    assert f"A body has at most {most}, a batch {submissions.MOST_EVENTS:,} events, {rest}." in text
    told = {int(status) for status in re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE)}
    assert told == {200, 400, 429, 500, 503, *refusals.STATUS.values()}
