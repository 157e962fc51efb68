"""The envelope in which a definition (a journey, a template ...) is frozen, published and stored."""

from msgspec import Raw, Struct


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
        return f"{self.tenant}/{self.kind}/{self.name}@{self.version or self.hash[:12]}"
