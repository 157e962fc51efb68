"""What an event may be, and what a run keeps of it."""

from collections.abc import Mapping
from typing import Any

from engine.errors import InvalidInput
from engine.operators import read
from engine.profiles import encoded_size
from schemas.inputs import Entered, Event

MAX_CARRIED_BYTES = 2048  # what a run keeps of the event that began it
MAX_ANSWER_BYTES = 4096  # what a run keeps of an answer
MAX_NAME = 256  # characters of an event's name and of its id: both are repeated in every journal entry it causes
MAX_DEPTH = 64  # levels: what nests deeper than the interpreter's stack could be stored and not be read again
MAX_WORTH = 64  # characters of a goal's value that is a text, such as "12.50"

NESTED = frozenset({dict, list})


def check(event: Event) -> None:
    """Raise InvalidInput for an event that can't be folded, whoever wrote it into the log."""
    if not 0 < len(event.id) <= MAX_NAME or not 0 < len(event.name) <= MAX_NAME:
        raise InvalidInput(f"an event has an id and a name, each of 1 to {MAX_NAME} characters")
    check_nesting(event.properties, "the event")
    if event.profile:
        check_nesting(event.profile, "the event")


def check_entry(entered: Entered) -> None:
    """Raise InvalidInput for an entry that can't be folded, whoever wrote it into the log."""
    if not 0 < len(entered.id) <= 2 * MAX_NAME or not 0 < len(entered.by) <= MAX_NAME:
        raise InvalidInput(f"an entry has an id of up to {2 * MAX_NAME} characters, and says by whom in {MAX_NAME}")
    check_nesting(entered.properties, "the entry")


def check_nesting(values: dict[str, Any], what: str) -> None:
    """Raise InvalidInput if values nest deeper than a state may."""
    if not NESTED.isdisjoint(map(type, values.values())) and nests_too_deep(values):
        raise InvalidInput(f"{what} nests deeper than {MAX_DEPTH} levels")


def nests_too_deep(values: dict[str, Any]) -> bool:
    """Are there objects or arrays below `MAX_DEPTH` levels of them?"""
    level: list[Any] = [values]
    for _ in range(MAX_DEPTH):
        members = [list(item.values()) if type(item) is dict else item for item in level]
        level = [item for items in members for item in items if type(item) in NESTED]
        if not level:
            return False
    return True


def key_in(properties: Mapping[str, Any], path: str | None) -> str | None:
    """Return the value of a journey's key, as a text; None if there is no key or the properties lack it."""
    if path is None:
        return None
    value = read(properties, path)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return str(value)[:128]


def worth_of(properties: Mapping[str, Any], name: str | None) -> float | str | None:
    """Return what a goal is worth: a number, or a short text such as "12.50"; None if the event doesn't say."""
    value = read(properties, name) if name else None
    if isinstance(value, str):
        return value if len(value) <= MAX_WORTH else None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return value
    return None


def carried(properties: dict[str, Any], limit: int = MAX_CARRIED_BYTES) -> dict[str, Any]:
    """Return what a run keeps of an event: all properties in their order as long as they fit, encoded."""
    size = encoded_size(properties)
    if size is not None and size <= limit:
        return properties
    kept: dict[str, Any] = {}
    for name, value in properties.items():
        size = encoded_size({name: value})
        if size is not None and size <= limit:
            kept[name] = value
            limit -= size
    return kept
