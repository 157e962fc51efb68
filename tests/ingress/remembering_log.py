"""A log in memory that remembers what it was given, and can be told to be full, gone or slow."""

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from schemas.inputs import Event
from schemas.records import NewRecord, Record


class RememberingLog:
    """A `Log`. `failure` is raised by the next appends; while `gate` is unset they wait, and are not durable yet."""

    def __init__(self) -> None:
        self.appends: list[tuple[NewRecord, ...]] = []
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0
        self._began = asyncio.Condition()

    @property
    def records(self) -> list[NewRecord]:
        return [record for append in self.appends for record in append]

    @property
    def events(self) -> list[Event]:
        """What is in `events`, decoded as the engine decodes it."""
        return [decode(record) for record in self.records if record.topic == "events"]

    @property
    def invalid(self) -> list[NewRecord]:
        return [record for record in self.records if record.topic == "events.invalid"]

    async def append(self, records: Sequence[NewRecord]) -> None:
        if self.failure is not None:
            raise self.failure
        self.waiting += 1
        async with self._began:
            self._began.notify_all()
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        self.appends.append(tuple(records))

    async def until_waiting(self, appends: int) -> None:
        """Return when so many appends wait at the gate; fail after 10 s."""
        async with asyncio.timeout(10), self._began:
            await self._began.wait_for(lambda: self.waiting >= appends)

    async def append_atomically(self, records: Sequence[NewRecord]) -> None:
        await self.append(records)

    def partitions(self, topic: str) -> int:
        return 4

    def read(self, topic: str, key: bytes) -> Iterable[Record]:
        return [
            Record(offset, 0, record.key, record.value, record.headers)
            for offset, record in enumerate(self.records)
            if record.topic == topic and record.key == key
        ]


def decode(record: NewRecord) -> Event:
    assert record.value is not None
    return msgspec.json.decode(record.value, type=Event)


def headers(record: NewRecord) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}
