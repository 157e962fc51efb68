"""What events and the profile are declared to hold: JSON Schemas, read for their properties and types.

An author declares an event by a JSON Schema; what isn't declared there isn't there, unless the schema says
`"additionalProperties": true` or lists no properties at all. Of the schema only that is read which tells a path that is
right from one that is wrong: `properties`, `type`, `enum`, `const`, `items`, `additionalProperties`, `required`, and what
combines schemas: `$ref` within the document, `anyOf`, `oneOf`, `allOf`. Events are not validated against it when they come
in.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import JourneyError

Schema = Mapping[str, Any]

KINDS = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})
MAX_DEPTH = 64  # levels of a schema that is being looked at: a $ref may lead back to itself


@dataclass(frozen=True)
class Shape:
    """What may be found at some place: any of the alternatives. None at all means that anything may be."""

    alternatives: tuple[Schema, ...] = ()
    root: Schema = field(default_factory=dict)

    @classmethod
    def of(cls, schema: Schema) -> "Shape":
        """Return the shape of a whole document. Raises JourneyError if it can't be read as a schema."""
        shape = cls(tuple(_expand(schema, schema)), schema)
        _check(schema, schema, "", 0)
        return shape

    def at(self, path: str) -> "Shape | None":
        """Return the shape at a path with dots, or None if nothing is declared there. A name with dots is found first."""
        whole = self.member(path)
        if whole is not None or "." not in path:
            return whole
        found: Shape | None = self
        for part in path.split("."):
            found = None if found is None else found.member(part)
        return found

    def member(self, name: str) -> "Shape | None":
        """Return the shape of a property, or None if no alternative has it."""
        if not self.alternatives:
            return self
        found: list[Schema] = []
        is_there = False
        for schema in self.alternatives:
            member = _member(schema, name)
            if member is not None:
                is_there = True
                found += _expand(member, self.root)
        return Shape(tuple(found) if all(found) else (), self.root) if is_there else None

    def item(self) -> "Shape | None":
        """Return the shape of an element, or None if no alternative is a list."""
        lists = [schema for schema in self.alternatives if _may_be(schema, "array")]
        if self.alternatives and not lists:
            return None
        items = [schema.get("items") for schema in lists]
        if not items or any(not isinstance(item, Mapping) for item in items):
            return Shape((), self.root)
        return Shape(tuple(each for item in items for each in _expand(item or {}, self.root)), self.root)

    def names(self) -> list[str]:
        """Return the names of the properties that are declared."""
        return list(dict.fromkeys(name for schema in self.alternatives for name in schema.get("properties", {})))

    def required(self) -> list[str]:
        """Return the properties that are always there."""
        lists = [set(schema.get("required", ())) for schema in self.alternatives]
        return sorted(set.intersection(*lists)) if lists else []

    def kinds(self) -> frozenset[str]:
        """Return the JSON types that may be found, empty where anything may be."""
        kinds: set[str] = set()
        for schema in self.alternatives:
            if not (own := _kinds(schema)):
                return frozenset()
            kinds |= own
        return frozenset(kinds)

    def values(self) -> list[Any] | None:
        """Return the only values that may be found, or None if they are not listed."""
        values: list[Any] = []
        for schema in self.alternatives:
            if "const" in schema:
                values.append(schema["const"])
            elif isinstance(schema.get("enum"), list):
                values += schema["enum"]
            elif _kinds(schema) == {"null"}:
                values.append(None)
            else:
                return None
        return values or None


@dataclass(frozen=True)
class Declarations:
    """The declared events by name, and the profile. What isn't declared is not checked."""

    events: Mapping[str, Shape] = field(default_factory=dict)
    profile: Shape | None = None


def _expand(schema: Any, root: Schema, depth: int = 0) -> Iterator[Schema]:
    """Yield the alternatives that a schema comes to, each without references and combinations."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        yield {}  # `true`, or too deep to be told apart from it
        return
    rest = {name: value for name, value in schema.items() if name not in ("$ref", "allOf", "anyOf", "oneOf")}
    parts = [_referred(schema["$ref"], root)] if "$ref" in schema else []
    parts += [part for part in schema.get("allOf", ()) if isinstance(part, Mapping)]
    combined: list[Schema] = [rest]
    for part in parts:
        options = list(_expand(part, root, depth + 1))
        combined = [_both(base, option) for base in combined for option in options]
    for choice in ("anyOf", "oneOf"):
        if options := [each for part in schema.get(choice, ()) for each in _expand(part, root, depth + 1)]:
            combined = [_both(base, option) for base in combined for option in options]
    yield from combined


def _both(one: Schema, other: Schema) -> Schema:
    merged = {**one, **other}
    for name in ("properties", "patternProperties"):
        if name in one and name in other:
            merged[name] = {**one[name], **other[name]}
    if "required" in one and "required" in other:
        merged["required"] = [*one["required"], *other["required"]]
    return merged


def _referred(reference: Any, root: Schema) -> Schema:
    found: Any = root
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise JourneyError(f"$ref {reference!r} leads out of the file; put what it names under $defs")
    for part in reference.removeprefix("#").strip("/").split("/") if reference != "#" else ():
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            raise JourneyError(f"$ref {reference!r} names nothing that is there")
        found = found[name]
    return found if isinstance(found, Mapping) else {}


def _member(schema: Schema, name: str) -> Any:
    """Return the schema of a property, {} where anything may be there, None where it can't be."""
    properties = schema.get("properties", {})
    if name in properties:
        return properties[name]
    if not _may_be(schema, "object"):
        return None
    if "patternProperties" in schema:
        return {}
    more = schema.get("additionalProperties", not properties)
    return {} if more is True else more if isinstance(more, Mapping) else None


def _kinds(schema: Schema) -> set[str]:
    kind = schema.get("type")
    if isinstance(kind, str):
        return {kind}
    if isinstance(kind, list):
        return set(kind)
    values = [schema["const"]] if "const" in schema else schema.get("enum", ())
    if values:
        return {kind_of(value) for value in values}
    return {"object"} if "properties" in schema else set()


def _may_be(schema: Schema, kind: str) -> bool:
    kinds = _kinds(schema)
    return not kinds or kind in kinds


def kind_of(value: Any) -> str:
    """Return the JSON type of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case Mapping():
            return "object"
        case _:
            return "array"


def _check(schema: Any, root: Schema, place: str, depth: int) -> None:
    """Raise JourneyError where a schema says what no schema can."""
    if isinstance(schema, bool) or depth > MAX_DEPTH:
        return
    where = f"at {place.strip('.')}: " if place else ""
    if not isinstance(schema, Mapping):
        raise JourneyError(f"{where}a schema is an object, not {schema!r}")
    kind = schema.get("type")
    for each in kind if isinstance(kind, list) else [] if kind is None else [kind]:
        if each not in KINDS:
            raise JourneyError(f"{where}{each!r} is not a type; types are {', '.join(sorted(KINDS))}")
    if "$ref" in schema:
        _referred(schema["$ref"], root)
    for container in ("properties", "patternProperties", "$defs", "definitions"):
        members = schema.get(container, {})
        if not isinstance(members, Mapping):
            raise JourneyError(f"{where}{container} is an object of names and schemas")
        for name, member in members.items():
            _check(member, root, f"{place}.{name}", depth + 1)
    for name in ("items", "additionalProperties"):
        if name in schema:
            _check(schema[name], root, f"{place}.{name}", depth + 1)
    for name in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(name, ()):
            _check(part, root, place, depth + 1)
