"""What publishing comes to, and what operators do to what was published: what is said, refused, and appended."""

from dataclasses import replace
from hashlib import sha256

import msgspec
import pytest

from engine import AtMost, Cap, JourneyError, Policy, days, hours
from engine.definitions import thaw, thaw_policy
from engine.journey import Journey
from engine.runtime.controls import Act, Action, control, rollback, state_of
from engine.runtime.publish import Publication, plan, shown
from engine.runtime.standings import Standings
from schemas.definitions import Definition, Standing
from schemas.inputs import Activated, Controlled
from schemas.records import NewRecord
from tests.runtime.memory_host import MemoryDefinitions
from tests.runtime.stage import Stage
from tests.runtime.trial_journeys import basket, greeting

NOW = 1_767_600_000_000
TEMPLATES = {name: {"text": f"{name}!"} for name in ("hello", "welcome", "goodbye", "reminder", "last_reminder")}


def publish(
    published: MemoryDefinitions,
    *journeys: Journey,
    templates: dict[str, dict[str, str]] = TEMPLATES,
    tenants: tuple[str, ...] = ("shop",),
) -> Publication:
    """Plan, and let what is planned arrive."""
    publication = plan(tenants, journeys, templates, published, now=NOW)
    arrive(published, publication)
    return publication


def arrive(published: MemoryDefinitions, publication: Publication) -> None:
    for definition in (*publication.definitions, *publication.standings):
        published.arrive(definition)


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


def test_a_promise_that_the_table_does_not_keep_is_refused() -> None:
    published = MemoryDefinitions()
    with pytest.raises(
        JourneyError, match=r"greeting v1: at_most: at_most promises 1 within 1 week, and a user can get"
    ):
        publish(published, replace(greeting(), at_most=AtMost(1, days(7))))
    assert not list(published.all())
    publish(published, replace(greeting(), at_most=AtMost(384, days(7))))


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
    assert [record.topic for record in records] == ["definitions"] * 8 + ["events"] * 6
    activations = [(msgspec.json.decode(record.value or b"", type=Activated), record) for record in records[8:]]
    assert [(activated.name, record.partition) for activated, record in activations] == [
        (name, partition) for name in ("greeting", "basket") for partition in range(3)
    ]
    assert {record.key for _, record in activations} == {None}
    bodies = {record.key: msgspec.json.decode(record.value or b"", type=Definition) for record in records[:8]}
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


# Policies


POLICY = Policy(version=1, caps=(Cap(most=2, within=days(1)),))


def with_policy(published: MemoryDefinitions, policy: Policy | None, *journeys: Journey) -> Publication:
    publication = plan(("shop",), journeys, TEMPLATES, published, policy, NOW)
    arrive(published, publication)
    return publication


def test_a_policy_is_published_and_activated_like_a_journey() -> None:
    published = MemoryDefinitions()
    first = with_policy(published, POLICY, greeting())
    assert told(first) == ["shop: greeting v1 is new", "shop: policy v1 is new"]
    [_, activated] = first.activations
    assert (activated.kind, activated.name, activated.version) == ("policy", "policy", 1)
    assert thaw_policy(definition_of(published, "shop/policy/policy@1")) == POLICY
    assert told(with_policy(published, POLICY))[-1] == "shop: policy v1 is unchanged"
    second = with_policy(published, replace(POLICY, version=2, holdout=5))
    assert told(second) == ["shop: policy v2 replaces v1"]
    assert second.changes[0].details == ["holdout has changed"]
    assert told(with_policy(published, POLICY)) == ["shop: policy v1 is not published: v2 is active"]


def test_a_published_policy_that_has_changed_is_refused() -> None:
    published = MemoryDefinitions()
    with_policy(published, POLICY)
    with pytest.raises(JourneyError) as refused:
        with_policy(published, replace(POLICY, caps=(), holdout=1))
    assert str(refused.value) == (
        "policy v1 is published already and has changed since (holdout, caps); a published version stays as it is:"
        " give the policy version=2"
    )


# What is different, in words


def test_a_new_version_says_what_is_different_from_the_one_before() -> None:
    published = MemoryDefinitions()
    publish(published, greeting())
    kinder = publish(published, greeting(2, pause=hours(2)), templates={**TEMPLATES, "goodbye": {"text": "Bye!"}})
    assert kinder.changes[0].details == [
        "'pause' duration: 2 hours instead of 1 hour",
        "the template 'goodbye' has another text",
    ]
    moved = publish(published, replace(greeting(3), moves={"pause": "part"}))
    assert told(moved) == [
        "shop: greeting v3 replaces v2; runs in v2 move where its `moves` say so, the others finish there"
    ]


# What operators do


def acted(published: MemoryDefinitions, act: Act) -> list[NewRecord]:
    arrive(published, act.publication)
    return act.publication.records(2)


def test_an_act_is_one_record_to_every_partition_and_how_the_name_stands_from_now_on() -> None:
    published = MemoryDefinitions()
    publish(published, greeting())
    act = control(published, "shop", "greeting", "pause", NOW)
    assert act.words == "shop: greeting is paused: runs stay where they are, and nobody enters"
    standing, *controls = acted(published, act)
    assert (standing.topic, standing.key) == ("definitions", b"shop/active/journey/greeting")
    assert [(record.topic, record.key, record.partition) for record in controls] == [
        ("events", None, 0), ("events", None, 1),
    ]  # fmt: skip
    assert msgspec.json.decode(controls[0].value or b"", type=Controlled) == Controlled("shop", "greeting", "pause")
    assert stands(published) == f"paused since {shown(NOW)}"


def stands(published: MemoryDefinitions, kind: str = "journey", name: str = "greeting") -> str:
    standing = Standings(published).of("shop", kind, name)
    assert standing is not None
    return state_of(standing)


