"""What the compacted topics hold, kept as tables: definitions, suppressions."""

import asyncio
from collections.abc import Iterator

import msgspec

from engine.runtime.embedded import layout
from engine.runtime.embedded.log import EmbeddedLog
from engine.runtime.store import KeyValueStore
from schemas.definitions import Definition
from schemas.records import Record

_decoder = msgspec.json.Decoder(Definition)


class EmbeddedDefinitions:
    """See `engine.runtime.host.Definitions`. A body is found from the moment on it is appended."""

    def __init__(self, store: KeyValueStore) -> None:
        self._bodies: dict[str, bytes] = {}
        self._decoded: dict[str, Definition] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        for record in layout.read_table(store, "definitions"):
            self.take("definitions", record)

    def find(self, key: str) -> Definition | None:
        definition = self._decoded.get(key)
        if definition is None and key in self._bodies:
            definition = self._decoded[key] = _decoder.decode(self._bodies[key])
        return definition

    async def wait(self, key: str) -> Definition:
        while (definition := self.find(key)) is None:
            arrived = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(key, []).append(arrived)
            await arrived
        return definition

    def all(self) -> Iterator[Definition]:
        for key in sorted(self._bodies):
            definition = self.find(key)
            assert definition is not None
            yield definition

    def take(self, topic: str, record: Record) -> None:
        """Take note of a record of a compacted topic."""
        if topic != "definitions":
            return
        assert record.key is not None
        key = record.key.decode(errors="replace")
        self._decoded.pop(key, None)
        if record.value is None:
            self._bodies.pop(key, None)
            return
        self._bodies[key] = record.value
        for arrived in self._waiting.pop(key, ()):
            if not arrived.done():
                arrived.set_result(None)


class EmbeddedSuppressions:
    """See `engine.runtime.host.Suppressions`. Looked up in the store: there may be millions."""

    def __init__(self, log: EmbeddedLog, store: KeyValueStore) -> None:
        self._log, self._store = log, store

    async def scope(self, tenant: str, channel: str, address: str, topic: str) -> str | None:
        self._log.write()  # what was appended a moment ago counts, too
        for scope in ("all", topic):
            key = f"{tenant}:{channel}:{scope}:{address}".encode()
            if self._store.get(layout.TABLES, layout.table_prefix("suppressions") + key) is not None:
                return scope
        return None
