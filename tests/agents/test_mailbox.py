"""That the demo's mailbox keeps what it is given, and shows it without believing it."""

import asyncio
import smtplib
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from agents.demo import mailbox as mailboxes
from agents.demo.mailbox import Mail, Mailbox, links_in, receiving, text_of
from agents.demo.mailbox_page import make_page

Client = TestClient[web.Request, web.Application]


def a_mail(to: str = "ada.1@example.com", subject: str = "Welcome, Ada", html: str = "<p>Hello</p>") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "The shop <hello@example.com>", to, subject
    message["List-Unsubscribe"] = "<http://127.0.0.1:8080/u/token>"
    message.set_content("Hello in plain text")
    message.add_alternative(html, subtype="html")
    return message


def send(port: int, *messages: EmailMessage) -> None:
    with smtplib.SMTP("127.0.0.1", port) as smtp:
        for message in messages:
            smtp.send_message(message)


@pytest.fixture
def box(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path / "mails")


@pytest.fixture
async def page(box: Mailbox) -> AsyncIterator[Client]:
    async with TestClient(TestServer(make_page(box, "http://127.0.0.1:8080"))) as client:
        yield client


async def test_a_mail_sent_over_smtp_is_kept_and_announced(tmp_path: Path) -> None:
    heard: list[Mail] = []
    box = Mailbox(tmp_path, heard.append)
    async with receiving(box) as port:
        await asyncio.to_thread(send, port, a_mail(), a_mail("alan.2@example.com", "Hello, Alan"))
    assert [(mail.recipient, mail.subject) for mail in box.mails] == [
        ("ada.1@example.com", "Welcome, Ada"),
        ("alan.2@example.com", "Hello, Alan"),
    ]
    assert heard == list(box.mails)
    assert heard[0].preview == "Hello in plain text"


async def test_many_mails_fit_into_one_connection_as_pools_send_them(box: Mailbox) -> None:
    async with receiving(box) as port:
        await asyncio.to_thread(send, port, *[a_mail() for _ in range(60)])
    assert len(box.mails) == 60


async def test_an_open_connection_does_not_hold_up_the_end(box: Mailbox) -> None:
    async with receiving(box) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await reader.readline()).startswith(b"220")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


def test_mails_are_still_there_after_a_restart(tmp_path: Path) -> None:
    Mailbox(tmp_path).keep(a_mail().as_bytes(), "ada.1@example.com")
    again = Mailbox(tmp_path)
    assert [mail.subject for mail in again.mails] == ["Welcome, Ada"]
    assert again.keep(a_mail(subject="Second").as_bytes(), "ada.1@example.com").number == 2


def test_only_the_newest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailboxes, "KEPT", 3)
    box = Mailbox(tmp_path)
    for number in range(5):
        box.keep(a_mail(subject=f"Mail {number}").as_bytes(), "ada.1@example.com")
    assert [mail.subject for mail in box.mails] == ["Mail 2", "Mail 3", "Mail 4"]
    assert len(list(tmp_path.glob("*.eml"))) == 3


def test_a_broken_mail_is_kept_all_the_same(box: Mailbox) -> None:
    mail = box.keep(b"Subject: x\r\nContent-Type: text/plain; charset=no-such\r\n\r\n\xff\xfe", "ada.1@example.com")
    assert mail.subject == "x"


def test_the_text_is_made_from_the_html_where_there_is_none(box: Mailbox) -> None:
    message = EmailMessage()
    message.set_content("<p>Only <b>html</b></p>", subtype="html")
    assert "Only html" in text_of(message)


def test_links_are_found_as_a_reader_would_follow_them() -> None:
    html = '<a class="button" href="http://127.0.0.1/c/1?a=1&amp;b=2">Go</a><a href="http://127.0.0.1/u/2">Leave</a>'
    assert links_in(a_mail(html=html)) == ["http://127.0.0.1/c/1?a=1&b=2", "http://127.0.0.1/u/2"]


async def test_the_page_lists_the_newest_mail_first(box: Mailbox, page: Client) -> None:
    for subject in ("Oldest", "Newest"):
        box.keep(a_mail(subject=subject).as_bytes(), "ada.1@example.com")
    text = await (await page.get("/")).text()
    assert text.index("Newest") < text.index("Oldest")
    assert "2 mails" in text


async def test_what_a_mail_says_is_never_taken_for_html(box: Mailbox, page: Client) -> None:
    attack = '"><script>alert(1)</script>'
    mail = box.keep(a_mail(subject=attack).as_bytes(), f"{attack}@example.com")
    for path in ("/", f"/mails/{mail.number}", "/list", f"/?q={attack}"):
        assert "<script>alert" not in await (await page.get(path)).text(), path


async def test_a_mail_that_names_our_placeholders_is_shown_as_it_is(box: Mailbox, page: Client) -> None:
    mail = box.keep(a_mail(subject="{{rows}} {{content}} {{query}}").as_bytes(), "ada.1@example.com")
    answer = await page.get(f"/mails/{mail.number}")
    assert answer.status == 200
    assert "<h1>{{rows}} {{content}} {{query}}</h1>" in await answer.text()


async def test_the_html_of_a_mail_is_locked_up(box: Mailbox, page: Client) -> None:
    mail = box.keep(a_mail(html="<script>top.location='x'</script><p>Hi</p>").as_bytes(), "ada.1@example.com")
    reading = await (await page.get(f"/mails/{mail.number}")).text()
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in reading
    alone = await page.get(f"/mails/{mail.number}/html")
    policy = alone.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox ")
    assert "allow-scripts" not in policy
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy
    assert "<p>Hi</p>" in await alone.text()


async def test_the_source_is_text(box: Mailbox, page: Client) -> None:
    mail = box.keep(a_mail().as_bytes(), "ada.1@example.com")
    source = await page.get(f"/mails/{mail.number}/source")
    assert source.content_type == "text/plain"
    assert source.headers["X-Content-Type-Options"] == "nosniff"
    assert "List-Unsubscribe" in await source.text()


async def test_people_and_subjects_are_found(box: Mailbox, page: Client) -> None:
    box.keep(a_mail("ada.1@example.com", "Welcome").as_bytes(), "ada.1@example.com")
    box.keep(a_mail("alan.2@example.com", "Goodbye").as_bytes(), "alan.2@example.com")
    found = await (await page.get("/list?q=ALAN")).text()
    assert "Goodbye" in found
    assert "Welcome" not in found
    assert "Nothing found" in await (await page.get("/list?q=nobody")).text()


@pytest.mark.parametrize(
    "path", ["/mails/7", "/mails/7/html", "/mails/0", "/mails/../etc", "/mails/999999999999999999"]
)
async def test_what_is_not_there_is_not_found(page: Client, path: str) -> None:
    assert (await page.get(path)).status == 404
