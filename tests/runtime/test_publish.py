"""What publishing comes to: what is new, what is refused and in which words, and one activation for each partition."""

from dataclasses import replace
from hashlib import sha256

import msgspec
import pytest

from engine import JourneyError, hours
from engine.definitions import thaw
from engine.journey import Journey
from engine.runtime.publish import Publication, plan
from schemas.definitions import Definition
from schemas.inputs import Activated
from tests.runtime.memory_host import MemoryDefinitions
from tests.runtime.stage import Stage
from tests.runtime.trial_journeys import basket, greeting

TEMPLATES = {name: {"text": f"{name}!"} for name in ("hello", "welcome", "goodbye", "reminder", "last_reminder")}


def publish(
    published: MemoryDefinitions,
    *journeys: Journey,
    templates: dict[str, dict[str, str]] = TEMPLATES,
    tenants: tuple[str, ...] = ("shop",),
) -> Publication:
    """Plan, and let what is planned arrive."""
    publication = plan(tenants, journeys, templates, published)
    for definition in publication.definitions:
        published.arrive(definition)
    return publication


def told(publication: Publication) -> list[str]:
    return [str(change) for change in publication.changes]


def test_a_first_publication_is_all_new() -> None:
    publication = publish(MemoryDefinitions(), greeting(), basket())
    assert told(publication) == ["shop: greeting v1 is new", "shop: basket v1 is new"]
    assert [definition.key for definition in publication.definitions] == [
        f"shop/template/hello@{digest('hello')}",
        f"shop/template/goodbye@{digest('goodbye')}",
        "shop/journey/greeting@1",
        f"shop/template/reminder@{digest('reminder')}",
        f"shop/template/last_reminder@{digest('last_reminder')}",
        "shop/journey/basket@1",
    ]


def digest(template: str) -> str:
    return sha256(msgspec.json.encode(TEMPLATES[template])).hexdigest()[:12]


def test_publishing_the_same_again_writes_nothing() -> None:
    published = MemoryDefinitions()
    publish(published, greeting(), basket())
    again = publish(published, greeting(), basket())
    assert told(again) == ["shop: greeting v1 is unchanged", "shop: basket v1 is unchanged"]
    assert again.records(4) == []


def test_a_higher_version_replaces_the_current_one_and_brings_only_what_is_not_there_yet() -> None:
    published = MemoryDefinitions()
    publish(published, greeting(1, "hello"))
    update = publish(published, greeting(2, "welcome"))
    assert told(update) == ["shop: greeting v2 replaces v1; runs in v1 finish there"]
    assert [definition.name for definition in update.definitions] == ["welcome", "greeting"]


def test_an_older_version_is_left_alone_whether_it_was_published_or_not() -> None:
    published = MemoryDefinitions()
    publish(published, greeting(2))
    publish(published, greeting(4))
    for version in (2, 3):
        older = publish(published, greeting(version))
        assert told(older) == [f"shop: greeting v{version} is not published: v4 is active"]
        assert older.records(4) == []


def test_a_published_version_that_has_changed_is_refused_with_what_differs_and_what_to_do() -> None:
    published = MemoryDefinitions()
    publish(published, greeting(3))
    with pytest.raises(JourneyError) as refused:
        publish(published, greeting(3, pause=hours(2)))
    assert str(refused.value) == (
        "greeting v3 is published already and has changed since (the step 'pause');"
        " a published version stays as it is: give the journey version=4"
    )


def test_an_older_version_that_has_changed_is_refused_too_and_the_next_free_number_is_named() -> None:
    published = MemoryDefinitions()
    for version in (1, 2, 7):
        publish(published, greeting(version))
    with pytest.raises(JourneyError, match="give the journey version=8"):
        publish(published, greeting(2, "welcome"))


def test_a_changed_template_is_a_changed_journey_and_the_refusal_names_it() -> None:
    published = MemoryDefinitions()
    publish(published, greeting())
    with pytest.raises(JourneyError) as refused:
        publish(published, greeting(), templates={**TEMPLATES, "hello": {"text": "Hi!"}})
    assert "has changed since (the template 'hello')" in str(refused.value)


def test_a_change_outside_the_steps_is_called_a_setting() -> None:
    published = MemoryDefinitions()
    publish(published, greeting())
    with pytest.raises(JourneyError, match=r"has changed since \(its settings\)"):
        publish(published, replace(greeting(), description="kinder"))


def test_a_version_sends_for_ever_what_it_sent_when_it_was_published() -> None:
    published = MemoryDefinitions()
    publish(published, greeting(1))
    publish(published, greeting(2), templates={**TEMPLATES, "hello": {"text": "Hi!"}})
    refs = [journey_of(published, version).templates["hello"] for version in (1, 2)]
    assert refs[0] != refs[1]
    bodies = [definition_of(published, f"shop/template/{ref}").body for ref in refs]
    assert [msgspec.json.decode(body) for body in bodies] == [{"text": "hello!"}, {"text": "Hi!"}]


def journey_of(published: MemoryDefinitions, version: int) -> Journey:
    return thaw(definition_of(published, f"shop/journey/greeting@{version}"))


def definition_of(published: MemoryDefinitions, key: str) -> Definition:
    found = published.find(key)
    assert found is not None
    return found


def test_the_bodies_come_first_and_every_partition_gets_each_activation_once() -> None:
    records = publish(MemoryDefinitions(), greeting(), basket()).records(3)
    assert [record.topic for record in records] == ["definitions"] * 6 + ["events"] * 6
    activations = [(msgspec.json.decode(record.value or b"", type=Activated), record) for record in records[6:]]
    assert [(activated.name, record.partition) for activated, record in activations] == [
        (name, partition) for name in ("greeting", "basket") for partition in range(3)
    ]
    assert {record.key for _, record in activations} == {None}
    bodies = {record.key: msgspec.json.decode(record.value or b"", type=Definition) for record in records[:6]}
    for activated, _ in activations:
        frozen = bodies[f"shop/journey/{activated.name}@{activated.version}".encode()]
        assert activated.hash == frozen.hash == sha256(bytes(frozen.body)).hexdigest()


def test_each_tenant_gets_its_own() -> None:
    published = MemoryDefinitions()
    publish(published, greeting(), tenants=("shop",))
    both = publish(published, greeting(), tenants=("shop", "bank"))
    assert told(both) == ["shop: greeting v1 is unchanged", "bank: greeting v1 is new"]
    assert {definition.tenant for definition in both.definitions} == {"bank"}


def test_a_missing_template_or_two_journeys_of_one_name_are_refused_before_anything_is_written() -> None:
    published = MemoryDefinitions()
    with pytest.raises(JourneyError, match=r"greeting v1: there is no template 'hello'; put hello\.html and"):
        publish(published, basket(), greeting(), templates=_without("hello"))
    with pytest.raises(JourneyError, match="two journeys are called 'greeting'; a name is one journey"):
        publish(published, greeting(1), greeting(2))
    assert list(published.all()) == []


def _without(name: str) -> dict[str, dict[str, str]]:
    return {other: parts for other, parts in TEMPLATES.items() if other != name}


async def test_what_is_published_is_what_partitions_run() -> None:
    stage = Stage()
    publication = plan(("shop",), [greeting()], TEMPLATES, stage.definitions)
    for record in publication.records(1):
        if record.topic == "definitions":
            stage.definitions.arrive(msgspec.json.decode(record.value or b"", type=Definition))
        else:
            stage.put(record.key, record.value)
    stage.event("ada", "signed_up")
    await stage.play()
    [message] = stage.messages()
    assert message.template == f"hello@{digest('hello')}"
