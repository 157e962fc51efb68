"""Versions of journeys, found for a comparison: in files, in folders, among what was published; and who is in them.

journeys/welcome.py              a module's journeys, or a journey written as JSON
journeys                         all journeys of a folder
journeys:welcome                 one of them
welcome@3                        one that was published: needs a data folder, or Kafka
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agents.backtest.versions import PUBLISHED, find_version
from agents.folder import read_folder, read_templates
from engine.definitions import thaw
from engine.diff import Difference, Fate, Templates, compare, fates
from engine.errors import JourneyError
from engine.journey import Journey
from engine.runtime.host import Definitions
from engine.runtime.states import Place


@dataclass(frozen=True, slots=True)
class Version:
    """A journey with the texts of its templates by name."""

    journey: Journey
    texts: Templates


@dataclass(frozen=True)
class Comparison:
    """Two versions, and what becomes of the runs in earlier ones; None where it isn't known who is where."""

    difference: Difference
    fates: Sequence[Fate] | None = None


@dataclass(frozen=True)
class Comparisons:
    """All journeys of two sides: those on both, and the labels of those on one only."""

    both: Sequence[Comparison]
    only_old: Sequence[str] = ()
    only_new: Sequence[str] = ()


def find_versions(text: str, published: Definitions | None, tenant: str) -> list[Version]:
    """Return the versions that are meant. Raises JourneyError that says what is there instead."""
    path = Path(text)
    if path.is_dir():
        folder = read_folder(path)
        if not folder.journeys:
            raise JourneyError(f"there is no journey in {path}; a journey is a module with a Journey at its top level")
        return [Version(journey, folder.templates) for journey in folder.journeys]
    if not path.exists() and (found := PUBLISHED.match(text)):
        if published is None:
            raise JourneyError(f"{text} is a version that was published; name the data folder with --data DIR")
        return [_published(published, tenant, found[1], int(found[2]))]
    journey = find_version(text).journey
    place = path if path.exists() else Path(text.rpartition(":")[0])
    templates = (place if place.is_dir() else place.parent) / "templates"
    return [Version(journey, dict(read_templates(templates)))]


def compare_sides(
    old: Sequence[Version], new: Sequence[Version], runs: Mapping[Place, int] | None = None
) -> Comparisons:
    """Return the differences between two sides, journey by journey. Two single journeys need not have one name."""
    if len(old) == len(new) == 1:
        return Comparisons([_compare(old[0], new[0], runs)])
    before = {version.journey.name: version for version in old}
    after = {version.journey.name: version for version in new}
    return Comparisons(
        [_compare(before[name], after[name], runs) for name in sorted(before.keys() & after.keys())],
        [before[name].journey.label for name in sorted(before.keys() - after.keys())],
        [after[name].journey.label for name in sorted(after.keys() - before.keys())],
    )


def _compare(old: Version, new: Version, runs: Mapping[Place, int] | None) -> Comparison:
    difference = compare(old.journey, new.journey, old.texts, new.texts)
    if runs is None:
        return Comparison(difference)
    here = {(version, step): count for (name, version, step), count in runs.items() if name == old.journey.name}
    return Comparison(difference, fates(difference, here))


def _published(published: Definitions, tenant: str, name: str, version: int) -> Version:
    definition = published.find(f"{tenant}/journey/{name}@{version}")
    if definition is None:
        there = sorted(
            each.version for each in published.all() if (each.tenant, each.kind, each.name) == (tenant, "journey", name)
        )
        what = f"published are {', '.join(f'{name}@{each}' for each in there)}" if there else "no version of it is"
        raise JourneyError(f"{name}@{version} was not published for the tenant {tenant!r}; {what}")
    journey = thaw(definition)
    return Version(journey, dict(_published_texts(published, tenant, journey)))


def _published_texts(published: Definitions, tenant: str, journey: Journey) -> Iterator[tuple[str, dict[str, str]]]:
    for name, reference in journey.templates.items():
        template = published.find(f"{tenant}/template/{reference}")
        if template is not None:
            yield name, msgspec.json.decode(template.body, type=dict[str, str])
