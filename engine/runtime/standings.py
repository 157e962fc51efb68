"""Which version of each definition is current, and what operators have said about it: as the topic `definitions` has it.

A standing is kept beside the bodies and overwritten with every act, in the atomic append of the records that partitions go
by. So whoever publishes, rolls back or asks needs no partition's state. A name without a standing was published before
there were any: its highest version is current.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256

import msgspec

from engine.runtime.host import Definitions
from schemas.definitions import STANDING, Definition, Standing

Name = tuple[str, str, str]  # tenant, kind, name

_decode = msgspec.json.Decoder(Standing).decode


class Standings:
    """How every published name stands at the moment."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._versions: dict[Name, list[int]] = {}
        for definition in definitions.all():
            if definition.version and definition.kind != STANDING:  # templates have no versions
                name = (definition.tenant, definition.kind, definition.name)
                self._versions.setdefault(name, []).append(definition.version)

    def of(self, tenant: str, kind: str, name: str) -> Standing | None:
        """Return how a name stands, or None if nothing was published under it."""
        kept = self._definitions.find(f"{tenant}/{STANDING}/{kind}/{name}")
        if kept is not None:
            return _decode(kept.body)
        highest = max(self._versions.get((tenant, kind, name), ()), default=None)
        return None if highest is None else Standing(highest)

    def versions(self, tenant: str, kind: str, name: str) -> Sequence[int]:
        """Return the versions that were published under a name, in order."""
        return sorted(self._versions.get((tenant, kind, name), ()))

    def all(self) -> Iterator[tuple[Name, Standing]]:
        """Yield every name with how it stands, in order."""
        for tenant, kind, name in sorted(self._versions):
            standing = self.of(tenant, kind, name)
            assert standing is not None
            yield (tenant, kind, name), standing


def as_definition(tenant: str, kind: str, name: str, standing: Standing) -> Definition:
    """Return what a standing is kept as."""
    body = msgspec.json.encode(standing)
    return Definition(tenant, STANDING, f"{kind}/{name}", standing.version, sha256(body).hexdigest(), msgspec.Raw(body))
