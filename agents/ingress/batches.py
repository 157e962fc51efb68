"""How the body of a batch is taken apart into its events, so that a bad one does not take the others with it.

Almost always one strict pass does it, which leaves each event as the bytes it was sent as. Where that fails (Python
writes NaN, a log line was cut in the middle of a surrogate pair, somebody nests 10,000 deep) the brackets alone are
counted: enough to tell the events apart, each of which is then judged by itself. If even the brackets do not match, or
what is around the events is wrong, it is no batch.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from msgspec import DecodeError, Raw, Struct
from msgspec.json import Decoder

from agents.ingress import contents

MOST_BRACKETS: Final = 65_536  # 2,500 events of a dozen objects and lists each; counting them takes about 20 ms


class Envelope(Struct, rename="camel"):
    """A batch: its events, undecoded, and what stands around them."""

    batch: Sequence[Raw | bytes]
    sent_at: Any = None
    write_key: Any = None


class _Strict(Struct, rename="camel"):
    batch: list[Raw]
    sent_at: Any = None
    write_key: Any = None


_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_UP_TO_BRACKET = re.compile(rb"(?:[^\"\[\]{}]++|" + _STRING + rb")*+([\[\]{}])", re.DOTALL)
_UP_TO_BRACKET_OR_COMMA = re.compile(rb"(?:[^\"\[\]{},]++|" + _STRING + rb")*+([\[\]{},])", re.DOTALL)
_NAME_BEFORE = re.compile(rb'(?<!\\)"batch"\s*:\s*\Z')

_decoder = Decoder(_Strict)


def read(body: bytes) -> Envelope:
    """Take a batch apart. Raises a Refusal if it is not one."""
    try:
        strict = _decoder.decode(body)
        return Envelope(strict.batch, strict.sent_at, strict.write_key)
    except (DecodeError, ValueError, RecursionError) as error:
        events, envelope = _split(body, error)
    try:
        strict = _decoder.decode(envelope)
    except (DecodeError, ValueError, RecursionError) as error:
        raise contents.undecodable(error) from None
    return Envelope(events, strict.sent_at, strict.write_key)


def read_list(body: bytes) -> Envelope:
    """Take a batch apart that is the bare list of its events. Raises a Refusal if it is none."""
    return read(b'{"batch":%b}' % body)


def _split(body: bytes, error: Exception) -> tuple[list[bytes], bytes]:
    """The elements of the array `batch`, and the body with that array emptied."""
    depth = position = brackets = 0
    start = element = -1
    events: list[bytes] = []
    while found := (_UP_TO_BRACKET_OR_COMMA if start >= 0 and depth == 2 else _UP_TO_BRACKET).match(body, position):
        bracket = found[1]
        if bracket == b",":
            events.append(body[element : found.end() - 1].strip())
            element = found.end()
        elif bracket in b"[{":
            depth += 1
            if bracket == b"[" and depth == 2 and _NAME_BEFORE.search(body, position, found.end() - 1):
                start = element = found.end()
        else:
            depth -= 1
            if start >= 0 and depth == 1:
                end = found.end() - 1
                if last := body[element:end].strip():
                    events.append(last)
                return events, body[:start] + body[end:]
        position = found.end()
        brackets += 1
        if depth <= 0 or brackets > MOST_BRACKETS:
            break
    raise contents.undecodable(error)
