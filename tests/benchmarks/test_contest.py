"""What the contest may call right: one plain fold, and every contender in Python agrees with it; how failures are shown."""

from argparse import Namespace
from collections import Counter
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from aiokafka.structs import ConsumerRecord

from benchmarks.contenders import bare, results, run, steps
from benchmarks.contenders.expected import Command, Fold
from benchmarks.contenders.work import BEGIN_AT, DAY, Given, events, journey
from engine.actor import NOBODY, handle
from engine.catalog import Catalog
from schemas.inputs import Event
from schemas.state import User

EVENTS, USERS = 4_000, 1_000


@pytest.fixture(scope="module")
def given() -> list[Given]:
    return list(events(EVENTS, USERS, days=5))


@pytest.fixture(scope="module")
def expected(given: list[Given]) -> Counter[Command]:
    fold = Fold()
    fold.feed(given)
    return fold.commands


def test_the_events_are_those_that_the_page_describes(given: list[Given], expected: Counter[Command]) -> None:
    ids = Counter(msgspec.json.decode(each.value)["id"] for each in given)
    assert len(given) == EVENTS
    assert given == list(events(EVENTS, USERS, days=5))
    assert all(before.at <= after.at for before, after in pairwise(given))
    assert 0.01 < sum(1 for times in ids.values() if times > 1) / EVENTS < 0.03
    assert 340 < sum(len(each.value) for each in given) / EVENTS < 380
    assert 0.05 < expected.total() / EVENTS < 0.15
    assert {command.template for command in expected} == {"thanks", "thanks_gold"}
    assert max(expected.values()) == 1


def test_some_waits_end_and_some_users_come_back_too_soon(given: list[Given], expected: Counter[Command]) -> None:
    carts = sum(b'"name":"cart"' in each.value for each in given)
    assert carts > expected.total() * 1.2
    users = Counter(command.user for command in expected)
    assert max(users.values()) <= 5, "at most one a day"
    assert sum(times > 1 for times in users.values()) > 10


def test_the_engine_asks_for_what_the_plain_fold_asks_for(given: list[Given], expected: Counter[Command]) -> None:
    catalogs: dict[str, Catalog] = {}
    users: dict[bytes, User] = {}
    found: Counter[Command] = Counter()
    for at, key, value in given:
        tenant, _, name = key.decode().partition(":")
        catalog = catalogs.setdefault(tenant, Catalog().activate(tenant, journey, BEGIN_AT))
        handled = handle(catalog, tenant, name, users.get(key, NOBODY), msgspec.json.decode(value, type=Event), at)
        users[key] = handled.user
        found.update(Command(key.decode(), message.template, message.requested_at) for message in handled.messages)
    assert found == expected


def test_the_steps_of_the_python_peers_ask_for_the_same(given: list[Given], expected: Counter[Command]) -> None:
    users: dict[bytes, steps.State] = {}
    found: Counter[Command] = Counter()
    for at, key, value in given:
        _, asked = steps.step(users.setdefault(key, steps.new_user()), msgspec.json.decode(value), key.decode(), at)
        if asked is not None:
            found[Command(f"{asked['tenant']}:{asked['user']}", asked["template"], asked["requested_at"])] += 1
    assert found == expected


@pytest.mark.parametrize("size", [1, 7, EVENTS])
async def test_the_bare_loop_asks_for_the_same_however_its_batches_fall(
    given: list[Given], expected: Counter[Command], size: int, tmp_path: Path
) -> None:
    place = Namespace(app="bare", commands="commands", data=tmp_path, bootstrap="127.0.0.1:9")
    partition = bare.Partition(0, place)
    found: Counter[Command] = Counter()
    for first in range(0, EVENTS, size):
        states, commands = partition.fold(
            [_record(first + at, each) for at, each in enumerate(given[first : first + size])]
        )
        for key, state in states.items():
            partition.db.put(key, state)
        for key, value in commands:
            asked = msgspec.json.decode(value)
            found[Command(key.decode(), asked["template"], asked["requested_at"])] += 1
    partition.db.close()
    await partition.producer.stop()  # it was never started, and still has to be told
    assert found == expected


