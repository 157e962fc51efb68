"""Whose request it is: the tenant belongs to the write key and to nothing else in the request.

A key comes as the user name of Basic authentication (Segment's server SDKs), as a Bearer token, or as `writeKey` in the
body (browsers and phones). A header that is there counts; the body is not asked then.

Keys are kept as keyed hashes under a secret made at start. Finding a hash in a dictionary takes time that depends on
the hash, but nobody outside can compute one, so nothing can be learned about a key from how long an answer takes.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping

from pydantic import SecretStr

from agents.ingress.refusals import Refusal

LONGEST_KEY = 1024  # characters: longer ones are nobody's


class WriteKeys:
    """The write keys of all tenants, as hashes."""

    def __init__(self, keys: Mapping[str, Iterable[SecretStr]]) -> None:
        self._secret = secrets.token_bytes(32)
        self._tenants: dict[bytes, tuple[bytes, str]] = {}
        for tenant, tenants_keys in keys.items():
            for key in tenants_keys:
                digest = self._hash(key.get_secret_value())
                if self._tenants.setdefault(digest, (digest, tenant))[1] != tenant:
                    raise ValueError(f"{tenant} has a write key that another tenant has too")

    def tenant(self, key: object) -> str:
        """The tenant a key belongs to. Raises a Refusal if there is no such key."""
        if not isinstance(key, str) or not key:
            raise Refusal("write_key", "send the write key: Basic or Bearer authentication, or writeKey in the body")
        digest = self._hash(key) if len(key) <= LONGEST_KEY else b""
        known, tenant = self._tenants.get(digest, (b"", ""))
        if not hmac.compare_digest(known, digest) or not digest:
            raise Refusal("write_key", "no such write key")
        return tenant

    def _hash(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=32).digest()


def key_in_header(authorization: str | None) -> str | None:
    """The key in an Authorization header, or None if there is no such header, or none that carries a key."""
    if authorization is None:
        return None
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "basic":
            try:
                return base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")[0]
            except (binascii.Error, UnicodeDecodeError):
                raise Refusal("write_key", "the Authorization header is not valid Basic authentication") from None
        case "bearer":
            return value.strip()
        case _:
            return None
