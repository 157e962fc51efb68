"""The whole language on a real server: HTTP in, calls and mails out, quotas over users, operators at the command line."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from agents.demo.mailbox import Mailbox
from agents.server import Server, running
from engine.runtime import states
from engine.runtime.embedded.layout import partition_of
from engine.runtime.embedded.readonly import ReadOnlyLog
from engine.runtime.settings import Settings
from schemas.journal import read_entries
from schemas.outputs import JournalEntry
from schemas.state import User
from tests.agents.command import equeengage
from tests.agents.trial import post, with_key
from tests.agents.waiting import until

SCORING = """
from engine import (
    Branch, Call, Emit, Enter, Exit, Journey, Policy, Send, Throttle, Update, always, answer, api, minutes, on, value, where,
)

scoring = Journey(
    name="scoring", version=1, entry=on("order_placed"), key="order", reentry=always, start="ask",
    steps={{
        "ask": Call("{url}", body={{"who": value("profile.first_name"), "total": value("event.total")}}, then="note",
                    on_failed="failed", timeout=minutes(5)),
        "note": Update({{"score": value("answer.ask.score"), "order": value("event.order")}}, then="look"),
        "look": Branch([(answer("ask.score", ">=", 5), "turn")], otherwise="end"),
        "turn": Throttle(per_minute=120, then="tell"),
        "tell": Emit("scored", {{"score": value("answer.ask.score")}}, then="more"),
        "more": Enter("follow_up", {{"order": value("event.order")}}, then="end"),
        "failed": Exit("no score"),
        "end": Exit(),
    }},
)
praise = Journey(
    name="praise", version=1, entry=on("scored", where("score", ">=", 5)), start="mail",
    steps={{"mail": Send("email", template="praise", then="end"), "end": Exit()}},
)
follow_up = Journey(
    name="follow_up", version=1, entry=api(), key="order", reentry=always, start="mail",
    steps={{"mail": Send("email", template="follow_up", then="end"), "end": Exit()}},
)
policy = Policy(version=1)
"""


class Scores:
    """A system that scores customers: busy at first, then it says what it knows; the same id gets the same answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.busy = 1  # requests that are told to come back
        self.known = {"Ann": 7, "Bob": 9, "Eve": 2}

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append((request.headers["webhook-id"], body))
        if self.busy:
            self.busy -= 1
            return web.Response(status=503, text="busy")
        if body["who"] not in self.known:
            return web.Response(status=404, text="nobody of that name")
        return web.json_response({"score": self.known[body["who"]], "model": "m1"})


@pytest.fixture
async def scores() -> AsyncIterator[tuple[Scores, str]]:
    scores = Scores()
    app = web.Application()
    app.router.add_post("/score", scores.answer)
    server = TestServer(app)
    await server.start_server()
    yield scores, str(server.make_url("/score"))
    await server.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "journeys"
    (path / "templates").mkdir(parents=True)
    for name, text in (("praise", "Praise for {{ profile.score }}"), ("follow_up", "Order {{ event.order }}")):
        (path / "templates" / f"{name}.subject.txt").write_text(text)
        (path / "templates" / f"{name}.txt").write_text(text)
    return path


@pytest.fixture
async def server(
    tmp_path: Path, folder: Path, scores: tuple[Scores, str], mailbox: tuple[Mailbox, str]
) -> AsyncIterator[Server]:
    (folder / "scoring.py").write_text(SCORING.format(url=scores[1]))
    settings = Settings(
        data=tmp_path / "data", journeys=folder, port=0, write_keys={"default": [SecretStr("s3cret-key")]},
        smtp_url=SecretStr(mailbox[1]), allowed_webhook_hosts=["127.0.0.1"],
    )  # fmt: skip
    said: list[str] = []
    async with running(settings, said.append) as server:
        assert "policy    default: policy v1 is new" in said
        yield server


def journal(server: Server, user: str) -> list[JournalEntry]:
    key = f"default:{user}".encode()
    records = server.host.log.read("journal", key)
    return [entry for record in records if record.key == key for entry in read_entries(record.value)]


