"""How the schemas of a folder of journeys are read: what events and the profile are declared to hold.

    journeys/schemas/<event>.json    the JSON Schema of an event's properties
    journeys/schemas/profile.json    of the users' attributes
    journeys/schemas/*.py            the same as pydantic models: `class CartUpdated` declares the event cart_updated,
                                     `class Profile` the profile; a title in the model's config is the event's name

A profile may be declared once, and so may an event.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from agents.folder import run_module
from engine.errors import JourneyError
from engine.event_schemas import Declarations, Shape

PROFILE = "profile"


def read_declarations(path: Path) -> Declarations:
    """Return what is declared in a folder's `schemas`, nothing if there is none. Raises JourneyError, naming the file."""
    found: dict[str, tuple[Path, Shape]] = {}
    for file, name, schema in _schemas(path / "schemas"):
        if name in found:
            raise JourneyError(f"{file}: {name!r} is declared in {found[name][0]} already; declare it once")
        try:
            found[name] = file, Shape.of(schema)
        except JourneyError as error:
            raise JourneyError(f"{file}: {name}: {error}") from None
    events = {name: shape for name, (_, shape) in found.items() if name != PROFILE}
    return Declarations(events, found[PROFILE][1] if PROFILE in found else None)


def _schemas(path: Path) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    for file in sorted(path.iterdir()) if path.is_dir() else ():
        if file.name.startswith((".", "_")):
            continue
        if file.suffix == ".json":
            yield file, file.stem, _read_json(file)
        elif file.suffix == ".py":
            for name, schema in _models(file):
                yield file, name, schema


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JourneyError(f"{file}: a schema is a JSON object: {error}") from None


def _models(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the schemas of the models that a module defines; those it imports belong to others."""
    module = run_module(file)
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == module.__name__:
            try:
                schema = value.model_json_schema()
            except PydanticUserError as error:
                raise JourneyError(f"{file}: {value.__name__}: {error.message}") from None
            yield value.model_config.get("title") or _snake_case(value.__name__), schema


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
