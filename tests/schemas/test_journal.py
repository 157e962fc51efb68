"""That entries come back from the records of the journal as they went, in order, and that no record gets too large."""

import string
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.journal import MOST_BYTES, read_entries, write_entries
from schemas.outputs import JournalEntry

ends_of_lines = st.sampled_from(["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", '"', "\\", "\0"])
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.lists(st.one_of(ends_of_lines, st.text(string.ascii_letters, max_size=2)), max_size=6).map("".join),
)
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False), texts
    ).filter(
        lambda value: not isinstance(value, float) or abs(value) != float("inf")  # JSON has none
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=4,
)
entries = st.builds(
    JournalEntry,
    st.sampled_from(["entered", "step", "sent", "receipt", "exited", "linked"]),
    st.integers(0, 1 << 45),
    texts,
    texts,
    cause=texts,
    journey=texts,
    version=st.integers(0, 999),
    run=texts,
    step=texts,
    message=texts,
    reason=texts,
    detail=st.dictionaries(texts, values, max_size=3),
    shadow=st.booleans(),
)
sizes = st.one_of(
    st.integers(200, 400),
    st.integers(MOST_BYTES // 3 - 2, MOST_BYTES // 3 + 2),
    st.integers(MOST_BYTES - 2, MOST_BYTES + 2),
)


def of_size(octets: int, number: int = 0) -> JournalEntry:
    """An entry that takes so many bytes."""
    entry = JournalEntry("step", number, "shop", "ann", reason="x")
    return msgspec.structs.replace(entry, reason="x" * (octets - len(msgspec.json.encode(entry)) + 1))


@given(st.lists(entries, max_size=6))
def test_whatever_they_say_entries_come_back_as_they_went_a_line_each(told: list[JournalEntry]) -> None:
    records = write_entries(told)
    assert len(records) == (1 if told else 0)
    for record in records:
        assert read_entries(record) == told
        assert record.split(b"\n") == [msgspec.json.encode(entry) for entry in told]


def test_a_record_of_one_entry_is_what_it_was_before_there_were_lines() -> None:
    before = b'{"kind":"step","at":5,"tenant":"shop","user":"ann","cause":"timer","journey":"cart","version":3}'
    entry = JournalEntry("step", 5, "shop", "ann", "timer", "cart", 3)
    assert read_entries(before) == [entry]
    assert write_entries([entry]) == [before]


def test_lines_that_others_have_rewritten_are_read_too() -> None:
    told = [of_size(200, number) for number in range(3)]
    [record] = write_entries(told)
    assert read_entries(record + b"\n") == told
    assert read_entries(record.replace(b"\n", b"\r\n") + b"\r\n") == told
    assert read_entries(b"") == read_entries(None) == read_entries(b"\n") == []


@pytest.mark.parametrize(
    "value",
    [b"{", b"null", b"[]", b'{"kind":"step"}', b"\xff", b"rubbish", b'{"kind":"x","at":1,"tenant":"","user":""}'],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_no_entry_is_not_passed_over(value: bytes, place: int) -> None:
    lines = [msgspec.json.encode(of_size(200))] * 2
    with pytest.raises(msgspec.DecodeError):
        read_entries(b"\n".join([*lines[:place], value, *lines[place:]]))


def test_half_a_record_is_not_read_as_a_whole_one() -> None:
    [record] = write_entries([of_size(200), of_size(200)])
    with pytest.raises(msgspec.DecodeError):
        read_entries(record[:-1])


@given(st.lists(sizes, max_size=8))
@example([MOST_BYTES])
@example([MOST_BYTES // 2, MOST_BYTES // 2 - 1])  # with what parts them just as much as fits
@example([MOST_BYTES // 2, MOST_BYTES // 2])
@example([MOST_BYTES + 1, 200, MOST_BYTES + 1, MOST_BYTES + 1, 200])
def test_what_is_too_much_for_a_record_is_split_in_order_and_nothing_is_lost(octets: list[int]) -> None:
    told = [of_size(size, number) for number, size in enumerate(octets)]
    records = write_entries(told)
    assert [entry for record in records for entry in read_entries(record)] == told
    assert all(len(record) <= MOST_BYTES or b"\n" not in record for record in records)
    for record, following in pairwise(records):
        assert len(record) + 1 + len(following.partition(b"\n")[0]) > MOST_BYTES, "the next line had fitted in, too"