def exits(server: Server, user: str) -> dict[str, str]:
    return {entry.journey: entry.reason for entry in journal(server, user) if entry.kind == "exited"}


def an_order(user: str, name: str, order: str = "o-1") -> list[dict[str, object]]:
    return [
        {"type": "identify", "userId": user, "messageId": f"{user}-1",
         "traits": {"email": f"{user}@example.com", "first_name": name}},
        {"type": "track", "userId": user, "messageId": f"{user}-2", "event": "order_placed",
         "properties": {"order": order, "total": 12.5}},
    ]  # fmt: skip


async def test_an_answer_is_asked_for_until_it_comes_and_leads_the_run_on_through_the_language(
    server: Server, scores: tuple[Scores, str], mailbox: tuple[Mailbox, str]
) -> None:
    scored, _ = scores
    box, _ = mailbox
    async with aiohttp.ClientSession() as session:
        await post(session, server.url, *an_order("ann", "Ann"))
        await until(lambda: len(box.mails) == 2, "both mails")
    ids = [id for id, _ in scored.asked]
    assert len(ids) == 2
    assert ids[0] == ids[1]
    assert scored.asked[0][1] == {"id": ids[0], "who": "Ann", "total": 12.5}
    assert sorted(mail.subject for mail in box.mails) == ["Order o-1", "Praise for 7"]
    assert exits(server, "ann") == {"scoring": "done", "praise": "done", "follow_up": "done"}
    told = [entry for entry in journal(server, "ann") if entry.journey == "scoring"]
    assert [entry.step for entry in told if entry.kind == "step"] == [
        "ask", "note", "look", "turn", "tell", "more", "end",
    ]  # fmt: skip
    assert next(entry.detail for entry in told if entry.kind == "updated") == {"score": 7, "order": "o-1"}


async def test_turns_are_shared_by_users_of_all_partitions(server: Server, scores: tuple[Scores, str]) -> None:
    scores[0].busy = 0
    scores[0].known = {f"N{number}": 5 for number in range(5)}
    users = [f"user-{number}" for number in range(5)]
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(
            *(post(session, server.url, *an_order(user, f"N{number}")) for number, user in enumerate(users))
        )
        await until(lambda: all("follow_up" in exits(server, user) for user in users), "everybody's turn")
    entries = [entry for user in users for entry in journal(server, user)]
    turns = sorted(entry.at for entry in entries if (entry.kind, entry.step) == ("step", "tell"))
    first_asked_at = min(entry.at for entry in entries if (entry.kind, entry.step) == ("step", "turn"))
    assert len({partition_of(f"default:{user}".encode(), 4) for user in users}) > 1
    assert len(turns) == 5
    # Each at its own half second. The first is free at once, and goes on when the answer has come back.
    assert all(at - first_asked_at >= 499 * place for place, at in enumerate(turns)), (first_asked_at, turns)


async def test_a_refusal_leads_to_on_failed_and_a_low_score_to_the_end(
    server: Server, scores: tuple[Scores, str], mailbox: tuple[Mailbox, str]
) -> None:
    scores[0].busy = 0
    async with aiohttp.ClientSession() as session:
        await post(session, server.url, *an_order("mallory", "Mallory"), *an_order("eve", "Eve"))
        await until(lambda: exits(server, "mallory") and exits(server, "eve"), "both ends")
    assert exits(server, "mallory") == {"scoring": "no score"}
    assert exits(server, "eve") == {"scoring": "done"}
    receipts = [(entry.reason, entry.detail) for entry in journal(server, "mallory") if entry.kind == "receipt"]
    assert receipts == [("failed", {"channel": "call", "detail": "404 nobody of that name"})]


