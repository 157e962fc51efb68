"""How a partition comes to know what is current: through the log, and after a restart from its store."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace as with_fields
from hashlib import sha256

import pytest
from msgspec import Raw
from msgspec.structs import replace

from engine.catalog import Catalog
from engine.definitions import freeze
from engine.journey import Journey
from engine.runtime.host import PartitionStopped
from schemas.definitions import Definition
from tests.runtime.stage import TENANT, Stage
from tests.runtime.trial_journeys import HOUR, greeting

TEMPLATES = {"hello": {"text": "hello"}, "welcome": {"text": "welcome"}, "goodbye": {"text": "goodbye"}}
HOUR_MS = 3_600_000


def frozen(version: int = 1, template: str = "hello") -> Definition:
    return freeze(TENANT, greeting(version, template), TEMPLATES)[-1]


async def test_a_definition_counts_from_its_record_on() -> None:
    stage = Stage()
    stage.event("ada", "signed_up")
    stage.publish(greeting())
    stage.event("ben", "signed_up")
    stage.publish(greeting(2, "welcome"))
    stage.event("cleo", "signed_up")
    await stage.play()
    assert [(message.user, message.version) for message in stage.messages()] == [("ben", 1), ("cleo", 2)]


async def test_a_definition_of_one_tenant_is_nothing_to_another() -> None:
    stage = Stage()
    stage.publish(greeting(), tenant="elsewhere")
    stage.event("ada", "signed_up")
    await stage.play()
    assert stage.sent() == []


async def test_a_partition_waits_for_a_body_that_has_not_arrived_and_then_goes_on() -> None:
    stage = Stage()
    stage.event("ada", "looked", profile={"plan": "free"})
    stage.publish(greeting(), arrives=False)
    stage.event("ada", "signed_up")
    task = asyncio.create_task(stage.users.run())
    await stage.until(lambda: bool(stage.definitions.asked_for))
    assert stage.definitions.asked_for == ["shop/journey/greeting@1"]
    assert stage.host.batches == []  # not even what came before it in the batch
    stage.definitions.arrive(frozen())
    await stage.until_idle(task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert stage.sent("ada") == ["hello"]
    assert stage.counted("inputs_folded", topic="events", kind="event") == 2  # folded twice, counted once
    assert not stage.log.of("dead-letters")


async def test_an_activation_whose_hash_is_not_the_stored_bodys_stops_the_partition() -> None:
    stage = Stage()
    stage.definitions.arrive(frozen(1, "welcome"))
    stage.publish(greeting(), arrives=False)
    with pytest.raises(PartitionStopped, match="shop/journey/greeting@1 was activated with SHA-256"):
        await stage.play()
    assert stage.host.position == -1


async def test_a_body_that_is_not_what_its_hash_says_stops_the_partition() -> None:
    stage = Stage()
    stage.definitions.arrive(replace(frozen(), body=Raw(bytes(frozen().body).replace(b"goodbye", b"badbye!"))))
    stage.activate(frozen())
    with pytest.raises(PartitionStopped, match="SHA-256 differs"):
        await stage.play()


@pytest.mark.parametrize("body", [b'{"kind":"journey","a_field_of_the_future":1}', b"[" * 100_000])
async def test_a_body_this_version_cannot_read_stops_the_partition_and_is_not_parked(body: bytes) -> None:
    stage = Stage()
    definition = replace(frozen(), body=Raw(body), hash=sha256(body).hexdigest())
    stage.definitions.arrive(definition)
    stage.activate(definition)
    with pytest.raises(PartitionStopped, match="upgrade this worker"):
        await stage.play()
    assert stage.log.topics() == ["events"]


async def test_a_kind_this_version_does_not_know_stops_the_partition() -> None:
    stage = Stage()
    stage.activate(replace(frozen(), kind="segment"))
    with pytest.raises(PartitionStopped, match="a segment was activated, which this version doesn't know; upgrade"):
        await stage.play()


async def test_a_restart_restores_the_current_version_and_the_old_ones_that_runs_are_in() -> None:
    stage = Stage()
    stage.publish(greeting(1, "hello"))
    stage.event("ada", "signed_up")
    await stage.play()
    stage.publish(greeting(2, "welcome", 2 * HOUR))
    stage.event("ben", "signed_up")
    await stage.play()
    stage.restart()
    stage.pass_time(HOUR_MS)
    stage.wake_the_due()
    stage.event("cleo", "signed_up")
    await stage.play()
    assert stage.sent("ada") == ["hello", "goodbye"]
    assert stage.sent("ben") == ["welcome"]
    assert stage.sent("cleo") == ["welcome"]
    assert [message.version for message in stage.messages("ada")] == [1, 1]


async def test_the_last_activation_counts_even_if_its_number_is_lower_also_after_a_restart() -> None:
    stage = Stage()
    for version in (1, 2):
        stage.publish(greeting(version))
    stage.activate(frozen(1))
    await stage.play()
    stage.restart()
    stage.event("ada", "signed_up")
    await stage.play()
    assert [message.version for message in stage.messages()] == [1]


async def test_a_restart_waits_for_the_bodies_it_needs() -> None:
    stage = Stage()
    stage.publish(greeting())
    await stage.play()
    stage.restart()
    stage.definitions.forget()
    stage.event("ada", "signed_up")
    task = asyncio.create_task(stage.users.run())
    await stage.until(lambda: bool(stage.definitions.asked_for))
    stage.definitions.arrive(frozen())
    await stage.until_idle(task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert stage.sent() == ["hello"]


async def test_many_activations_in_a_row_copy_the_indexes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    activate_all = Catalog.activate_all

    def counted(catalog: Catalog, activations: Iterable[tuple[str, Journey, int]]) -> Catalog:
        together = list(activations)
        copied.append(len(together))
        return activate_all(catalog, together)

    monkeypatch.setattr(Catalog, "activate_all", counted)
    stage = Stage()
    for number in range(40):
        stage.publish(with_fields(greeting(), name=f"greeting_{number}"))
    stage.event("ada", "signed_up")
    stage.publish(greeting(2, "welcome"))
    await stage.play()
    assert copied == [0, 40, 1]  # what the store had, those at the head, the one behind the event
    assert len(stage.sent()) == 40
    assert len(list(stage.users.catalog.active())) == 41


async def test_a_pause_between_activations_is_heeded_however_many_there_are() -> None:
    stage = Stage()
    stage.publish(greeting())
    stage.control("greeting", "retire")
    stage.publish(with_fields(greeting(), name="other"))
    stage.event("ada", "signed_up")
    stage.publish(greeting(2, "welcome"))  # opens it again
    stage.event("ben", "signed_up")
    await stage.play()
    assert sorted((message.user, message.journey, message.version) for message in stage.messages()) == [
        ("ada", "other", 1), ("ben", "greeting", 2), ("ben", "other", 1),
    ]  # fmt: skip
