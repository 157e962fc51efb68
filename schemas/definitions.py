"""The envelope in which a definition (a journey, a template ...) is frozen, published and stored."""

from typing import Literal

from msgspec import Raw, Struct

STANDING = "active"  # the kind under which a `Standing` is kept; its name is `kind/name` of what it is about


class Definition(Struct, frozen=True):
    """One version of one definition, never changed once published. `hash` is the SHA-256 of `body` (canonical JSON), hex."""

    tenant: str
    kind: str
    name: str
    version: int
    hash: str
    body: Raw

    @property
    def key(self) -> str:
        """The key in the compacted topic `definitions`."""
        if self.kind == STANDING:
            return f"{self.tenant}/{STANDING}/{self.name}"
        return f"{self.tenant}/{self.kind}/{self.name}@{self.version or self.hash[:12]}"


class Standing(Struct, frozen=True, omit_defaults=True):
    """Which version of a definition is current, and what operators have said about it.

    The body of the definition that is kept, and overwritten, under `tenant/active/kind/name`. Instants in ms; 0 where it
    isn't so. The records that made it so have been appended together with it: partitions go by those.
    """

    version: int
    since_at: int = 0
    paused_at: int = 0
    closed: Literal["", "stopped", "retired"] = ""  # nobody enters any more
    closed_at: int = 0
    hash: str = ""  # of a shadow: which body runs
