"""How a definition is frozen into JSON with a hash, and read back.

A frozen journey names its templates by content (`cart_reminder@5f0c1d2e3a4b`), so a version sends for ever what it sent when
it was published. Templates are definitions of their own, under the first 12 hex digits of their hash instead of a version.
"""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from weakref import WeakValueDictionary

import msgspec
from pydantic import TypeAdapter, ValidationError

from engine.errors import JourneyError
from engine.journey import Journey
from engine.mistakes import explain
from engine.policy import Policy
from schemas.definitions import Definition

PARTS = ("subject", "html", "text", "json")
MAX_BODY_BYTES = 900_000  # a definition is one record, and a broker takes 1 MB unless told otherwise

_JOURNEY = TypeAdapter(Journey)
_POLICY = TypeAdapter(Policy)


def freeze(tenant: str, journey: Journey, templates: Mapping[str, Mapping[str, str]]) -> list[Definition]:
    """Return the definitions to publish for a journey: its templates first, the journey last.

    `templates` maps a name to its parts (subject, html, text, json: Liquid sources). Raises JourneyError if a template that
    the journey sends is not among them.
    """
    frozen: dict[str, Definition] = {}
    for name in journey.template_names():
        if name not in templates:
            raise JourneyError(
                f"{journey.label}: there is no template {name!r}; put {name}.html and {name}.subject.txt into the"
                " journeys' templates folder"
            )
        frozen[name] = freeze_template(tenant, name, templates[name])
    refs = {name: f"{name}@{definition.hash[:12]}" for name, definition in frozen.items()}
    body = dump(replace(journey, templates=refs))
    return [*frozen.values(), _definition(tenant, "journey", journey.name, journey.version, body)]


def freeze_template(tenant: str, name: str, parts: Mapping[str, str]) -> Definition:
    """Return the definition of a template; empty parts are left out."""
    body = msgspec.json.encode({part: parts[part] for part in PARTS if parts.get(part)})
    return _definition(tenant, "template", name, 0, body)


def thaw(definition: Definition) -> Journey:
    """Return the journey of a definition. Raises JourneyError if the body isn't one, or isn't what its hash says."""
    return _load_once(_checked(definition))


def freeze_policy(tenant: str, policy: Policy) -> Definition:
    """Return the definition to publish for a policy."""
    return _definition(tenant, "policy", policy.name, policy.version, dump_policy(policy))


def thaw_policy(definition: Definition) -> Policy:
    """Return the policy of a definition. Raises JourneyError if the body isn't one, or isn't what its hash says."""
    return load_policy(_checked(definition))


def _checked(definition: Definition) -> bytes:
    body = bytes(definition.body)
    if sha256(body).hexdigest() != definition.hash:
        raise JourneyError(f"{definition.key}: the body is not the one that was published (its SHA-256 differs)")
    return body


def dump(journey: Journey) -> bytes:
    """Return the journey as JSON: the same journey always as the same bytes. Durations are ISO 8601 (`PT1H`)."""
    return _JOURNEY.dump_json(journey, exclude_defaults=False)


_alive: WeakValueDictionary[bytes, Journey] = WeakValueDictionary()  # by body; what nobody has any more is gone


def _load_once(body: bytes) -> Journey:
    """Tenants may have the same journey, and every partition of a process has all of them: read and keep it once."""
    journey = _alive.get(body)
    if journey is None:
        journey = _alive[body] = load(body)
    return journey


def load(body: bytes | str) -> Journey:
    """Return the journey written as JSON. Raises JourneyError that says where it is wrong."""
    try:
        return _JOURNEY.validate_json(body)
    except ValidationError as error:
        raise JourneyError(explain(error)) from None


def dump_policy(policy: Policy) -> bytes:
    """Return the policy as JSON: the same policy always as the same bytes."""
    return _POLICY.dump_json(policy)


def load_policy(body: bytes | str) -> Policy:
    """Return the policy written as JSON. Raises JourneyError that says where it is wrong."""
    try:
        return _POLICY.validate_json(body)
    except ValidationError as error:
        raise JourneyError(explain(error)) from None


def _definition(tenant: str, kind: str, name: str, version: int, body: bytes) -> Definition:
    if len(body) > MAX_BODY_BYTES:
        raise JourneyError(
            f"the {kind} {name} takes {len(body)} bytes; {MAX_BODY_BYTES} is the limit: make it smaller, or two"
        )
    return Definition(tenant, kind, name, version, sha256(body).hexdigest(), msgspec.Raw(body))