def _record(offset: int, given: Given) -> ConsumerRecord:
    return ConsumerRecord("events", 0, offset, given.at, 0, given.key, given.value, None, 0, 0, ())


def test_a_repeat_counts_once_and_a_wait_ends_after_half_an_hour() -> None:
    def at(minute: int, id: str, name: str) -> Given:
        value = {"type": "event", "id": id, "name": name, "profile": {"tier": "silver"}}
        return Given(BEGIN_AT + minute * 60_000, b"shop:ann", msgspec.json.encode(value))

    fold = Fold()
    fold.feed([at(0, "a", "cart"), at(29, "b", "order"), at(29, "b", "order")])
    assert list(fold.commands) == [Command("shop:ann", "thanks", BEGIN_AT + 29 * 60_000)]
    fold.feed([at(60, "c", "cart"), at(61, "d", "order")])  # within 24 hours of the last entry
    assert fold.commands.total() == 1
    tomorrow = DAY // 60_000
    fold.feed([at(tomorrow, "e", "cart"), at(tomorrow + 30, "f", "order")])
    assert fold.commands.total() == 1
    fold.feed([at(2 * tomorrow, "g", "cart"), at(2 * tomorrow + 29, "h", "order")])
    assert fold.commands.total() == 2
    assert fold.causes[Command("shop:ann", "thanks", BEGIN_AT + (2 * tomorrow + 29) * 60_000)] == "h"


def test_it_is_said_what_is_wrong_with_commands() -> None:
    one, two, three = (Command(f"shop:{name}", "thanks", 1) for name in ("ann", "bob", "cy"))
    run.compare(Counter([one, two]), Counter([two, one]))
    with pytest.raises(run.Failed, match="2 commands: 1 lost, 2 doubled, 1 phantom"):
        run.compare(Counter([one, one, one, three]), Counter([one, two]))


def test_who_fails_has_no_number_in_the_table_and_a_reason() -> None:
    figures = dict.fromkeys(results.COLUMNS, 12.5)
    ranges = {name: [12.0, 13.0] for name in figures}
    good = {"contender": "ours", "mode": "exactly-once", "events": 1000, "verified": True, **figures, "ranges": ranges}
    good["latency"] = [{"load": "1,000 ev/s", "rate_per_second": 1000, "reason": "it fell behind"}]
    bad = {"contender": "other", "mode": "once", "events": 1000, "verified": False, "reason": "3 lost"}
    lines = results.table([bad, good]).splitlines()
    assert lines[2].startswith("| ours (exactly-once) | 12.5 (12 - 13) |")
    assert lines[3].startswith("| other: no number, 3 lost |")
    assert "| ours | 1,000 ev/s | it fell behind |" in results.latencies([bad, good])


def test_what_is_not_reached_is_said_and_who_does_better() -> None:
    def row(name: str, cpu: float, memory: float) -> results.Row:
        return {"contender": name, "verified": True, "cpu_us_per_event": cpu, "rss_mb": memory}

    rows = [{**row("ours", 20, 200), "p99_ms": 90}, row("bare", 8, 150), row("quick", 16, 300), row("slow", 60, 100)]
    said = results.aims(rows).splitlines()[2:]
    assert said == [
        "| CPU <= 15 us per event | 20 us | **no** |",
        "| less CPU per event than every peer | less or as much: quick 16 us | **no** |",
        "| less memory than every peer | less or as much: slow 100 MB | **no** |",
        "| CPU of the bare loop >= 0.6 of ours | 0.40 | **no** |",
        "| p99 <= 100 ms at 1,000 ev/s | 90 ms | yes |",
    ]
    assert results.aims(rows[1:]) == ""
