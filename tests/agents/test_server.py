"""That the embedded server keeps its word from start to stop to start: over HTTP in, over SMTP out."""

import asyncio
import contextlib
import re
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from pydantic import SecretStr

from agents.admin import FILE, servers_log
from agents.demo.mailbox import Mailbox, links_in
from agents.server import Server, ServerFailed, running
from engine.errors import JourneyError
from engine.runtime.host import PartitionStopped
from engine.runtime.settings import Settings
from schemas.inputs import Event
from schemas.records import NewRecord
from tests.agents.command import PATIENCE_SECONDS, equeengage, serving
from tests.agents.trial import IDENTIFY, TRIAL, post, with_key, write_journey
from tests.agents.waiting import until


def subjects(box: Mailbox) -> list[str]:
    return [mail.subject for mail in box.mails]


async def test_a_mail_a_restart_and_a_click_that_moves_the_journey_on(
    tmp_path: Path, journeys: Path, mailbox: tuple[Mailbox, str]
) -> None:
    box, smtp_url = mailbox
    data = tmp_path / "data"
    settings = {"EQUEENGAGE_WRITE_KEYS": "default:s3cret-key", "EQUEENGAGE_SMTP_URL": smtp_url}
    async with aiohttp.ClientSession() as session:
        with serving(tmp_path, "--data", data, "--port", 0, "--journeys", journeys, **settings) as first:
            assert "default: trial v1 is new" in first.said
            assert "s3cret-key" not in first.said
            await post(session, first.url, IDENTIFY, TRIAL)
            await until(lambda: box.mails, "the first mail")
            port = first.url.rpartition(":")[2]
            assert await asyncio.to_thread(first.stop, signal.SIGTERM) == 0
            assert first.said.endswith("stopped; everything is on the disk\n")

        message = box.open(1)
        assert message is not None
        with serving(tmp_path, "--data", data, "--port", port, "--journeys", journeys, **settings) as second:
            assert "default: trial v1 is unchanged" in second.said
            await post(session, second.url, TRIAL)  # the SDK did not get our answer and repeats itself
            link = links_in(message)[0]
            async with session.get(link, allow_redirects=False) as response:
                assert response.status == 302
                assert response.headers["Location"] == "https://shop.example/hello"
            await until(lambda: len(box.mails) == 2, "the second mail")
            await asyncio.to_thread(second.stop)

        with serving(tmp_path, "--data", data, "--port", 0, "--journeys", journeys, **settings) as third:
            await asyncio.to_thread(third.stop)
    assert subjects(box) == ["Hello", "Thanks"]

    story = equeengage("trace", "ann", "--data", data)
    assert [line[10:].replace("Trial v1", "").strip() for line in story.stdout.splitlines() if "Trial v1" in line] == [
        "entered, because trial_started happened",
        "email 'hello' asked for → accepted → clicked",
        "waits up to 30 days for: hello clicked",
        "goes on, because the message was clicked",
        "waits 2 seconds",
        "goes on, because the wait was over",
        "email 'thanks' asked for → accepted",
        "left",
    ]
    entries = equeengage("trace", "ann", "--data", data, "--json").stdout.splitlines()
    assert msgspec.json.decode(entries[0])["kind"] == "entered"


