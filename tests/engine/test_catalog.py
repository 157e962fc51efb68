"""Which journeys an event can concern, after any sequence of activations."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from engine import Exit, Journey, any_of, on
from engine.catalog import Catalog
from tests.engine.generated import seeds

TENANTS, JOURNEYS, EVENTS = ("t1", "t2"), ("a", "b", "c"), ("x", "y", "z")


def simple(name: str, version: int, *events: str) -> Journey:
    return Journey(
        name=name, version=version, entry=any_of(*map(on, events)), start="end", steps={"end": Exit(str(version))}
    )


@given(st.lists(seeds, max_size=15))
def test_the_index_finds_exactly_what_a_naive_scan_finds(drawn: list[int]) -> None:
    catalog = Catalog()
    current: dict[tuple[str, str], Journey] = {}
    activated: dict[tuple[str, str, int], Journey] = {}
    order: list[tuple[str, Journey, int]] = []
    for seed in drawn:
        dice = Random(seed)
        tenant = dice.choice(TENANTS)
        journey = simple(dice.choice(JOURNEYS), dice.randint(1, 3), *dice.sample(EVENTS, dice.randint(1, 3)))
        before, known = catalog, dict(catalog.journeys)
        catalog = catalog.activate(tenant, journey, len(order))
        order.append((tenant, journey, len(order)))
        current[tenant, journey.name] = activated[tenant, journey.name, journey.version] = journey
        assert before.journeys == known  # A catalog is a value: the one before is as it was.
    assert catalog.journeys == activated
    assert Catalog().activate_all(order) == catalog
    assert list(catalog.active()) == [(tenant, current[tenant, name]) for tenant, name in sorted(current)]
    for tenant in TENANTS:
        for event in EVENTS:
            naive = [
                current[tenant, name]
                for name in JOURNEYS
                if (tenant, name) in current and event in current[tenant, name].entry_names
            ]
            assert list(catalog.beginning_with(tenant, event)) == naive
        for name in JOURNEYS:
            assert catalog.of(tenant, name) == current.get((tenant, name))


def test_an_event_nobody_asked_about_concerns_nobody() -> None:
    catalog = Catalog().activate("t1", simple("a", 1, "x"))
    assert catalog.beginning_with("t1", "unheard") == ()
    assert catalog.beginning_with("t2", "x") == ()
    assert catalog.of("t2", "a") is None


def test_the_versions_before_stay_for_the_runs_in_them() -> None:
    old, new = simple("a", 1, "x"), simple("a", 2, "y")
    catalog = Catalog().activate("t1", old).activate("t1", new)
    assert catalog.journeys["t1", "a", 1] == old
    assert catalog.of("t1", "a") == new
    assert catalog.beginning_with("t1", "x") == ()


def test_an_older_version_can_be_made_current_again() -> None:
    old, new = simple("a", 1, "x"), simple("a", 2, "y")
    catalog = Catalog().activate("t1", old).activate("t1", new).activate("t1", old)
    assert catalog.of("t1", "a") == old
    assert catalog.beginning_with("t1", "x") == (old,)
    assert catalog.beginning_with("t1", "y") == ()
