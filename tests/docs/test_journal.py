"""That the page on the journal says of an entry what the code says."""

import re
from typing import get_args

import msgspec

from schemas.journal import LINES_TYPE, MOST_BYTES, read_entries
from schemas.outputs import JournalEntry, JournalKind
from tests.docs.pages import DOCS, blocks

PAGE = (DOCS / "journal.md").read_text("utf-8")


def test_every_field_and_every_kind_is_explained() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"\w+", row)]
    assert sorted(named) == sorted([*JournalEntry.__struct_fields__, *get_args(JournalKind)])


def test_the_entry_shown_is_one() -> None:
    [shown] = [block.text for block in blocks("journal.md") if block.language == "json"]
    line = msgspec.json.encode(msgspec.json.decode(shown))
    [entry] = read_entries(line)
    assert msgspec.json.encode(entry) == line, "all of it is known, in this order"


def test_type_and_size_of_a_record_are_as_they_are() -> None:
    assert f"{LINES_TYPE[0]}: {LINES_TYPE[1].decode()}" in PAGE
    assert f"{MOST_BYTES >> 10} KiB" in PAGE
