"""Values that are filled in when a step is reached: written as data, so that they can be drawn, checked and stored.

    Update({"last_cart": value("event.cart_id"), "stage": "reminded"}, then=...)

A path begins with where it looks: `event` (the properties of the event that began the run), `profile`, `answer` (what a call
of this run was answered, by step) or `run` (id, journey, key).
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from engine.conditions import FORBID
from engine.operators import ABSENT, Scalar, read
from engine.profiles import encoded_size
from schemas.state import Run

SOURCES = ("event", "profile", "answer", "run")
MAX_FILLED_BYTES = (
    32_768  # of one step, as an event has at most over HTTP; a record of a megabyte would stop a partition
)


@dataclass(frozen=True, config=FORBID)
class Path:
    """What is found at a path; `default` where nothing is."""

    path: str = Field(pattern=r"^(event|profile|answer|run)\.[^.].*$", max_length=256)
    default: Scalar = None
    kind: Literal["path"] = "path"

    def __str__(self) -> str:
        return self.path if self.default is None else f"{self.path} or {self.default!r}"


Filled = Scalar | Path  # the type that fits best, not the first that can be made of it: "01234" stays a text


def value(path: str, default: Scalar = None) -> Path:
    """What is found at a path when the step is reached: `value("profile.first_name", default="there")`."""
    return Path(path, default)


def fill(template: Mapping[str, Filled], run: Run, profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with every path read. What is absent, without a default, is None.

    Raises TooLarge if they take more than a record of the log should.
    """
    filled = {name: _read(each, run, profile) if isinstance(each, Path) else each for name, each in template.items()}
    size = encoded_size(filled)
    if size is None or size > MAX_FILLED_BYTES:
        raise TooLarge(f"the values filled in take {size} bytes; {MAX_FILLED_BYTES} is the limit")
    return filled


def _read(path: Path, run: Run, profile: Mapping[str, Any]) -> Any:
    source, _, rest = path.path.partition(".")
    match source:
        case "event":
            found = read(run.event, rest)
        case "profile":
            found = read(profile, rest)
        case "answer":
            found = read(run.answers, rest)
        case _:
            found = {"id": run.id, "journey": run.journey, "key": run.key}.get(rest, ABSENT)
    return path.default if found is ABSENT or found is None else found


class TooLarge(Exception):  # noqa: N818 - says what is the case
    """What was filled in is too large: the run is suspended until its journey, or the profile, is mended."""
