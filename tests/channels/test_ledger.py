"""The ledger finds what is due, interrupted or seen, in whatever order it was written."""

from collections.abc import Iterator

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agents.channels.deliveries import Delivery
from agents.channels.ledger import Ledger
from tests.channels.stage import command


class Table:
    """An ordered map of bytes."""

    def __init__(self) -> None:
        self.pairs: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.pairs.get(key)

    def scan(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(self.pairs):
            if key >= start and (stop is None or key < stop):
                yield key, self.pairs[key]

    def apply(self, changes: dict[bytes, bytes | None]) -> None:
        for key, value in changes.items():
            if value is None:
                self.pairs.pop(key, None)
            else:
                self.pairs[key] = value


steps = st.lists(
    st.tuples(
        st.sampled_from(["wait", "call", "finish", "look", "forget", "commit", "reopen"]),
        st.integers(1, 6),
        st.integers(1, 60),
    ),
    max_size=60,
)


@given(steps)
def test_the_ledger_knows_what_a_plain_list_would(steps: list[tuple[str, int, int]]) -> None:
    table = Table()
    ledger = Ledger(table)
    written: dict[int, Delivery | int] = {}  # an open delivery, or until when its id is remembered
    committed: dict[int, Delivery | int] = {}
    now = 1
    for step, number, at in [*steps, ("commit", 1, 1), ("look", 1, 60)]:
        before = written.get(number, Delivery(command(number), now))
        match step:
            case "wait" | "call" if isinstance(before, Delivery):
                is_call = step == "call"
                after = msgspec.structs.replace(
                    before, status="calling" if is_call else "waiting", due_at=0 if is_call else at
                )
                ledger.put(after, before)
                written[number] = after
            case "finish" if isinstance(before, Delivery):
                ledger.finish(before, at)
                written[number] = at
            case "forget":
                due = sorted(
                    (until, key) for key, until in committed.items() if isinstance(until, int) and until <= now
                )
                assert ledger.forget(now, 2) == min(2, len(due))
                for _, key in due[:2]:
                    written.pop(key)
                table.apply(ledger.take_changes())
                committed = dict(written)
            case "commit":
                table.apply(ledger.take_changes())
                committed = dict(written)
            case "reopen":
                ledger, written = Ledger(table), dict(committed)
                calling = [one for one in committed.values() if isinstance(one, Delivery) and one.status == "calling"]
                assert sorted(one.message.id for one in ledger.interrupted()) == sorted(
                    one.message.id for one in calling
                )
            case "look":
                now = max(now, at)
        waiting = [one for one in committed.values() if isinstance(one, Delivery) and one.status == "waiting"]
        waiting.sort(key=lambda one: (one.due_at, one.message.id))
        if committed == written:  # what is due is asked for before anything is written in a turn
            assert ledger.due(now, 3) == [one for one in waiting if one.due_at <= now][:3]
            assert ledger.next_due_at() == (waiting[0].due_at if waiting else None)
        else:
            ledger.due(now, 3)  # and asking in between loses nothing
        for key in range(1, 7):
            assert ledger.knows("shop", f"r{key}:1") is (key in written)
