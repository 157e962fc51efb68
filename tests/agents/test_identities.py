"""That somebody who logs in gets the mail for what they did before, over HTTP, on either host."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.demo.mailbox import Mailbox, links_in
from engine.runtime.settings import Kafka
from tests.agents.command import equeengage, serving, started
from tests.agents.trial import post
from tests.agents.waiting import until

JOURNEY = """
from engine import Exit, Journey, Send, WaitFor, days, on, receipt

journey = Journey(
    name="trial", version=1, entry=on("trial_started"), start="known",
    steps={
        "known": WaitFor(on("asked"), timeout=days(9), then="hello", on_timeout="done"),
        "hello": Send("email", template="hello", then="answer"),
        "answer": WaitFor(receipt("hello", "clicked"), timeout=days(30), then="thanks", on_timeout="done"),
        "thanks": Send("email", template="thanks", then="done"),
        "done": Exit(),
    },
)
"""


def track(event: str, number: int, **ids: str) -> dict[str, object]:
    return {"type": "track", "event": event, "messageId": f"m{number}", **ids}


async def tell(session: aiohttp.ClientSession, url: str, box: Mailbox, story: Callable[[str], str]) -> None:
    """A visitor on two devices begins a trial, logs in, is renamed, clicks, and asks to be forgotten."""
    await post(session, url, track("trial_started", 1, anonymousId="phone"))
    await post(
        session, url,
        {"type": "identify", "userId": "ann", "anonymousId": "phone", "traits": {"email": "ann@shop.test"}, "messageId": "i1"},
        {"type": "identify", "userId": "ann", "anonymousId": "desk", "traits": {}, "messageId": "i2"},
        track("trial_started", 2, userId="ann"),  # is kept until the phone has answered, and then is one too many
        track("trial_started", 1, userId="ann"),  # the phone's own, again
    )  # fmt: skip
    await until(lambda: "anon:desk turned out" in story("ann"), "both devices are hers")
    await post(session, url, track("asked", 3, anonymousId="desk"))
    await until(lambda: box.mails, "the first mail")
    await post(session, url, {"type": "alias", "userId": "anna", "previousId": "ann", "messageId": "a1"})
    await until(lambda: "ann turned out to be the same person" in story("anna"), "the new name")
    message = box.open(1)
    assert message is not None
    async with session.get(links_in(message)[0], allow_redirects=False) as response:
        assert response.status == 302
    await until(lambda: len(box.mails) == 2, "the second mail, after a receipt that went to the first name")
    assert [(mail.subject, mail.recipient) for mail in box.mails] == [
        ("Hello", "ann@shop.test"),
        ("Thanks", "ann@shop.test"),
    ]


def check(story: Callable[[str], str]) -> None:
    assert "turned out to be ann, whose story goes on" in story("anon:phone")
    assert "turned out to be anna, whose story goes on" in story("ann")
    told = story("ann")
    assert told.count("not entered although trial_started happened: already in it") == 1
    assert told.count("trial_started came twice and was counted once") == 1
    assert "left" in story("anna")
    assert story("anon:desk").splitlines()[1:] == story("anna").splitlines()[1:]


@pytest.fixture
def journeys_of_visitors(journeys: Path) -> Path:
    (journeys / "trial.py").write_text(JOURNEY)
    return journeys


async def test_a_visitor_becomes_a_customer_on_the_embedded_host(
    tmp_path: Path, journeys_of_visitors: Path, mailbox: tuple[Mailbox, str]
) -> None:
    box, smtp_url = mailbox
    data = tmp_path / "data"
    settings = {"EQUEENGAGE_WRITE_KEYS": "default:s3cret-key", "EQUEENGAGE_SMTP_URL": smtp_url}

    def story(user: str) -> str:
        return equeengage("trace", user, "--data", data).stdout

    async with aiohttp.ClientSession() as session:
        with serving(tmp_path, "--data", data, "--port", 0, "--journeys", journeys_of_visitors, **settings) as server:
            await tell(session, server.url, box, story)
            check(story)
            assert await asyncio.to_thread(server.stop, signal.SIGTERM) == 0


@pytest.mark.kafka
async def test_a_visitor_becomes_a_customer_on_kafka(
    tmp_path: Path, journeys_of_visitors: Path, mailbox: tuple[Mailbox, str], kafka_settings: Kafka
) -> None:
    box, smtp_url = mailbox
    settings: dict[str, Any] = {
        "EQUEENGAGE_KAFKA__BOOTSTRAP": kafka_settings.bootstrap,
        "EQUEENGAGE_KAFKA__PREFIX": kafka_settings.prefix,
        "EQUEENGAGE_KAFKA__APP": kafka_settings.app,
        "EQUEENGAGE_KAFKA__PARTITIONS": str(kafka_settings.partitions),
        "EQUEENGAGE_WRITE_KEYS": "default:s3cret-key",
        "EQUEENGAGE_LINK_SECRET": "a-long-random-text",
    }

    def story(user: str) -> str:
        return equeengage("trace", user, "--kafka", **settings).stdout

    assert equeengage("topics", "create", **settings).returncode == 0
    assert equeengage("publish", "--journeys", journeys_of_visitors, **settings).returncode == 0
    with ExitStack() as stack:
        ingress = stack.enter_context(started(tmp_path, "ingress", "--port", 0, ready="ready", **settings))
        settings |= {"EQUEENGAGE_PUBLIC_URL": ingress.url, "EQUEENGAGE_SMTP_URL": smtp_url}
        for name, arguments in (("worker", ("worker",)), ("email", ("channel", "email"))):
            stack.enter_context(
                started(tmp_path, *arguments, "--data", tmp_path / name, ready="partitions assigned", **settings)
            )
        async with aiohttp.ClientSession() as session:
            await tell(session, ingress.url, box, story)
        check(story)
