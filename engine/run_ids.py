"""What a run is called: a text that is the same whenever and wherever the same log is folded."""

from hashlib import blake2b
from itertools import product

from engine.journey import Journey

# Two letters for ten bits at once: as base64.b32encode, which takes twice as long, and a run begins at one event in ten.
_PAIRS = ["".join(pair) for pair in product("abcdefghijklmnopqrstuvwxyz234567", repeat=2)]
_SHIFTS = range(70, -1, -10)


def run_id(tenant: str, user_id: str, journey: Journey, event_id: str, key: str | None, now: int) -> str:
    """Return `<journey>.<version>.<16 letters>`: 80 bits of BLAKE2b over what makes the run the one it is."""
    told = "\0".join([tenant, user_id, journey.name, str(journey.version), event_id, key or "", str(now)])
    return f"{journey.name}.{journey.version}.{_letters(blake2b(told.encode(), digest_size=10).digest())}"


def _letters(digest: bytes) -> str:
    """Return ten bytes in the alphabet of RFC 4648, section 6, in small letters."""
    bits = int.from_bytes(digest, "big")
    return "".join([_PAIRS[bits >> shift & 1023] for shift in _SHIFTS])
