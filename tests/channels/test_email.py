"""Mails: what stands in them, and that nothing a template or a profile holds can break out of its place."""

import re
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.channels.email import EmailChannel, message_id
from agents.channels.links import Links, read
from agents.channels.smtp import SmtpServer
from engine.errors import PermanentFailure
from schemas.definitions import Definition
from schemas.outputs import Message
from tests.channels.mailservers import Mailbox, mail_server
from tests.channels.stage import Stage, command, template, until

SECRET = b"a secret of sixteen bytes or more"
LINKS = Links("https://go.shop.test", SECRET)


def channel(server: SmtpServer | None = None) -> EmailChannel:
    return EmailChannel(server or SmtpServer("127.0.0.1", 25), "Tante Emma <hello@shop.test>", LINKS)


def mail(message: Message, definition: Definition) -> EmailMessage:
    content = channel().render(message, definition).content
    parsed = message_from_bytes(content, policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def test_a_mail_has_what_a_mail_needs() -> None:
    definition = template(
        subject="Hello {{ profile.name }}!\n",
        html='<html><body><h1>Hi {{ profile.name }}</h1><a href="https://shop.test/x">Look</a>'
        '<a href="{{ unsubscribe_url }}">stop</a></body></html>',
    )
    received = mail(command(profile={"name": "Zoë & <Co>"}), definition)
    assert received["From"] == "Tante Emma <hello@shop.test>"
    assert received["To"] == "u1@example.com"
    assert received["Subject"] == "Hello Zoë & <Co>!"
    assert received["Message-ID"] == "<r1%3A1.shop@shop.test>"
    assert received["Date"].datetime.year == 2025
    assert received.get_content_type() == "multipart/alternative"
    text, html = received.iter_parts()
    assert isinstance(text, EmailMessage)
    assert isinstance(html, EmailMessage)
    assert text.get_content_type() == "text/plain"
    assert "Hi Zoë & <Co>" in text.get_content()
    assert "https://shop.test/x" in text.get_content(), "the text part leads straight there"
    body = html.get_content()
    assert "Hi Zoë &amp; &lt;Co&gt;" in body
    assert "https://shop.test/x" not in body
    clicks = re.findall(r"https://go.shop.test/c/([\w-]+)", body)
    assert [read(SECRET, token).url for token in clicks] == ["https://shop.test/x"]
    assert len(re.findall(r"https://go.shop.test/o/[\w-]+", body)) == 1


def test_marketing_mails_can_be_unsubscribed_from_with_one_click_and_transactional_ones_not() -> None:
    definition = template(subject="x", text="Stop: {{ unsubscribe_url }}")
    message = command(topic="news", address="Ada@Example.COM")
    raw = channel().render(message, definition).content
    assert re.search(rb"^List-Unsubscribe: <https://go.shop.test/u/[\w-]+>\r$", raw, re.M), "encoded or folded"
    received = mail(message, definition)
    assert received["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    url = re.fullmatch(r"<https://go.shop.test/u/([\w-]+)>", received["List-Unsubscribe"])
    assert url is not None
    link = read(SECRET, url[1])
    assert (link.address, link.topic, link.user) == ("ada@example.com", "news", "u1")
    assert url[1] in received.get_content()
    receipt = mail(command(transactional=True), definition)
    assert receipt["List-Unsubscribe"] is None
    assert receipt.get_content().rstrip("\r\n") == "Stop: "


@settings(max_examples=200)
@given(st.text(max_size=200), st.text(max_size=400))
def test_no_value_can_break_out_of_its_header_or_end_the_mail(subject: str, text: str) -> None:
    subject, text = (value.encode("utf-8", "replace").decode() for value in (subject, text))
    message = command(profile={"subject": subject, "text": text})
    definition = template(subject="{{ profile.subject }}", text="{{ profile.text }}")
    content = channel().render(message, definition).content
    assert content.isascii()
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", content)
    assert max(len(line) for line in content.split(b"\r\n")) <= 998
    received = message_from_bytes(content, policy=policy.default)
    assert set(received.keys()) == {
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "List-Unsubscribe",
        "List-Unsubscribe-Post",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    }
    assert len(received.keys()) == 10
    assert _lines(received.get_content()) == _lines(text)


def _lines(text: str) -> list[str]:
    return re.split(r"\r\n|\r|\n", text.rstrip("\r\n"))


@given(st.text(min_size=1, max_size=300))
def test_a_message_id_is_always_one(name: str) -> None:
    name = name.encode("utf-8", "replace").decode()
    made = message_id(command(id=name), "shop.test")
    assert re.fullmatch(r"<[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*@shop\.test>", made, re.ASCII)
    assert len(made) < 250


@pytest.mark.parametrize("address", ["", "nobody", "a@b@c.test", "a@shop.test\r\nBcc: x@y.test", "a b@shop.test"])
def test_an_address_that_is_none_bounces(address: str) -> None:
    with pytest.raises(PermanentFailure) as failure:
        channel().target(command(address=address))
    assert failure.value.bounced


def test_a_sender_that_is_none_is_an_error_at_the_start() -> None:
    with pytest.raises(ValueError, match="can't be sent from"):
        EmailChannel(SmtpServer("127.0.0.1", 25), "Shop", LINKS)


def test_a_template_without_a_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="html or a text part"):
        channel().render(command(), template("empty", subject="x"))


@pytest.fixture
async def mailbox() -> AsyncIterator[tuple[Mailbox, SmtpServer]]:
    mailbox = Mailbox()
    async with mail_server(mailbox) as server:
        yield mailbox, server


async def test_commands_become_mails_in_a_mailbox(stage: Stage, mailbox: tuple[Mailbox, SmtpServer]) -> None:
    box, server = mailbox
    email = channel(server)
    async with stage.delivering(email):
        await stage.ask(*(command(number) for number in range(1, 101)))
        await until(lambda: len(stage.receipts()) == 100)
    await email.close()
    assert {status for _, status in stage.receipts()} == {"accepted"}
    assert sorted(mail["Message-ID"] for mail in box.mails) == sorted(
        f"<r{n}%3A1.shop@shop.test>" for n in range(1, 101)
    )
    assert box.connections <= email.concurrency


async def test_a_greylisted_mail_arrives_later(stage: Stage, mailbox: tuple[Mailbox, SmtpServer]) -> None:
    box, server = mailbox
    email = channel(server)
    box.answer_to_recipient = "451 4.7.1 greylisted"
    async with stage.delivering(email):
        await stage.ask(command())
        await until(lambda: ("r1:1", "retry") in stage.journal())
        box.answer_to_recipient = "250 OK"
        stage.clock.now += 10_000
        await until(stage.receipts)
    await email.close()
    assert stage.receipts() == [("r1:1", "accepted")]
    assert len(box.mails) == 1


async def test_an_unknown_user_bounces(stage: Stage, mailbox: tuple[Mailbox, SmtpServer]) -> None:
    box, server = mailbox
    email = channel(server)
    box.answer_to_recipient = "550 5.1.1 no such user"
    async with stage.delivering(email):
        await stage.ask(command(), command(2, address="not an address"))
        await until(lambda: len(stage.receipts()) == 2)
    await email.close()
    assert set(stage.receipts()) == {("r1:1", "bounced"), ("r2:1", "bounced")}


async def test_an_address_where_nobody_is_gets_nothing_more_and_the_same_user_elsewhere_does(
    stage: Stage, mailbox: tuple[Mailbox, SmtpServer]
) -> None:
    box, server = mailbox
    email = channel(server)
    box.answer_to_recipient = "550 5.1.1 no such user"
    async with stage.delivering(email):
        await stage.ask(command(address="Ada@shop.test"))
        await until(stage.receipts)
    [record] = stage.records("suppressions")
    assert record.key == b"shop:email:all:ada@shop.test"
    await stage.restart()
    box.answer_to_recipient = "250 OK"
    later = [command(2, user="u1", address="ada@shop.test", transactional=True), command(3, user="u1")]
    async with stage.delivering(email):
        await stage.ask(*later)
        await until(lambda: len(stage.receipts()) == 3)
    await email.close()
    assert set(stage.receipts()) == {("r1:1", "bounced"), ("r2:1", "dropped"), ("r3:1", "accepted")}
    assert box.recipients == ["u3@example.com"]


async def test_a_server_that_refuses_everybody_without_saying_why_costs_no_address(
    stage: Stage, mailbox: tuple[Mailbox, SmtpServer]
) -> None:
    box, server = mailbox
    email = channel(server)
    box.answer_to_recipient = "550 relay not permitted"
    async with stage.delivering(email):
        await stage.ask(command())
        await until(stage.receipts)
    await email.close()
    assert stage.receipts() == [("r1:1", "bounced")]
    assert list(stage.records("suppressions")) == []