async def test_a_write_key_is_made_once_kept_privately_and_printed(tmp_path: Path, journeys: Path) -> None:
    data = tmp_path / "data"
    keys = []
    for _ in range(2):
        with serving(tmp_path, "--data", data, "--port", 0, "--journeys", journeys) as server:
            found = re.search(r"write key (\S+)", server.said)
            assert found
            keys.append(found[1])
            async with (
                aiohttp.ClientSession(headers=with_key(found[1])) as session,
                session.post(f"{server.url}/v1/track", json=TRIAL) as response,
            ):
                assert response.status == 200
            assert stat.S_IMODE((data / FILE).stat().st_mode) == 0o600
            assert await asyncio.to_thread(server.stop) == 0
    assert keys[0] == keys[1] == (data / "write-key").read_text()
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for name in ("write-key", "link-secret"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600
    assert not (data / FILE).exists()


async def test_a_new_version_is_published_beside_the_running_server_and_without_one(
    tmp_path: Path, journeys: Path
) -> None:
    data = tmp_path / "data"
    arguments = ("--data", data, "--journeys", journeys)
    assert "published 1 journey to the data folder" in equeengage("publish", *arguments).stdout
    with serving(tmp_path, *arguments, "--port", 0) as server:
        assert "trial v1 is unchanged" in server.said
        write_journey(journeys, version=2)
        assert "would publish 1 journey" in equeengage("publish", *arguments, "--dry-run").stdout
        beside = equeengage("publish", *arguments)
        assert "trial v2 replaces v1" in beside.stdout
        assert "published 1 journey to the server" in beside.stdout
        assert "published nothing" in equeengage("publish", *arguments).stdout
        assert equeengage("send", "ann", "trial_started", "--data", data, "-p", "email=ann@example.com").returncode == 0
        await until(lambda: "Trial v2" in equeengage("trace", "ann", "--data", data).stdout, "a run in the new version")
        assert await asyncio.to_thread(server.stop) == 0


def test_journeys_are_steered_without_a_server_too(tmp_path: Path, journeys: Path) -> None:
    data = tmp_path / "data"

    def operate(*arguments: object) -> str:
        result = equeengage(*arguments, "--data", data)
        assert result.returncode == 0, result.stderr
        return " ".join(result.stdout.split())

    operate("publish", "--journeys", journeys)
    assert "trial is retired: nobody enters, and runs finish; appended through the data folder" in operate(
        "journey", "retire", "trial"
    )
    assert operate("journey", "retire", "trial").startswith("default: trial is retired already, since ")
    assert "it is retired since" in operate("publish", "--journeys", journeys)
    assert "trial v1 is open again" in operate("journey", "rollback", "trial", 1)
    assert "running" in operate("journey", "list")
    wrong = equeengage("journey", "rollback", "trial", 7, "--data", data)
    assert "trial v7 was never published; there are v1" in wrong.stderr


async def test_a_published_version_that_was_changed_keeps_the_server_from_starting(
    tmp_path: Path, journeys: Path
) -> None:
    data = tmp_path / "data"
    assert equeengage("publish", "--data", data, "--journeys", journeys).returncode == 0
    (journeys / "templates" / "hello.subject.txt").write_text("Something else")
    result = equeengage("serve", "--data", data, "--journeys", journeys, "--port", 0)
    assert result.returncode == 1
    assert "has changed since (the template 'hello')" in result.stderr
    assert "version=2" in result.stderr


async def test_a_second_server_on_the_same_data_is_refused_in_one_line(tmp_path: Path, journeys: Path) -> None:
    arguments = ("--data", tmp_path / "data", "--journeys", journeys, "--port", 0)
    with serving(tmp_path, *arguments) as server:
        second = equeengage("serve", *arguments)
        assert second.returncode == 1
        assert len(second.stderr.strip().splitlines()) == 1, second.stderr
        assert str(tmp_path / "data") in second.stderr
        assert equeengage("publish", *arguments[:4]).returncode == 0, "the first one still has its door"
        assert await asyncio.to_thread(server.stop) == 0


def told_about(user: str, data: Path) -> str:
    """Return a user's story without the breaks between lines."""
    return " ".join(equeengage("trace", user, "--data", data).stdout.split())


@contextlib.asynccontextmanager
async def silent_mail_server() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A mail server that takes a mail and never says whether it has; yields its URL, and when it was given one."""
    given, let_go = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 silent\r\n")
        while not (line := await reader.readline()).startswith(b"DATA"):
            if not line:
                return
            writer.write(b"250 fine\r\n")
        writer.write(b"354 go on\r\n")
        await reader.readuntil(b"\r\n.\r\n")
        given.set()
        await let_go.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with server:
        yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}", given
        let_go.set()


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_mail_server_that_never_answers_holds_nobody_up(tmp_path: Path, journeys: Path, signals: int) -> None:
    data = tmp_path / "data"
    async with silent_mail_server() as (smtp_url, given), aiohttp.ClientSession() as session:
        settings = {"EQUEENGAGE_WRITE_KEYS": "default:s3cret-key", "EQUEENGAGE_SMTP_URL": smtp_url}
        with serving(tmp_path, "--data", data, "--port", 0, "--journeys", journeys, **settings) as server:
            await post(session, server.url, IDENTIFY, TRIAL)
            await until(given.is_set, "a mail under way")
            server.process.send_signal(signal.SIGINT)
            if signals == 2:  # whoever can't wait
                await until(lambda: "stopping" in server.said, "it to begin stopping")
                assert await asyncio.to_thread(server.stop) == 130
                assert server.said.endswith("equeengage: stopped\n")
            else:
                assert await asyncio.to_thread(server.process.wait, PATIENCE_SECONDS) == 0, server.said
    with serving(tmp_path, "--data", data, "--port", 0, "--journeys", journeys) as server:
        await until(lambda: "unknown: it may have arrived" in told_about("ann", data), "the fate of the mail")
        assert await asyncio.to_thread(server.stop) == 0


async def test_a_server_that_was_killed_leaves_nothing_in_the_way(tmp_path: Path, journeys: Path) -> None:
    arguments = ("--data", tmp_path / "data", "--journeys", journeys)
    with serving(tmp_path, *arguments, "--port", 0) as server:
        assert await asyncio.to_thread(server.stop, signal.SIGKILL) == -signal.SIGKILL
    assert (tmp_path / "data" / FILE).exists()
    assert "to the data folder" in equeengage("publish", *arguments).stdout
    with serving(tmp_path, *arguments, "--port", 0) as server:
        assert await asyncio.to_thread(server.stop) == 0


def settings_for(tmp_path: Path, journeys: Path) -> Settings:
    return Settings(
        data=tmp_path / "data",
        journeys=journeys,
        port=0,
        write_keys={"default": [SecretStr("s3cret-key")]},
        partitions=2,
    )


def say_nothing(line: str) -> None: ...


@pytest.fixture
async def server(tmp_path: Path, journeys: Path) -> AsyncIterator[Server]:
    async with running(settings_for(tmp_path, journeys), say_nothing) as server:
        yield server


async def test_it_is_ready_and_says_why_when_it_is_not(server: Server) -> None:
    async with aiohttp.ClientSession(server.url) as session:
        async with session.get("/readyz") as response:
            assert (response.status, (await response.json())["waiting_for"]) == (200, [])
        server.host.stopped["events", 1] = "k was activated with a wrong hash; publish it again"
        async with session.get("/readyz") as response:
            assert response.status == 503
            assert (await response.json())["waiting_for"] == [
                "partition 1 of events stands still: k was activated with a wrong hash; publish it again"
            ]


async def test_a_disk_that_fails_ends_the_server_with_an_explanation(tmp_path: Path, journeys: Path) -> None:
    async with running(settings_for(tmp_path, journeys), say_nothing) as server:
        serving_it = asyncio.create_task(server.until(asyncio.Event()))
        server.host.log._sync.fail(PartitionStopped("no space left on device"))  # as its thread would
        with pytest.raises(ServerFailed, match="no space left on device"):
            await asyncio.wait_for(serving_it, 10)
        assert any("no space left" in reason for reason in server.waits_for())


async def test_a_broken_folder_keeps_the_server_from_starting_and_leaves_no_trace(
    tmp_path: Path, journeys: Path
) -> None:
    (journeys / "broken.py").write_text("from engine import Journy\n")
    with pytest.raises(JourneyError, match=r"broken\.py:1"):
        async with running(settings_for(tmp_path, journeys), say_nothing):
            pass
    assert not (tmp_path / "data").exists()


async def test_everything_accepted_is_folded_before_it_stops(tmp_path: Path, journeys: Path) -> None:
    settings = settings_for(tmp_path, journeys)
    async with running(settings, say_nothing) as server:
        value = msgspec.json.encode(Event("m", "trial_started", 0, {"n": 1}))
        await server.host.log.append([NewRecord("events", f"default:u{n}".encode(), value) for n in range(3000)])
    async with running(settings, say_nothing) as server:
        partitions = [server.host.log.partition("events", number) for number in range(2)]
        assert sum(partition.position + 1 for partition in partitions) == sum(partition.end for partition in partitions)


async def test_the_door_opens_for_the_token_only(server: Server) -> None:
    async with servers_log(server.settings.data) as log:
        assert log is not None
        assert [definition.name for definition in log.all() if definition.kind == "journey"] == ["trial"]
        assert log.partitions("events") == 2
        address = msgspec.json.decode((server.settings.data / FILE).read_bytes())
    async with aiohttp.ClientSession(address["url"]) as session:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer ü"}):
            async with session.get("/definitions", headers=headers) as response:
                assert response.status == 401
        good = {"Authorization": f"Bearer {address['token']}"}
        async with session.post("/append", data=b"[1]", headers=good) as response:
            assert response.status == 400


async def test_no_server_no_door(tmp_path: Path) -> None:
    async with servers_log(tmp_path) as log:
        assert log is None
    (tmp_path / FILE).write_text("not json")
    async with servers_log(tmp_path) as log:
        assert log is None
