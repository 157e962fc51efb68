"""What is written beside a record that is set aside, and that it can be put back."""

import struct

from engine.runtime.dead_letters import MAX_REASON, MAX_VALUE, kept, park
from schemas.records import Record

OURS = {"dlq-reason", "dlq-topic", "dlq-partition", "dlq-offset", "dlq-timestamp"}


def test_a_parked_record_says_where_it_was_and_why_it_is_here() -> None:
    record = Record(42, 1_767_600_000_000, b"shop:ada", b"{", (("tenant", b"shop"),))
    parked = park("events.invalid", record, "not an input", "events", 3)
    assert (parked.topic, parked.key, parked.value, parked.partition) == ("events.invalid", b"shop:ada", b"{", None)
    headers = dict(parked.headers)
    assert {name: headers[name] for name in OURS} == {
        "dlq-reason": b"not an input",
        "dlq-topic": b"events",
        "dlq-partition": b"3",
        "dlq-offset": b"42",
        "dlq-timestamp": b"1767600000000",
    }
    assert headers["tenant"] == b"shop"


def test_springs_tools_find_their_numbers_big_endian() -> None:
    headers = dict(park("dead-letters", Record(2**40, 1_767_600_000_000, None, b""), "r", "events", 7).headers)
    assert struct.unpack(">i", headers["kafka_dlt-original-partition"]) == (7,)
    assert struct.unpack(">q", headers["kafka_dlt-original-offset"]) == (2**40,)
    assert struct.unpack(">q", headers["kafka_dlt-original-timestamp"]) == (1_767_600_000_000,)
    assert headers["kafka_dlt-original-topic"] == b"events"


def test_a_record_that_was_put_back_and_fails_again_tells_only_of_its_last_stay() -> None:
    original = Record(1, 1, b"k", b"v", (("traceparent", b"t"),))
    first = park("dead-letters", original, "first", "events", 0)
    again = park("dead-letters", Record(9, 9, first.key, first.value, first.headers), "second", "events", 0)
    names = [name for name, _ in again.headers]
    assert len(names) == len(set(names))
    assert dict(again.headers)["dlq-reason"] == b"second"
    assert kept(again.headers) == original.headers


def test_a_tombstone_is_kept_as_an_empty_value_so_that_it_deletes_nothing_here() -> None:
    assert park("events.invalid", Record(1, 1, b"k", None), "r", "events", 0).value == b""


def test_what_a_broker_would_not_take_is_cut_and_says_so() -> None:
    parked = park("dead-letters", Record(1, 1, b"k", b"x" * 2_000_000), "é" * 9_999, "events", 0)
    assert len(parked.value or b"") == MAX_VALUE
    assert dict(parked.headers)["dlq-cut-from-bytes"] == b"2000000"
    assert dict(parked.headers)["dlq-reason"].decode() == "é" * MAX_REASON


def test_the_largest_record_a_broker_took_still_fits_when_it_is_parked() -> None:
    for key, value, headers in [
        (b"k" * 500_000, b"v" * 540_000, ()),
        (b"k", b"v" * 900_000, (("h", b"h" * 140_000),)),
        (b"k", b"", tuple((f"h{number}", b"h" * 100) for number in range(9_000))),
    ]:
        parked = park("events.invalid", Record(1, 1, key, value, headers), "r" * 500, "events", 0)
        sizes = [len(name) + len(header) for name, header in parked.headers]
        assert len(parked.key or b"") + len(parked.value or b"") + sum(sizes) < 1_000_000


def test_a_key_that_is_cut_says_so_and_the_first_headers_are_kept() -> None:
    headers = (("tenant", b"shop"), ("large", b"h" * 40_000), ("last", b""))
    parked = park("events.invalid", Record(1, 1, b"k" * 5000, b"v", headers), "r", "events", 0)
    assert parked.key == b"k" * 4096
    assert dict(parked.headers)["dlq-key-cut-from-bytes"] == b"5000"
    assert [name for name, _ in parked.headers if not name.startswith(("dlq-", "kafka_"))] == ["tenant"]


def test_a_reason_that_is_not_quite_text_is_written_all_the_same() -> None:
    assert dict(park("dead-letters", Record(1, 1, b"k", b""), "\ud800!", "events", 0).headers)["dlq-reason"] == b"?!"