async def test_another_system_lets_users_in_once_for_each_id(server: Server, mailbox: tuple[Mailbox, str]) -> None:
    box, _ = mailbox
    async with aiohttp.ClientSession(server.url, headers=with_key("s3cret-key")) as session:
        await post(session, server.url, an_order("ann", "Ann")[0])
        for body in (
            {"userId": "ann", "id": "1", "properties": {"order": "o-1"}},
            {"userId": "ann", "id": "1", "properties": {"order": "o-2"}},
            {"userId": "ann", "id": "2", "properties": {"order": "o-3"}},
        ):
            async with session.post("/v1/journeys/follow_up/enter", json=body) as response:
                assert response.status == 200, await response.text()
        async with session.post("/v1/journeys/nowhere/enter", json={"userId": "ann"}) as response:
            assert response.status == 200
        await until(lambda: len(box.mails) == 2, "both mails")
    await until(lambda: any(entry.kind == "not_entered" for entry in journal(server, "ann")), "the fate of the last")
    assert sorted(mail.subject for mail in box.mails) == ["Order o-1", "Order o-3"]
    told = [(entry.kind, entry.reason) for entry in journal(server, "ann") if entry.kind in ("dropped", "not_entered")]
    assert told == [("dropped", "duplicate"), ("not_entered", "no such journey is active")]


async def test_operators_steer_journeys_beside_the_running_server(
    server: Server, folder: Path, mailbox: tuple[Mailbox, str]
) -> None:
    box, _ = mailbox
    data = server.settings.data

    async def operate(*arguments: object) -> str:
        result = await asyncio.to_thread(equeengage, *arguments, "--data", data)
        assert result.returncode == 0, result.stderr
        return result.stdout

    async def enter(id: str) -> None:
        async with (
            aiohttp.ClientSession(server.url, headers=with_key("s3cret-key")) as session,
            session.post(
                "/v1/journeys/follow_up/enter", json={"userId": "ann", "id": id, "properties": {"order": id}}
            ) as response,
        ):
            assert response.status == 200

    def reasons(kind: str) -> list[str]:
        return [entry.reason for entry in journal(server, "ann") if entry.kind == kind]

    async with aiohttp.ClientSession() as session:
        await post(session, server.url, an_order("ann", "Ann")[0])
    assert "follow_up is paused" in await operate("journey", "pause", "follow_up")
    await enter("a")
    await until(lambda: reasons("not_entered") == ["the journey is paused"], "the pause")
    assert "paused since" in await operate("journey", "list")
    assert "follow_up is resumed" in await operate("journey", "resume", "follow_up")
    module = folder / "scoring.py"
    module.write_text(
        module.read_text().replace('name="follow_up", version=1', 'name="follow_up", version=2, description="new"')
    )
    published = await operate("publish", "--journeys", folder)
    assert "follow_up v2 replaces v1; runs in v1 finish there\n    description: has other words\n" in published
    assert "follow_up v1 is current, instead of v2" in await operate("journey", "rollback", "follow_up", 1)
    assert "follow_up v2 is not made current again: v1 is" in await operate("publish", "--journeys", folder)
    await enter("b")
    await until(lambda: len(box.mails) == 1, "the mail")
    assert [entry.version for entry in journal(server, "ann") if entry.kind == "entered"] == [1]
    listed = [msgspec.json.decode(line) for line in (await operate("journey", "list", "--json")).splitlines()]
    [told] = [each for each in listed if each["name"] == "follow_up"]
    assert (told["version"], told["state"], told["versions"]) == (1, "running", [1, 2])
    assert [each["kind"] for each in listed].count("policy") == 1

    assert "is to be forgotten" in await operate("erase", "ann", "--yes")
    await until(lambda: state_of("ann", data) == User(erased=True), "the erasure")
    await enter("c")
    ann = server.host.log.partition("events", partition_of(b"default:ann", 4))
    await until(lambda: ann.unfolded_records() == 0, "everything is folded")
    assert state_of("ann", data) == User(erased=True)
    assert len(box.mails) == 1


def state_of(user: str, data: Path) -> User | None:
    key = f"default:{user}".encode()
    with ReadOnlyLog.open(data) as log:
        _, found = log.folded("events", log.partition_of(key))
        raw = found.get(states.USER + key)
    return None if raw is None else states.decode_user(raw)
