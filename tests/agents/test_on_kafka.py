"""That the commands for Kafka work together as the README says: topics, publish, worker, ingress, channel, trace."""

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.demo.mailbox import Mailbox, links_in
from engine.runtime.settings import Kafka
from tests.agents.command import equeengage, started
from tests.agents.trial import IDENTIFY, TRIAL, post
from tests.agents.waiting import until

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(kafka_settings: Kafka) -> dict[str, Any]:
    return {
        "EQUEENGAGE_KAFKA__BOOTSTRAP": kafka_settings.bootstrap,
        "EQUEENGAGE_KAFKA__PREFIX": kafka_settings.prefix,
        "EQUEENGAGE_KAFKA__APP": kafka_settings.app,
        "EQUEENGAGE_KAFKA__PARTITIONS": str(kafka_settings.partitions),
        "EQUEENGAGE_WRITE_KEYS": "default:s3cret-key",
        "EQUEENGAGE_LINK_SECRET": "a-long-random-text",
    }


async def test_a_mail_and_a_click_go_through_four_processes(
    tmp_path: Path, journeys: Path, mailbox: tuple[Mailbox, str], settings: dict[str, Any]
) -> None:
    box, smtp_url = mailbox
    missing = equeengage("publish", "--journeys", journeys, **settings)
    assert missing.returncode == 1
    assert "make it with: equeengage topics create" in missing.stderr
    made = equeengage("topics", "create", **settings)
    assert made.returncode == 0, made.stderr
    assert "all topics are there and right" in made.stdout
    assert "nothing to do" in equeengage("topics", "create", **settings).stdout
    assert "missing" not in equeengage("topics", "create", "--dry-run", **settings).stdout
    assert "published 1 journey to Kafka" in equeengage("publish", "--journeys", journeys, **settings).stdout

    with ExitStack() as stack:
        ingress = stack.enter_context(started(tmp_path, "ingress", "--port", 0, ready="ready", **settings))
        settings |= {"EQUEENGAGE_PUBLIC_URL": ingress.url, "EQUEENGAGE_SMTP_URL": smtp_url}
        processes = [
            ingress,
            stack.enter_context(
                started(tmp_path, "worker", "--data", tmp_path / "worker", ready="partitions assigned", **settings)
            ),
            stack.enter_context(
                started(
                    tmp_path, "channel", "email", "--data", tmp_path / "email", ready="partitions assigned", **settings
                )
            ),
        ]
        async with aiohttp.ClientSession() as session:
            await post(session, ingress.url, IDENTIFY, TRIAL)
            await until(lambda: box.mails, "the first mail")
            message = box.open(1)
            assert message is not None
            async with session.get(links_in(message)[0], allow_redirects=False) as response:
                assert response.status == 302
            await until(lambda: len(box.mails) == 2, "the second mail")
        assert equeengage("send", "ann", "trial_started", **settings).returncode == 0

        def story() -> list[str]:
            result = equeengage("trace", "ann", "--kafka", **settings)
            return [line.split("Trial v1", 1)[1].strip() for line in result.stdout.splitlines() if "Trial v1" in line]

        expected = [
            "entered, because trial_started happened",
            "email 'hello' asked for → accepted → clicked",
            "waits up to 30 days for: hello clicked",
            "goes on, because the message was clicked",
            "waits 2 seconds",
            "goes on, because the wait was over",
            "email 'thanks' asked for → accepted",
            "left",
            "not entered although trial_started happened: re-entry is once",
        ]
        await until(lambda: len(story()) >= len(expected), "the whole story")
        assert story() == expected
        for process in processes:
            assert await asyncio.to_thread(process.stop, signal.SIGTERM) == 0, process.said
            assert "stopped" in process.said.splitlines()[-1]


SMS = """
from engine import Exit, Journey, Send, on

journey = Journey(
    name="note", version={version}, entry=on("noted"), start="send",
    steps={{"send": Send("{channel}", template="hello", then="done"), "done": Exit()}},
)
"""


def test_a_channel_without_topic_is_refused_at_publish_and_journeys_are_steered_on_kafka(
    tmp_path: Path, journeys: Path, settings: dict[str, Any]
) -> None:
    (journeys / "note.py").write_text(SMS.format(version=1, channel="sms"))
    assert equeengage("topics", "create", **settings).returncode == 0
    refused = equeengage("publish", "--journeys", journeys, **settings)
    assert refused.returncode == 1
    assert refused.stderr == (
        "equeengage: note v1 sends to the channel 'sms', whose topics don't exist on Kafka: workers would stand still over"
        " its first message; make them with: equeengage topics create --channel sms\n"
    )
    made = equeengage("topics", "create", "--channel", "sms", **settings)
    assert f"{settings['EQUEENGAGE_KAFKA__PREFIX']}.messages.sms is new" in made.stdout
    assert "published 2 journeys" in equeengage("publish", "--journeys", journeys, **settings).stdout
    (journeys / "note.py").write_text(SMS.format(version=2, channel="email"))
    changed = equeengage("publish", "--journeys", journeys, "--dry-run", **settings).stdout
    assert "'send' channel: 'email' instead of 'sms'" in changed
    assert "would publish 1 journey" in changed
    assert "published 1 journey" in equeengage("publish", "--journeys", journeys, **settings).stdout
    assert "note is paused" in equeengage("journey", "pause", "note", **settings).stdout
    assert "note v1 is current, instead of v2" in equeengage("journey", "rollback", "note", "1", **settings).stdout
    listed = equeengage("journey", "list", **settings).stdout
    [note] = [line.split() for line in listed.splitlines() if " note " in line]
    assert (note[2], "paused" in note, note[-1]) == ("v1", True, "v2")
    unknown = equeengage("journey", "stop", "nott", **settings)
    assert "has no journey 'nott'; did you mean 'note'?" in unknown.stderr
