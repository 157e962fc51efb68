"""Which version of a journey is meant on a command line; or which journeys, where two folders are compared.

journeys/win_back.py             the module's journey, or a journey written as JSON
journeys/all.py:win_back         one of several in a module
journeys:win_back                one in a folder
win_back@1                       one that was published: a version among the data folder's definitions
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from agents.folder import read_folder, run_module
from engine.backtest import Version
from engine.definitions import load
from engine.errors import JourneyError
from engine.journey import Journey
from engine.policy import Policy

PUBLISHED = re.compile(r"([a-z][a-z0-9_]{0,63})@([0-9]{1,6})\Z")


def find_sides(
    old: str, new: str, published: Callable[[str, int], Journey | None] | None = None, policy: Policy | None = None
) -> tuple[Version, Version]:
    """Return what is to be played against each other: all that is in two folders, or two versions (see `find_version`).

    Raises JourneyError that says what is there instead.
    """
    if Path(old).is_dir() and Path(new).is_dir():
        return _whole(old), _whole(new)
    return find_version(old, published, policy), find_version(new, published, policy)


def _whole(place: str) -> Version:
    definitions = list(_definitions(Path(place)))
    journeys = [each for each in definitions if isinstance(each, Journey)]
    if not journeys:
        raise JourneyError(f"there is no journey in {place}; a journey is a module with a Journey at its top level")
    policies = tuple(each for each in definitions if isinstance(each, Policy))
    return Version(journeys[0], policies, journeys[1:], place if len(journeys) > 1 else "")


def find_version(
    text: str, published: Callable[[str, int], Journey | None] | None = None, policy: Policy | None = None
) -> Version:
    """Return the version that is meant, with the policy of its folder, or for a published one the `policy` given.

    Raises JourneyError that says what is there instead.
    """
    place, colon, name = text.rpartition(":")
    if Path(text).exists() or not colon:
        place, name = text, ""
    found = PUBLISHED.match(text)
    if found and not Path(text).exists():
        journey = published(found[1], int(found[2])) if published else None
        if journey is None:
            where = "in the data folder" if published else "known: --events names no data folder"
            raise JourneyError(f"no version {text} is {where}; name a module, a JSON file, or folder:name")
        return Version(journey, () if policy is None else (policy,))
    definitions = list(_definitions(Path(place)))
    journeys = [each for each in definitions if isinstance(each, Journey)]
    matching = [journey for journey in journeys if not name or journey.name == name]
    if len(matching) == 1:
        return Version(matching[0], tuple(each for each in definitions if isinstance(each, Policy)))
    names = ", ".join(journey.name for journey in journeys)
    if not journeys:
        raise JourneyError(f"there is no journey in {place}; a journey is a module with a Journey at its top level")
    if not matching:
        raise JourneyError(f"{place} has no journey {name!r}; it has {names}")
    raise JourneyError(
        f"{place} has several journeys: {names}; say which: {place}:{matching[0].name}; or name two folders, to compare"
        " all of them"
    )


def _definitions(place: Path) -> Iterator[Journey | Policy]:
    if place.is_dir():
        folder = read_folder(place)
        yield from folder.journeys
        if folder.policy is not None:
            yield folder.policy
    elif not place.is_file():
        raise JourneyError(f"there is no file or folder {place}; a version is a module, a JSON file, or folder:name")
    elif place.suffix == ".json":
        try:
            yield load(place.read_bytes())
        except JourneyError as error:
            raise JourneyError(f"{place}: {error}") from None
    else:
        found = {each.name: each for each in vars(run_module(place)).values() if isinstance(each, Journey | Policy)}
        yield from found.values()
