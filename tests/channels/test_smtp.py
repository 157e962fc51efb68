"""Handing a mail to SMTP servers of all tempers: what is known when it goes wrong."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agents.channels.smtp import SmtpPool, SmtpServer
from engine.errors import PermanentFailure, TemporaryFailure, UnknownOutcome
from tests.channels.mailservers import Login, Mailbox, certificate, envelope, mail_server, scripted_server

MAIL = b"Subject: hi\r\n\r\nHello\r\n.\r\n..two dots\r\n"


async def test_a_mail_arrives_as_it_was_sent() -> None:
    mailbox = Mailbox()
    async with mail_server(mailbox) as server:
        pool = SmtpPool(server, 2)
        answer = await pool.send("a@shop.test", "b@shop.test", MAIL)
        await pool.close()
    assert answer.startswith("250")
    assert mailbox.raw == [MAIL]


async def test_connections_are_reused_and_bounded() -> None:
    mailbox = Mailbox()
    async with mail_server(mailbox) as server:
        pool = SmtpPool(server, 3)
        await asyncio.gather(*(pool.send("a@shop.test", f"u{n}@shop.test", MAIL) for n in range(30)))
        await pool.close()
    assert len(mailbox.mails) == 30
    assert mailbox.connections <= 3


async def test_a_connection_the_server_has_closed_meanwhile_is_replaced() -> None:
    mailbox = Mailbox()
    async with mail_server(mailbox, timeout=0.05) as server:
        pool = SmtpPool(server, 1)
        await pool.send("a@shop.test", "b@shop.test", MAIL)
        await asyncio.sleep(0.15)  # the server's own idle timeout: there is nothing to poll for
        await pool.send("a@shop.test", "b@shop.test", MAIL)
        await pool.close()
    assert len(mailbox.mails) == 2
    assert mailbox.connections == 2


@pytest.mark.parametrize(
    ("answer", "bounced", "gone"),
    [
        ("550 5.1.1 no such user", True, True),
        ("550 5.1.2 no such domain", True, False),
        ("550 5.1.8 the sender's domain is unknown", False, False),
        ("550 no such user", True, False),
        ("553 mailbox name not allowed", True, False),
        ("550 5.7.1 we don't like you", False, False),
        ("550 5.2.1 mailbox closed", True, True),
        ("552 5.2.2 mailbox full", False, False),
    ],
)
async def test_a_refused_recipient_is_permanent_and_the_connection_goes_on(
    answer: str, bounced: bool, gone: bool
) -> None:
    mailbox = Mailbox()
    async with mail_server(mailbox) as server:
        pool = SmtpPool(server, 1)
        mailbox.answer_to_recipient = answer
        with pytest.raises(PermanentFailure) as failure:
            await pool.send("a@shop.test", "b@shop.test", MAIL)
        mailbox.answer_to_recipient = "250 OK"
        await pool.send("a@shop.test", "b@shop.test", MAIL)
        await pool.close()
    assert (failure.value.bounced, failure.value.gone) == (bounced, gone)
    assert mailbox.connections == 1


async def test_4xx_is_temporary_and_5xx_to_the_mail_itself_is_no_bounce() -> None:
    mailbox = Mailbox()
    async with mail_server(mailbox) as server:
        pool = SmtpPool(server, 1)
        mailbox.answer_to_recipient = "451 4.7.1 greylisted"
        with pytest.raises(TemporaryFailure, match="greylisted"):
            await pool.send("a@shop.test", "b@shop.test", MAIL)
        mailbox.answer_to_recipient = "250 OK"
        mailbox.answer_to_mail = "452 4.3.1 disk full"
        with pytest.raises(TemporaryFailure, match="disk full"):
            await pool.send("a@shop.test", "b@shop.test", MAIL)
        mailbox.answer_to_mail = "554 5.7.1 looks like spam"
        with pytest.raises(PermanentFailure, match="spam") as failure:
            await pool.send("a@shop.test", "b@shop.test", MAIL)
        await pool.close()
    assert not failure.value.bounced
    assert mailbox.mails == []


async def test_no_server_is_temporary() -> None:
    async with mail_server(Mailbox()) as server:
        pass
    with pytest.raises(TemporaryFailure):
        await SmtpPool(server, 1).send("a@shop.test", "b@shop.test", MAIL)


async def test_a_connection_lost_before_the_dot_is_temporary() -> None:
    async def hang_up_at_data(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await envelope(reader, writer)

    async def hang_up_in_the_mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await envelope(reader, writer)
        writer.write(b"354 go on\r\n")
        await reader.readexactly(1000)

    large = b"Subject: hi\r\n\r\n" + b"x" * 70 * 1000 * 1000  # more than sockets hold, so that the dot is not written
    for script, mail in ((hang_up_at_data, MAIL), (hang_up_in_the_mail, large)):
        async with scripted_server(script) as server:
            pool = SmtpPool(server, 1)
            with pytest.raises(TemporaryFailure):
                await pool.send("a@shop.test", "b@shop.test", mail)
            await pool.close()


async def test_a_connection_lost_after_the_dot_is_unknown() -> None:
    async def hang_up_after_the_dot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await envelope(reader, writer)
        writer.write(b"354 go on\r\n")
        await reader.readuntil(b"\r\n.\r\n")

    async def talk_nonsense_after_the_dot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hang_up_after_the_dot(reader, writer)
        writer.write(b"hm\r\n")
        await reader.read()

    for script in (hang_up_after_the_dot, talk_nonsense_after_the_dot):
        async with scripted_server(script) as server:
            pool = SmtpPool(server, 1)
            with pytest.raises(UnknownOutcome):
                await pool.send("a@shop.test", "b@shop.test", MAIL)
            await pool.close()


async def test_a_server_that_never_answers_the_dot_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await envelope(reader, writer)
        writer.write(b"354 go on\r\n")
        await reader.read()

    monkeypatch.setattr("agents.channels.smtp.DATA_SECONDS", 0.1)
    async with scripted_server(say_nothing) as server:
        pool = SmtpPool(server, 1)
        with pytest.raises(UnknownOutcome):
            await pool.send("a@shop.test", "b@shop.test", MAIL)
        await pool.close()


async def test_421_closes_the_connection_and_is_temporary() -> None:
    async def too_busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"250 mail.test\r\n")
        await reader.readline()
        writer.write(b"421 4.3.2 going down\r\n")

    async with scripted_server(too_busy) as server:
        pool = SmtpPool(server, 1)
        with pytest.raises(TemporaryFailure, match="going down"):
            await pool.send("a@shop.test", "b@shop.test", MAIL)
        assert not pool._idle


async def test_starttls_and_login(tmp_path: Path) -> None:
    theirs, ours = certificate(tmp_path)
    mailbox = Mailbox()
    login = Login(b"ada", b"p@ss/word")
    async with mail_server(
        mailbox, tls_context=theirs, require_starttls=True, auth_required=True, authenticator=login
    ) as server:
        url = f"smtp://ada:p%40ss%2Fword@localhost:{server.port}"
        pool = SmtpPool(SmtpServer.parse(url), 1, ours)
        await pool.send("a@shop.test", "b@shop.test", MAIL)
        await pool.close()

        wrong = SmtpPool(replace(SmtpServer.parse(url), password="nope"), 1, ours)
        with pytest.raises(TemporaryFailure, match="535"):  # the operator mends it, and the mails go out
            await wrong.send("a@shop.test", "b@shop.test", MAIL)

        distrustful = SmtpPool(SmtpServer.parse(url), 1)  # does not know the certificate
        with pytest.raises(TemporaryFailure, match="certificate"):
            await distrustful.send("a@shop.test", "b@shop.test", MAIL)
    assert len(mailbox.mails) == 1


async def test_tls_from_the_start(tmp_path: Path) -> None:
    theirs, ours = certificate(tmp_path)
    mailbox = Mailbox()
    async with mail_server(mailbox, tls=theirs) as server:
        pool = SmtpPool(SmtpServer.parse(f"smtps://localhost:{server.port}"), 1, ours)
        await pool.send("a@shop.test", "b@shop.test", MAIL)
        await pool.close()
    assert len(mailbox.mails) == 1


async def test_a_password_is_not_sent_over_a_network_in_clear() -> None:
    assert SmtpServer.parse("smtp://ada:secret@mail.shop.test").start_tls is True
    assert SmtpServer.parse("smtp://ada:secret@localhost").start_tls is None
    assert SmtpServer.parse("smtp://mail.shop.test").start_tls is None
    assert SmtpServer.parse("smtp://ada:secret@mail.shop.test?starttls=never").start_tls is False


async def test_smtp_urls() -> None:
    server = SmtpServer.parse("smtp://a%40b:s%3Ac@mail.shop.test:2525")
    assert (server.host, server.port, server.username, server.password) == ("mail.shop.test", 2525, "a@b", "s:c")
    assert "s:c" not in repr(server)
    assert SmtpServer.parse("smtps://mail.shop.test").port == 465
    assert SmtpServer.parse("smtp://x:y@mail.shop.test").port == 587
    for wrong in ("http://x", "smtp://", "smtp://x:99999", "smtp://x?starttls=maybe"):
        with pytest.raises(ValueError, match="SMTP URL"):
            SmtpServer.parse(wrong)


async def test_letters_of_other_alphabets_need_a_server_that_takes_them() -> None:
    mailbox = Mailbox()
    async with mail_server(mailbox) as server:
        pool = SmtpPool(server, 1)
        await pool.send("a@shop.test", "jürgen@shop.test", MAIL)
        await pool.close()
    assert mailbox.recipients == ["jürgen@shop.test"]

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await envelope(reader, writer)

    async with scripted_server(plain) as server:
        pool = SmtpPool(server, 1)
        with pytest.raises(PermanentFailure, match="ASCII"):
            await pool.send("a@shop.test", "jürgen@shop.test", MAIL)
        await pool.close()