def test_acts_follow_one_another_and_what_is_the_case_already_is_said_and_not_done() -> None:
    published = MemoryDefinitions()
    publish(published, greeting())
    said = []
    actions: list[Action] = ["resume", "pause", "pause", "retire", "stop", "retire", "resume"]
    for action in actions:
        act = control(published, "shop", "greeting", action, NOW)
        acted(published, act)
        said.append((act.words.removeprefix("shop: greeting "), stands(published)))
    at = f"since {shown(NOW)}"
    assert said == [
        ("is not paused", "running"),
        ("is paused: runs stay where they are, and nobody enters", f"paused {at}"),
        (f"is paused already, {at}", f"paused {at}"),
        ("is retired: nobody enters, and runs finish", f"paused {at}, retired {at}"),
        ("is stopped: runs end, and nobody enters", f"paused {at}, stopped {at}"),
        (f"is stopped already, {at}", f"paused {at}, stopped {at}"),
        ("is resumed: runs go on, and users enter", f"stopped {at}"),
    ]


def test_what_publishing_says_of_a_journey_that_operators_have_paused_or_closed() -> None:
    published = MemoryDefinitions()
    publish(published, greeting())
    acted(published, control(published, "shop", "greeting", "pause", NOW))
    acted(published, control(published, "shop", "greeting", "retire", NOW))
    paused = f"; it is paused since {shown(NOW)}, until: equeengage journey resume greeting"
    closed = f"; it is retired since {shown(NOW)}, until: equeengage journey rollback greeting 1"
    assert told(publish(published, greeting())) == [f"shop: greeting v1 is unchanged{paused}{closed}"]
    assert told(publish(published, greeting(2))) == [f"shop: greeting v2 replaces v1; runs in v1 finish there{paused}"]
    assert stands(published) == f"paused since {shown(NOW)}"  # A new version opens what was closed, and stays paused.


def test_a_rollback_makes_an_older_version_current_and_publishing_the_folder_again_does_not_undo_it() -> None:
    published = MemoryDefinitions()
    for version in (1, 2, 3):
        publish(published, greeting(version))
    act = rollback(published, "shop", "journey", "greeting", 1, NOW)
    assert act.words == "shop: greeting v1 is current, instead of v3; runs in v3 finish there"
    [activated] = act.publication.activations
    assert (activated.version, activated.hash) == (1, definition_of(published, "shop/journey/greeting@1").hash)
    acted(published, act)
    again = publish(published, greeting(3))
    assert again.records(4) == []
    assert told(again) == [
        f"shop: greeting v3 is not made current again: v1 is, since {shown(NOW)}, by an operator;"
        " to go back to it: equeengage journey rollback greeting 3, or give it version=4"
    ]
    assert told(publish(published, greeting(1))) == ["shop: greeting v1 is unchanged"]
    assert told(publish(published, greeting(4))) == ["shop: greeting v4 replaces v1; runs in v1 finish there"]
    assert told(publish(published, greeting(3))) == ["shop: greeting v3 is not published: v4 is active"]


def test_after_a_rollback_a_number_between_is_not_taken_for_news() -> None:
    published = MemoryDefinitions()
    for version in (1, 5):
        publish(published, greeting(version))
    acted(published, rollback(published, "shop", "journey", "greeting", 1, NOW))
    between = publish(published, greeting(3))
    assert told(between) == ["shop: greeting v3 is not published: v5 has been; give it version=6"]
    assert between.records(4) == []


def test_a_rollback_opens_what_was_closed_and_says_what_it_cannot_do() -> None:
    published = MemoryDefinitions()
    publish(published, greeting(1))
    publish(published, greeting(2))
    acted(published, control(published, "shop", "greeting", "stop", NOW))
    act = rollback(published, "shop", "journey", "greeting", 2, NOW)
    assert act.words == "shop: greeting v2 is open again"
    acted(published, act)
    assert stands(published) == "running"
    assert rollback(published, "shop", "journey", "greeting", 2, NOW).publication.records(1) == []
    with pytest.raises(JourneyError, match="greeting v7 was never published; there are v1, v2"):
        rollback(published, "shop", "journey", "greeting", 7, NOW)
    with pytest.raises(JourneyError, match=r"has no journey 'greetin'; did you mean 'greeting'\?"):
        control(published, "shop", "greetin", "pause", NOW)
    with pytest.raises(JourneyError, match="the tenant 'bank' has no journey 'greeting'; there are none"):
        control(published, "bank", "greeting", "pause", NOW)


def test_a_policy_is_rolled_back_too() -> None:
    published = MemoryDefinitions()
    with_policy(published, POLICY)
    with_policy(published, replace(POLICY, version=2))
    acted(published, rollback(published, "shop", "policy", "policy", 1, NOW))
    assert told(with_policy(published, replace(POLICY, version=2))) == [
        f"shop: policy v2 is not made current again: v1 is, since {shown(NOW)}, by an operator;"
        " to go back to it: equeengage policy rollback 2, or give it version=3"
    ]


def test_what_was_published_before_standings_were_kept_is_current_in_its_highest_version() -> None:
    published = MemoryDefinitions()
    for version in (1, 2):
        publication = plan(("shop",), [greeting(version)], TEMPLATES, published)
        for definition in publication.definitions:
            published.arrive(definition)
    assert Standings(published).of("shop", "journey", "greeting") == Standing(2)
    assert told(publish(published, greeting(1))) == ["shop: greeting v1 is not published: v2 is active"]
    acted(published, control(published, "shop", "greeting", "pause", NOW))
    assert stands(published) == f"paused since {shown(NOW)}"
