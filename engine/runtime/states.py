"""How the states of a partition of users are laid out in its store, byte for byte.

    u<tenant:user>           a user:        format byte, earliest due (8 bytes, 0: none), msgpack of `User`
    s<tenant:user>           seen ids that outgrew the user's state: 12-byte cells
    a<tenant/journey/name>   what is active: msgpack of the versions that were activated, in order, each with its hash
    p                        the partition itself: format byte, clock (8 bytes, ms)

The due time stands before the msgpack, so that the timers of a recovered store are found without decoding it.
"""

import msgspec
from msgspec import Struct

from engine.runtime.host import PartitionStopped
from schemas.state import User

FORMAT = 1
USER, SEEN, ACTIVE, PARTITION = b"u", b"s", b"a", b"p"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(User).decode


class Activation(Struct, frozen=True, array_like=True):
    """One version that was activated. The last in the list is the current one."""

    version: int
    hash: str


_activations = msgspec.msgpack.Decoder(list[Activation])


def encode_user(user: User, due_at: int | None) -> bytes:
    return b"%c%b%b" % (FORMAT, (due_at or 0).to_bytes(8, "big"), _encode(user))


def decode_user(raw: bytes) -> User:
    """Return the user of a state. Raises PartitionStopped for a format that this version doesn't know."""
    check_format(raw)
    return _decode(memoryview(raw)[9:])


def encode_activations(activations: list[Activation]) -> bytes:
    return _encode(activations)


def decode_activations(raw: bytes) -> list[Activation]:
    return _activations.decode(raw)


def encode_clock(clock: int) -> bytes:
    return b"%c%b" % (FORMAT, clock.to_bytes(8, "big"))


def decode_clock(raw: bytes | None) -> int:
    """Return the partition's clock in milliseconds, 0 for a new partition."""
    if raw is None:
        return 0
    check_format(raw)
    return int.from_bytes(raw[1:9], "big")


def check_format(raw: bytes) -> None:
    if raw[0] != FORMAT:
        raise PartitionStopped(
            f"the store holds states of format {raw[0]}, and this version reads format {FORMAT};"
            " run the version that wrote them"
        )
