"""Users heard from last are kept decoded: the same as in the store, and only so many."""

import pytest

from engine.runtime import states
from engine.runtime.hot import Actor, Hot
from engine.runtime.steering import MissingDefinition
from schemas.state import User
from tests.runtime.stage import Stage
from tests.runtime.trial_journeys import greeting


async def test_who_is_heard_from_again_is_as_the_store_has_them() -> None:
    stage = Stage()
    stage.publish(greeting())
    for name in ("ann", "bob", "ann"):
        stage.event(name, "signed_up", profile={"plan": "free", "push_token": name})
        await stage.play()
    hot = stage.users.hot.actors
    assert list(hot) == [b"shop:bob", b"shop:ann"]
    for key, actor in hot.items():
        raw = stage.host.store.get(states.USER + key)
        assert raw is not None
        assert states.decode_user(raw) == actor.user == actor.user_stored
        assert states.due_in(raw) == actor.due_at
        assert (actor.older, actor.older_stored) == (b"", b"")
        assert f"{actor.tenant}:{actor.id}".encode() == key


async def test_a_batch_that_is_folded_again_begins_from_what_was_committed() -> None:
    stage = Stage()
    stage.event("ann", "looked", profile={"plan": "free"})
    await stage.play()
    stored = stage.host.store.get(states.USER + b"shop:ann")
    assert stored is not None
    stage.event("ann", "looked", profile={"plan": "team"})
    frozen = stage.publish(greeting(), arrives=False)
    records = stage.log.of("events")[1:]
    with pytest.raises(MissingDefinition, match=frozen.key):
        stage.users.fold(records)
    assert stage.users.hot.take(b"shop:ann") is None  # so that it is read again, as it was
    stage.definitions.arrive(frozen)
    again = stage.users.fold(records)
    assert states.decode_user(stored).profile == {"plan": "free"}
    assert states.decode_user(again.states[states.USER + b"shop:ann"] or b"").profile == {"plan": "team"}


def test_the_coldest_are_let_go() -> None:
    hot = Hot(partitions=4, most=11)  # two each
    for key in (b"a", b"b", b"a", b"c"):
        hot.keep(key, hot.take(key) or Actor("shop", key.decode(), User(), b"", None))
    hot.trim()
    assert list(hot.actors) == [b"a", b"c"]
