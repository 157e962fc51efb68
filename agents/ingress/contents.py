"""What an event may contain: strict JSON of bounded size and depth, with numbers that fit into 64 bits.

What is let through here is decoded, kept and encoded again for years by the engine, by warehouses and by other people's
programs, so nothing passes that one of them would have to guess about.
"""

from typing import Any, Final

from msgspec import ValidationError

from agents.ingress.refusals import Refusal

LARGEST_EVENT: Final = 32 << 10  # bytes; Segment's limit, and its SDKs hold to it
DEEPEST: Final = 64  # levels; real events have three or four, and recursion in C ends at about a thousand
LONGEST_ID: Final = 256  # characters: a user, a message id, the name of an event

_DIGITS_AS_ZEROS: Final = bytes(0x30 if 0x30 <= byte <= 0x39 else byte for byte in range(256))
_LONG_NUMBER: Final = b"0" * 19  # digits: fewer always fit into 64 bits


def check(raw: bytes, content: dict[str, Any]) -> None:
    """Raise a Refusal if an event's decoded properties are too deep, or have a number beyond 64 bits.

    The bytes tell almost always, at a fraction of the cost, that there is nothing to look for.
    """
    if raw.count(b"{") + raw.count(b"[") > DEEPEST or _LONG_NUMBER in raw.translate(_DIGITS_AS_ZEROS):
        _look_into(content, 1)


def _look_into(value: object, depth: int) -> None:
    if depth > DEEPEST:
        raise Refusal("too_deep", f"the event is nested more than {DEEPEST} deep")
    if isinstance(value, dict):
        for item in value.values():
            _look_into(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _look_into(item, depth + 1)
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        raise Refusal("number", "a number does not fit into 64 bits; send it as a string")


def undecodable(error: Exception) -> Refusal:
    """What is wrong with bytes that a decoder did not take: `number`, `type`, `too_deep` or `not_json`."""
    said = str(error)
    if isinstance(error, RecursionError):
        return Refusal("too_deep", "the JSON is nested too deeply")
    if "out of range" in said:
        return Refusal("number", f"a number is too large: {said}"[:200])
    return Refusal("type" if isinstance(error, ValidationError) else "not_json", said[:200])


def identifier(value: str | int | float | None, what: str) -> str:
    """An id as text, empty if there is none. Raises a Refusal if it is too long or has control characters."""
    if value is None:
        return ""
    if isinstance(value, float):
        value = int(value) if value.is_integer() else repr(value)
    written = value if isinstance(value, str) else str(value)
    if len(written) > LONGEST_ID:
        raise Refusal("too_long", f"{what} is longer than {LONGEST_ID} characters")
    if not written.isprintable() and any(map(_is_never_part_of_an_id, written)):
        raise Refusal("control_character", f"{what} contains a control character")
    return written


def _is_never_part_of_an_id(character: str) -> bool:
    """Control characters, and the halves of surrogate pairs, which is how bytes in a header arrive that are not UTF-8."""
    return character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff"
