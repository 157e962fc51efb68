"""bytewax: a dataflow from Kafka through a stateful operator to Kafka, as its documentation writes it.

States are in memory and snapshots of those that changed go to SQLite each second, with the offsets: at least once.
`python -m benchmarks.contenders.bytewax_flow --help`, with the Python of its own environment.
"""

from datetime import timedelta
from typing import Any

import bytewax.operators as op  # type: ignore[import-not-found]
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage  # type: ignore[import-not-found]
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
from bytewax.recovery import RecoveryConfig, init_db_dir  # type: ignore[import-not-found]
from bytewax.testing import cluster_main  # type: ignore[import-not-found]

from benchmarks.contenders.peer import keep_telling, parser_for
from benchmarks.contenders.steps import State, new_user, step

SNAPSHOTS_EVERY = timedelta(seconds=1)


class Steps:
    """The function of the stateful operator, and how often it was called."""

    def __init__(self) -> None:
        self.folded = 0

    def fold(self, user: State | None, message: Any) -> tuple[State, list[Any]]:
        user = user or new_user()
        key = message.key.decode()
        _, command = step(user, orjson.loads(message.value), key, message.timestamp[1])
        self.folded += 1
        return user, [] if command is None else [KafkaSinkMessage(message.key, orjson.dumps(command))]


def main() -> None:
    given = parser_for(__doc__).parse_args()
    steps = Steps()
    flow = Dataflow("steps")
    events = kop.input("events", flow, brokers=[given.bootstrap], topics=[given.topic])
    keyed = op.key_on("key", events.oks, lambda message: message.key.decode())
    commands = op.key_rm("unkey", op.stateful_flat_map("steps", keyed, steps.fold))
    kop.output("commands", commands, brokers=[given.bootstrap], topic=given.commands)
    init_db_dir(given.data, 1)
    keep_telling(lambda: steps.folded)
    cluster_main(
        flow, [], 0, epoch_interval=SNAPSHOTS_EVERY, recovery_config=RecoveryConfig(given.data, timedelta(0))
    )  # fmt: skip


if __name__ == "__main__":
    main()
