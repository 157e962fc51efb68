"""That `equeengage explain` tells what happened in the host, says from when on it knows, and is readable."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agents.cli.program import run
from agents.explain.histories import History, from_log
from agents.explain.telling import agrees, document, show
from engine import Branch, Delay, Exit, Journey, Send, WaitFor, always, days, hours, on, profile, receipt, where
from engine.explain import Explanation, explain
from engine.runtime.embedded.readonly import ReadOnlyLog
from schemas.inputs import Receipt
from schemas.journal import read_entries
from schemas.outputs import JournalEntry
from tests.agents.command import equeengage
from tests.agents.hosted import BEGIN, TENANT, hosted

EXAMPLES = Path(__file__).parents[2] / "journeys"

cart = Journey(
    name="cart", version=1, entry=on("cart_updated", where("items", ">", 0)), reentry=always,
    exit_on=on("order_placed", where("total", ">=", 10)), goal=on("order_placed", within=days(3)), start="pause",
    steps={
        "pause": Delay(hours(1), then="remind"),
        "remind": Send("inapp", template="cart_reminder", then="answer"),
        "answer": WaitFor(receipt("remind", "clicked"), timeout=days(1), then="end", on_timeout="tier"),
        "tier": Branch([(profile("tier", "==", "gold"), "gift")], otherwise="end"),
        "gift": Send("inapp", template="gift", then="end"),
        "end": Exit(),
    },
)  # fmt: skip


def explained(
    folder: Path, user: str, journey: str = "cart", until_at: int | None = None
) -> tuple[Explanation, History]:
    with ReadOnlyLog.open(folder) as log:
        history = from_log(log, TENANT, user, lambda by: None)
        told = explain(TENANT, user, journey, history.happenings, catalog=history.catalog, until_at=until_at)
    return told, history


def journal(folder: Path, user: str) -> Iterator[JournalEntry]:
    key = f"{TENANT}:{user}".encode()
    with ReadOnlyLog.open(folder) as log:
        for record in log.read("journal", key):
            if record.key == key:
                yield from read_entries(record.value)


def told_by(explanation: Explanation, history: History) -> str:
    screen = io.StringIO()
    show(Console(file=screen, width=200), explanation, history, UTC)
    return screen.getvalue()


async def live(folder: Path) -> None:
    """Three days of ada: a cart, a version that asks for more, a pause, an order."""
    async with hosted(folder) as host:
        await host.publish(cart)
        await host.event("ada", "visited")
        await host.event("ada", "cart_updated", items=0)
        await host.event("ada", "cart_updated", {"tier": "silver"}, items=2)
        await host.event("ben", "cart_updated", items=2)
        await host.wait(hours(2))
        run = next(entry.run for entry in journal(folder, "ada") if entry.kind == "entered")
        await host.give("ada", Receipt(f"{run}:2", "opened", host.now, "inapp"))
        await host.wait(days(2))
        await host.publish(replace(cart, version=2, entry=on("cart_updated", where("items", ">", 5))))
        await host.event("ada", "cart_updated", items=3)
        await host.event("ada", "cart_updated", items=9)
        await host.control("cart", "pause")
        await host.wait(hours(5))
        await host.control("cart", "resume")
        await host.wait(hours(3))
        await host.event("ada", "order_placed", total=5)
        await host.event("ada", "order_placed", total=50)


async def test_a_shadow_is_no_part_of_an_explanation(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host:
        await host.publish(cart)
        await host.shadow(replace(cart, version=2, entry=on("cart_updated"), moves={"pause": "remind"}))
        await host.event("ada", "cart_updated", items=0)
        await host.event("ada", "cart_updated", items=2)
        await host.wait(hours(2))
    explanation, history = explained(tmp_path, "ada")
    assert agrees(explanation, history) is True
    told = [entry for moment in explanation.moments for entry in moment.journal]
    assert told == [entry for entry in journal(tmp_path, "ada") if not entry.shadow]
    assert [entry.version for entry in journal(tmp_path, "ada") if entry.kind == "entered"] == [2, 1]


async def test_an_explanation_tells_the_very_journal_of_the_host_and_comes_to_its_state(tmp_path: Path) -> None:
    await live(tmp_path)
    explanation, history = explained(tmp_path, "ada")
    assert history.is_whole
    assert agrees(explanation, history) is True
    assert [entry for moment in explanation.moments for entry in moment.journal] == list(journal(tmp_path, "ada"))
    looks = [(look.place, look.version, look.judged.holds) for moment in explanation.moments for look in moment.looks]
    assert [look for look in looks if look[0] == "entry"] == [
        ("entry", 1, False), ("entry", 1, True), ("entry", 2, False), ("entry", 2, True),
    ]  # fmt: skip
    assert ("tier", 1, False) in looks
    assert ("exit_on", 2, True) in looks
    assert explanation.passed_over["visited"] == 1
    text = told_by(explanation, history)
    for said in (
        "✗ items > 0   saw 0",
        "with `items > 0` the other way round (it saw 0) they would have entered",
        "✗ 'tier': profile.tier == 'gold'   saw 'silver'",
        "they would have gone another way",
        "its exit condition (`order_placed and total >= 10`) held, because order_placed happened",
        "Known from 2026-01-05 08:00:00 on, the first record of the log",
    ):
        assert said in text, said
    assert "another state" not in text


async def test_the_answer_as_of_a_time_says_where_the_run_stood_then(tmp_path: Path) -> None:
    await live(tmp_path)
    explanation, history = explained(tmp_path, "ada", until_at=BEGIN + 3 * 3_600_000)
    text = told_by(explanation, replace(history, kept=None))
    assert "In it since 2026-01-05 08:00:00, in version 1." in text
    assert "At 'answer' since 2026-01-05 09:00:00: wait up to 1 day for remind clicked" in text
    before, history = explained(tmp_path, "ada", until_at=BEGIN - 1)
    assert before.moments == []


async def test_a_log_that_has_forgotten_says_so_and_still_explains_what_it_holds(tmp_path: Path) -> None:
    async with hosted(tmp_path, retention=timedelta(days=2)) as host:
        await host.publish(cart)
        await host.event("ada", "cart_updated", items=2)
        await host.wait(days(5))
        for user in ("ada", "ben", "cy", "dee"):
            await host.event(user, "visited")
        host.host.forget()
        await host.event("ada", "cart_updated", items=0)
        await host.event("ada", "cart_updated", items=1)
    explanation, history = explained(tmp_path, "ada")
    assert not history.is_whole
    assert (history.known_from_at or 0) > BEGIN
    assert [look.judged.holds for moment in explanation.moments for look in moment.looks] == [False, True]
    text = told_by(explanation, history)
    assert "what the log held before is beyond its retention" in text
    assert "its beginning is forgotten" in text


async def test_beside_a_running_host_the_command_explains_in_words_and_as_json(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host:
        await host.publish(cart)
        await host.event("ada", "cart_updated", items=0)
        said = equeengage("explain", "ada", "cart", "--data", tmp_path, "--utc")
        assert said.returncode == 0, said.stderr
        assert "Never entered. Considered once" in said.stdout
        told = json.loads(equeengage("explain", "ada", "cart", "--data", tmp_path, "--json").stdout)
        assert told["agrees_with_the_host"] is True
        assert told["moments"][0]["looks"][0]["flips"] == [
            {"text": "items > 0", "saw": "0", "is_enough": True, "otherwise": ""}
        ]
        near = equeengage("explain", "ada", "cards", "--data", tmp_path)
        assert near.returncode == 1
        assert "there is no journey 'cards'; did you mean 'cart'?" in near.stderr


async def test_a_data_folder_is_a_recording_for_backtests_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The version that ran, played anew, does what it did; what its runs were answered is left out and counted."""
    data, report = tmp_path / "data", tmp_path / "report.json"
    data.mkdir()
    await live(data)
    assert run(["backtest", "cart@1", "cart@2", "--events", str(data), "--json", str(report)]) == 0
    told = json.loads(report.read_text())
    assert told["inputs"] == 8
    assert told["left_out"]["receipt opened"] == 1
    assert told["old"]["not_entered"] == {"already in it": 1}
    assert (told["old"]["entered"], told["new"]["entered"]) == (3, 1)
    assert told["differences"][0]["kind"] == "only_old"
    assert (
        "Recorded receipts answer messages that aren't sent here" not in capsys.readouterr().out
    )  # none was delivered


