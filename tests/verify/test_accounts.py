"""Runs and links are accounted for without the engine: who loses or doubles one in a merge is found out."""

from collections.abc import Callable

import msgspec
import pytest

from engine.runtime import states
from schemas.inputs import Event
from tests.runtime.stage import Stage
from tests.runtime.trial_journeys import basket, greeting
from tests.verify.accounts import links_row, runs_row
from tests.verify.comparison import verify
from tests.verify.evidence import Evidence
from tests.verify.rows import Fault
from tests.verify.test_comparison import evidence_of


async def merged() -> Evidence:
    """Two devices fill a basket and log in as Ada; Ben wants one of them, too."""
    stage = Stage()
    for journey in (greeting(), basket()):
        stage.publish(journey)
    for device in ("phone", "desk"):
        stage.event(device, "basket_filled", basket=device)
    stage.event("ada", "signed_up")
    await stage.play()
    for user, device in (("ada", "phone"), ("ada", "desk"), ("ben", "desk")):
        stage.give(user, Event(f"{user} {device}", "identify", stage.log.now, {}, {}, (device,)))
        stage.event(device, "bought", basket=device, total=20)
    await stage.play()
    stage.event("phone", "basket_filled", basket="again")
    await stage.play()
    return evidence_of(stage)


async def test_what_was_merged_is_found_to_be_right() -> None:
    evidence = await merged()
    verdict = verify(evidence)
    assert verdict.is_clean, verdict.table()
    rows = {row.name: row for row in verdict.rows}
    assert rows["links"].expected == 3
    assert rows["runs"].expected >= 4


def drop_an_answer(evidence: Evidence) -> None:
    events = evidence.events[0]
    events.remove(next(each for each in events if (each.value or b"").startswith(b'{"type":"absorbed"')))


def double_an_answer(evidence: Evidence) -> None:
    events = evidence.events[0]
    events.append(next(each for each in events if (each.value or b"").startswith(b'{"type":"absorbed"')))


def leave_the_users_runs_with_the_device(evidence: Evidence) -> None:
    """As if the device had handed over what it has, and kept it."""
    raw = states_of(evidence)[states.USER + b"shop:ada"]
    give(evidence, b"shop:phone", states.decode_user(raw).runs)


def lose_the_users_runs(evidence: Evidence) -> None:
    give(evidence, b"shop:ada", ())


def states_of(evidence: Evidence) -> dict[bytes, bytes]:
    return {record.key or b"": record.value or b"" for record in evidence.changelog[0]}


def give(evidence: Evidence, actor: bytes, runs: object) -> None:
    key = states.USER + actor
    user = msgspec.structs.replace(states.decode_user(states_of(evidence)[key]), runs=runs)
    evidence.changelog[0] = [
        msgspec.structs.replace(record, value=states.encode_actor(user, 1)) if record.key == key else record
        for record in evidence.changelog[0]
    ]


@pytest.mark.parametrize(
    ("corrupt", "name", "fault"),
    [
        (drop_an_answer, "links", "lost"),
        (double_an_answer, "links", "duplicated"),
        (leave_the_users_runs_with_the_device, "runs", "duplicated"),
        (lose_the_users_runs, "runs", "lost"),
    ],
)
async def test_who_loses_or_doubles_something_is_found_out(
    corrupt: Callable[[Evidence], None], name: str, fault: Fault
) -> None:
    evidence = await merged()
    corrupt(evidence)
    row = {"links": links_row, "runs": runs_row}[name](evidence)
    assert row.counts[fault] > 0
    assert row.faults == row.counts[fault]
