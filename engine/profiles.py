"""How a profile takes changes, and how large it may grow."""

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.errors import InvalidInput

_encode = msgspec.msgpack.Encoder().encode

MAX_ATTRIBUTES = 512
MAX_PROFILE_BYTES = 65_536  # encoded; twice the largest event


def merged(profile: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profile with the changes; None removes an attribute. Raises InvalidInput if it grows beyond its limits."""
    after = {name: value for name, value in {**profile, **changes}.items() if value is not None}
    if len(after) > MAX_ATTRIBUTES:
        raise InvalidInput(f"the profile would have {len(after)} attributes; {MAX_ATTRIBUTES} is the limit")
    size = encoded_size(after)
    if size is None:
        raise InvalidInput("the profile would hold a number beyond 64 bits, or be nested too deep")
    if size > MAX_PROFILE_BYTES:
        raise InvalidInput(f"the profile would take {size} bytes; {MAX_PROFILE_BYTES} is the limit")
    return after


def changes_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names of the attributes that differ, in order."""
    if before is after:
        return []
    return sorted(name for name in {**before, **after} if before.get(name) != after.get(name))


def encoded_size(value: Any) -> int | None:
    """Return how many bytes a value takes in a state, or None if a state can't hold it."""
    try:
        return len(_encode(value))
    except (OverflowError, RecursionError, ValueError, TypeError):
        return None
