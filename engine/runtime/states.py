"""How the states of a partition of users are laid out in its store, byte for byte.

    u<tenant:user>           a user:        format byte, earliest due (8 bytes, 0: none), msgpack of `User`
    s<tenant:user>           seen ids that outgrew the user's state: 12-byte cells
                             (also quotas and campaigns, under tenant/kind:name; their due time and msgpack alike)
    a<tenant/kind/name>      what is active: msgpack of the versions that were activated, in order, each with its hash
    c<tenant/journey>        what operators have said about a journey: msgpack of `Control`
    p                        the partition itself: format byte, clock (8 bytes, ms)

The due time stands before the msgpack, so that the timers of a recovered store are found without decoding it.
"""

import msgspec
from msgspec import Struct

from engine.catalog import Control
from engine.runtime.host import PartitionStopped
from schemas.state import Campaign, Quota, User

Place = tuple[str, int, str]  # journey, version, step

FORMAT = 1
USER, SEEN, ACTIVE, CONTROL, PARTITION = b"u", b"s", b"a", b"c", b"p"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(User).decode
_quota = msgspec.msgpack.Decoder(Quota).decode
_campaign = msgspec.msgpack.Decoder(Campaign).decode


class Activation(Struct, frozen=True, array_like=True):
    """One version that was activated. The last in the list is the current one."""

    version: int
    hash: str
    at: int = 0  # ms


_activations = msgspec.msgpack.Decoder(list[Activation])


def encode_actor(actor: User | Quota | Campaign, due_at: int | None) -> bytes:
    return b"%c%b%b" % (FORMAT, (due_at or 0).to_bytes(8, "big"), _encode(actor))


def due_in(raw: bytes | None) -> int | None:
    """Return the due time in an actor's state, or None."""
    return None if raw is None else int.from_bytes(raw[1:9], "big") or None


def decode_user(raw: bytes) -> User:
    """Return the user of a state. Raises PartitionStopped for a format that this version doesn't know."""
    check_format(raw)
    return _decode(memoryview(raw)[9:])


def places_in(raw: bytes) -> list[Place]:
    """Return where the runs of a user's state are, suspended ones too. Raises PartitionStopped as `decode_user` does."""
    return [(run.journey, run.version, run.step) for run in decode_user(raw).runs]


def decode_quota(raw: bytes | None) -> Quota:
    return Quota() if raw is None else _quota(memoryview(raw)[9:])


def decode_campaign(raw: bytes) -> Campaign:
    return _campaign(memoryview(raw)[9:])


def encode_control(control: Control) -> bytes:
    return _encode(control)


def decode_control(raw: bytes) -> Control:
    return msgspec.msgpack.decode(raw, type=Control)


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
