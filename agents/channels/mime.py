"""How a mail is written down: headers and parts, as bytes that every server takes (RFC 5322, 2045, 2047).

The standard library's older message class is used, and parts are encoded beforehand: its newer one parses each header it
writes and encodes character by character, which took two of three milliseconds a mail.
"""

import binascii
import io
import re
from collections.abc import Mapping
from email.generator import BytesGenerator
from email.header import Header
from email.message import Message
from email.policy import compat32

# 7 bit throughout: every server takes it, and none has to re-encode it and break a signature.
_POLICY = compat32.clone(linesep="\r\n", max_line_length=78)
_LINE_END = "\r\n"
_FOLD = "\r\n "
_LINE_CHARACTERS = 900  # 998 are allowed; only a URL with ids of hundreds of characters comes there
_LINE_ENDS = re.compile(r"\r\n|\r")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")


def compose(headers: Mapping[str, str], text: str, html: str | None) -> bytes:
    """Return the mail, with CRLF at the ends of lines. Raises ValueError for a header with a line end in it."""
    mail = _text_part("plain", text)
    if html is not None:
        parts = [mail, _text_part("html", html)]
        mail = Message(_POLICY)
        mail.add_header("Content-Type", "multipart/alternative")  # the generator finds a boundary
        for part in parts:
            mail.attach(part)
    mail["MIME-Version"] = "1.0"
    written = io.BytesIO()
    written.write("".join(_header(name, value) for name, value in headers.items()).encode("ascii"))
    BytesGenerator(written, mangle_from_=False, policy=_POLICY).flatten(mail)
    return written.getvalue()


def _header(name: str, value: str) -> str:
    """One header. ASCII stays in its line: some programs don't find the URL or the id in a line of their own."""
    if _FORBIDDEN.search(value):
        raise ValueError(f"the header {name} can't hold control characters: {value[:100]!r}")
    if value.isascii():
        pieces = [value[start : start + _LINE_CHARACTERS] for start in range(0, len(value), _LINE_CHARACTERS)]
        return f"{name}: {_FOLD.join(pieces)}\r\n"
    return f"{name}: {Header(value, 'utf-8', header_name=name).encode(linesep=_LINE_END)}\r\n"


def one_line(text: str) -> str:
    """A text fit for a header: no line ends, or what follows them would be headers as well."""
    return re.sub(r"[\x00-\x20\x7f-\xa0\u2028\u2029]+", " ", text).strip()


def _text_part(subtype: str, text: str) -> Message:
    part = Message(_POLICY)
    part["Content-Type"] = f'text/{subtype}; charset="utf-8"'
    part["Content-Transfer-Encoding"] = "quoted-printable"
    lines = _LINE_ENDS.sub("\n", text).removesuffix("\n") + "\n"
    part.set_payload(binascii.b2a_qp(lines.encode(), istext=True).decode("ascii"))
    return part