# A recorded file


def recorded(tmp_path: Path, *events: dict[str, Any]) -> list[str]:
    file = tmp_path / "events.ndjson"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    return ["--events", str(file), "--journeys", str(EXAMPLES), "--utc"]


def test_a_recorded_file_is_explained_with_the_journeys_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    event = {"user": "ada", "name": "cart_updated", "occurred_at": BEGIN, "properties": {"items": 2}}
    where = recorded(
        tmp_path, event, {**event, "properties": {"items": 2, "cart_id": "c1"}, "occurred_at": BEGIN + 1000}
    )
    assert run(["explain", "ada", "cart_abandonment", *where, "--at", "2026-01-05T10:00Z"]) == 0
    said = capsys.readouterr().out
    assert "not entered: the event has no cart_id" in said
    assert "In it (for c1) since 2026-01-05 08:00:01, in version 3." in said
    assert "kept back: no address for email" in said


def test_somebody_of_whom_nothing_came_and_what_came_of_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = recorded(tmp_path, *({"user": "ada", "name": "page", "occurred_at": BEGIN + n} for n in range(3)))
    assert run(["explain", "ada", "welcome", *where]) == 0
    said = capsys.readouterr().out
    assert "Never entered, and never considered." in said
    assert "It begins with `signed_up`, and nothing of that kind came." in said
    assert "What came: page (3)." in said
    assert run(["explain", "ben", "welcome", *where]) == 0
    assert "Nothing at all came about this user." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["welcom", "--at", "soon"], "--at: 'soon' is not a time"),
        (["welcom"], "there is no journey 'welcom'; did you mean 'welcome'?"),
        (["welcome", "--format", "xml"], "--format: 'xml' is none of"),
    ],
)
def test_misuse_is_told_in_one_line(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = recorded(tmp_path, {"user": "ada", "name": "page", "occurred_at": BEGIN})
    assert run(["explain", "ada", *arguments, *where]) in (1, 2)
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert complaint in error


def test_a_missing_data_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "ada", "welcome", "--data", str(tmp_path / "none")]) == 1
    assert "there is no data folder" in capsys.readouterr().err


def test_the_document_is_json_with_everything_that_was_seen(tmp_path: Path) -> None:
    from engine.catalog import Catalog

    told = explain("t", "ada", "cart", [], catalog=Catalog().activate("t", cart), alone=True)
    read = json.loads(document(told, History([], Catalog(), None, True, False)))
    assert read["answer"][0] == "Never entered, and never considered."
    assert read["moments"] == []
