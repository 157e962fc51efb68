"""quixstreams: a stateful function on a StreamingDataFrame, as its documentation writes it.

One value per user in its RocksDB store with a changelog topic; JSON by orjson, its default. Events in order of their
partitions. `python -m benchmarks.contenders.quix_app --help`, with the Python of its own environment.
"""

from typing import Any

from quixstreams import Application, State  # type: ignore[import-not-found]
from quixstreams.state.rocksdb import RocksDBOptions  # type: ignore[import-not-found]

from benchmarks.contenders.peer import keep_telling, parser_for
from benchmarks.contenders.steps import new_user, step


class Steps:
    """The function that is applied, and how often it was."""

    def __init__(self) -> None:
        self.folded = 0

    def fold(self, event: dict[str, Any], key: str, timestamp: int, headers: object, state: State) -> list[Any]:
        user = state.get("user") or new_user()
        changed, command = step(user, event, key, timestamp)
        if changed:
            state.set("user", user)
        self.folded += 1
        return [] if command is None else [command]


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--guarantee", choices=["exactly-once", "at-least-once"], required=True)
    given = parser.parse_args()
    app = Application(
        broker_address=given.bootstrap,
        consumer_group=given.app,
        auto_offset_reset="earliest",
        commit_interval=1.0,  # so much is done again after a crash, and so long commands wait
        state_dir=given.data,
        processing_guarantee=given.guarantee,
        # The default block cache is a gigabyte; the memtables of 24 stores may fill 4.6 GB by default.
        rocksdb_options=RocksDBOptions(write_buffer_size=8 << 20, block_cache_size=64 << 20),
        loglevel="WARNING",
    )
    steps = Steps()
    events = app.dataframe(app.topic(given.topic, key_deserializer="str", value_deserializer="json"))
    commands = events.apply(steps.fold, stateful=True, metadata=True, expand=True)
    commands.to_topic(app.topic(given.commands, key_serializer="str", value_serializer="json"))
    keep_telling(lambda: steps.folded)
    app.run()


if __name__ == "__main__":
    main()
