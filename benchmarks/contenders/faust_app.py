"""Stock Faust: an agent over a topic and a table in RocksDB with its changelog, as its documentation writes it.

At least once, which is its default: its exactly-once commits what it has not written. The caches of RocksDB are made small,
since each of the 24 stores has caches of its own (2 GiB by default). `python -m benchmarks.contenders.faust_app --help`.
"""

import argparse
import asyncio
import sys
from typing import Any

import faust

from benchmarks.contenders.peer import parser_for
from benchmarks.contenders.steps import new_user, step

CACHES = {"driver": "rocksdict", "block_cache_size": 4 << 20, "block_cache_compressed_size": 1 << 20}


def build(given: argparse.Namespace) -> Any:
    """Return the app; it prints how many events it has folded."""
    app = faust.App(
        given.app, broker=f"kafka://{given.bootstrap}", store="rocksdb://", datadir=given.data,
        topic_partitions=given.partitions, topic_replication_factor=1, web_enabled=False,
        stream_wait_empty=False, broker_commit_interval=1.0, origin=__name__,
    )  # fmt: skip
    events = app.topic(given.topic, key_type=str, value_serializer="json")
    commands = app.topic(given.commands, key_type=str, value_serializer="json")
    users = app.Table("users", key_type=str, partitions=given.partitions, options=CACHES)
    folded = 0

    @app.agent(events)  # type: ignore[untyped-decorator]
    async def steps(stream: Any) -> None:
        nonlocal folded
        async for event in stream.events():
            user = users.get(event.key) or new_user()
            changed, command = step(user, event.value, event.key, round(event.message.timestamp * 1000))
            if changed:
                users[event.key] = user
            if command is not None:
                await commands.send(key=event.key, value=command)
            folded += 1

    @app.task  # type: ignore[untyped-decorator]
    async def tell() -> None:
        while True:
            print(folded, file=sys.__stdout__, flush=True)  # Faust logs what goes to sys.stdout
            await asyncio.sleep(0.2)

    return app


def main() -> None:
    app = build(parser_for(__doc__).parse_args())
    sys.argv[1:] = ["worker", "--loglevel=warn"]
    app.main()


if __name__ == "__main__":
    main()
