"""That a partition lets a version run as a shadow from a record on, and tells the journal what would have happened."""

import asyncio

import msgspec
from msgspec import Raw

from engine.definitions import freeze
from engine.divergence import Divergence, Report
from engine.journey import Journey
from engine.runtime import states
from engine.runtime.partition import MAX_RECORDS
from schemas.definitions import Definition
from schemas.inputs import Activated
from schemas.journal import read_entries
from tests.runtime.stage import TENANT, Stage
from tests.runtime.trial_journeys import HOUR, greeting

HOUR_MS = 3_600_000


def begin(stage: Stage, journey: Journey) -> Definition:
    frozen = freeze(TENANT, journey, {name: {"text": name} for name in journey.template_names()})[-1]
    shadow = Definition(TENANT, "shadow", journey.name, 0, frozen.hash, frozen.body)
    stage.definitions.arrive(shadow)
    stage.put(None, encode(Activated(TENANT, "shadow", journey.name, journey.version, frozen.hash)))
    return shadow


def end(stage: Stage, name: str) -> None:
    stage.put(None, encode(Activated(TENANT, "shadow", name, 2, "")))


def encode(input: Activated) -> bytes:
    return msgspec.json.encode(input)


def report(stage: Stage) -> Report:
    divergence = Divergence(TENANT, "greeting")
    for entry in stage.journal():
        divergence.give(entry)
    return divergence.report()


async def test_a_shadow_asks_no_channel_and_counts_in_no_metric() -> None:
    stage = Stage()
    stage.publish(greeting(1))
    begin(stage, greeting(2, template="welcome", pause=HOUR / 2))
    stage.event("ann", "signed_up")
    await stage.play()
    assert stage.sent() == ["hello"]
    assert stage.counted("runs_entered", tenant=TENANT, journey="greeting") == 1
    stage.pass_time(HOUR_MS)
    stage.wake_the_due()
    await stage.play()
    assert stage.sent() == ["hello", "goodbye"]
    assert stage.counted("messages_asked", tenant=TENANT, journey="greeting", channel="inapp") == 2
    [message] = [each for each in stage.messages() if each.template.startswith("hello")]
    shadowed = [entry for entry in stage.journal("sent") if entry.shadow]
    assert [entry.detail["template"].partition("@")[0] for entry in shadowed] == ["welcome", "goodbye"]
    assert shadowed[1].at - shadowed[0].at == HOUR_MS / 2
    assert {entry.version for entry in shadowed} == {2}
    assert message.version == 1


async def test_what_would_have_happened_is_told_in_the_record_of_what_did() -> None:
    stage = Stage()
    stage.publish(greeting(1))
    begin(stage, greeting(2, template="welcome"))
    stage.event("ann", "signed_up")
    await stage.play()
    [began, entered] = stage.log.of("journal")
    assert began.key is None
    assert dict(began.headers) == dict(entered.headers) == {"content-type": b"application/x-ndjson", "tenant": b"shop"}
    assert [(entry.kind, entry.reason) for entry in read_entries(began.value)] == [("shadowed", "began")]
    told = [(entry.kind, entry.shadow) for entry in read_entries(entered.value)]
    kinds = ("entered", "step", "sent", "step")
    assert told == [*((kind, False) for kind in kinds), *((kind, True) for kind in kinds)]


async def test_the_report_counts_both_sides_over_the_same_inputs() -> None:
    """What came before the shadow is counted on neither side, and so is what comes after its end."""
    stage = Stage()
    stage.publish(greeting(1))
    stage.event("early", "signed_up")
    begin(stage, greeting(2, template="welcome"))
    stage.event("ann", "signed_up")
    stage.event("ann", "seen")
    end(stage, "greeting")
    stage.event("late", "signed_up")
    await stage.play()
    found = report(stage)
    assert (found.active.entered, found.shadow.entered) == (1, 1)
    assert (found.active.templates, found.shadow.templates) == ({"inapp:hello": 1}, {"inapp:welcome": 1})
    assert (found.shadow_version, found.active_versions, found.has_ended) == (2, [1], True)
    [difference] = found.differences
    assert (difference.text, difference.users) == ("get as many messages, but other ones", 1)
    assert difference.example == "ann"


async def test_a_shadow_outlives_the_process_and_batches_make_no_difference() -> None:
    stages = [Stage(), Stage()]
    for number, stage in enumerate(stages):
        stage.publish(greeting(1))
        shadow = begin(stage, greeting(2, pause=HOUR / 2, moves={"pause": "part"}))
        assert shadow.key == f"{TENANT}/shadow/greeting@{shadow.hash[:12]}"
        for user in ("ann", "bob"):
            stage.event(user, "signed_up")
        if number:
            await stage.play()
            stage.restart()
            stage.users.max_records = 1
        assert stage.users.max_records == (1 if number else MAX_RECORDS)
        stage.event("ann", "signed_up")
        await stage.play()
        stage.pass_time(HOUR_MS)
        stage.wake_the_due()
        await stage.play()
    one, other = stages
    assert one.user("ann") == other.user("ann")
    assert one.user("ann").shadows["greeting"].runs == ()
    assert sorted(map(str, one.journal())) == sorted(map(str, other.journal()))
    assert one.sent() == other.sent()
    assert len([entry for entry in one.journal("sent") if entry.shadow]) == 4


async def test_of_a_shadow_that_has_ended_nothing_is_left_with_anybody() -> None:
    stage = Stage()
    stage.publish(greeting(1))
    begin(stage, greeting(2, pause=HOUR / 2))
    stage.event("ann", "signed_up")
    await stage.play()
    key = f"{TENANT}:ann".encode()
    assert stage.host.timers[key] == stage.log.now + HOUR_MS // 2
    end(stage, "greeting")
    await stage.play()  # nobody hears from ann, but the sweep reaches her
    assert stage.user("ann").shadows == {}
    assert stage.host.timers[key] == stage.log.now + HOUR_MS
    assert stage.host.store.get(states.ACTIVE + f"{TENANT}/shadow/greeting".encode()) is None
    stage.restart()
    stage.event("ann", "signed_up")
    await stage.play()
    assert stage.user("ann").shadows == {}


async def test_who_waits_is_reached_where_the_shadow_moves_runs() -> None:
    stage = Stage()
    stage.publish(greeting(1))
    stage.event("ann", "signed_up")
    begin(stage, greeting(2, moves={"pause": "part"}))
    await stage.play()
    assert [entry.kind for entry in stage.journal("moved")] == ["moved"]
    assert [run.step for run in stage.user("ann").runs] == ["pause"]
    assert stage.sent() == ["hello"]


async def test_a_partition_waits_for_the_body_of_a_shadow() -> None:
    stage = Stage()
    stage.publish(greeting(1))
    shadow = begin(Stage(), greeting(2, template="welcome"))
    stage.put(None, encode(Activated(TENANT, "shadow", "greeting", 2, shadow.hash)))
    stage.event("ann", "signed_up")
    task = asyncio.create_task(stage.users.run())
    await stage.until(lambda: shadow.key in stage.definitions.asked_for)
    stage.definitions.arrive(Definition(TENANT, "shadow", "greeting", 0, shadow.hash, Raw(bytes(shadow.body))))
    await stage.until_idle(task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [entry.version for entry in stage.journal("entered")] == [1, 2]
