"""`python -m benchmarks`: measure again what README.md says. Leave the machine alone meanwhile."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from agents.folder import read_folder
from benchmarks import backtest, embedded, handle, herd, journeys, recovery, scaling, waiting
from benchmarks.contenders import contest
from benchmarks.figures import Figure, report

RESULTS = Path("build/benchmarks/results.json")


def main() -> None:
    parts: dict[str, tuple[str, Callable[[argparse.Namespace], list[Figure]]]] = {
        "fold": ("The fold", lambda given: handle.measure(read_folder(handle.EXAMPLES), given.repeats)),
        "journeys": ("Journeys", lambda given: journeys.measure(given.repeats)),
        "embedded": ("Embedded, HTTP to command", lambda given: embedded.measure(given.seconds, given.repeats)),
        "waiting": ("Waiting runs", lambda given: waiting.measure(given.runs)),
        "backtest": ("Backtest", lambda given: backtest.measure(given.recorded)),
        "recovery": ("Recovery", lambda given: recovery.measure(int(given.state_gb * 1e9))),
        "herd": ("A herd of timers on Kafka", lambda given: herd.measure(given.runs, given.partitions)),
        "scaling": (
            "What grows",
            lambda given: scaling.measure(given.events or scaling.EVENTS, given.repeats_on_kafka),
        ),
    }
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"which of {', '.join(parts)}, contenders; all if left out")
    parser.add_argument(
        "--repeats", type=int, help="how often each is measured, and the median counts; 5, scaling and contenders 3"
    )
    parser.add_argument(
        "--full", action="store_true", help="contenders: four million events of a million users (hours)"
    )
    parser.add_argument("--only", default="", help="which contenders, with commas between them; all if left out")
    parser.add_argument("--seconds", type=float, default=8, help="about how long each load lasts")
    parser.add_argument("--runs", type=int, default=1_000_000, help="how many runs wait")
    parser.add_argument(
        "--events", type=int, help="how many events work on Kafka is measured with; scaling 200,000, contenders 400,000"
    )
    parser.add_argument("--recorded", type=int, default=1_000_000, help="how many recorded events a backtest plays")
    parser.add_argument("--partitions", type=int, default=24, help="of the topics on Kafka")
    parser.add_argument("--state-gb", type=float, default=0.1, help="how much state is rebuilt and taken over")
    given = parser.parse_args()
    given.repeats_on_kafka = given.repeats or 3
    contenders = contest.Options(
        [each for each in given.only.split(",") if each],
        contest.FULL_EVENTS if given.full else given.events or contest.EVENTS,
        given.repeats_on_kafka,
    )
    given.repeats = given.repeats or 5
    logging.disable(logging.ERROR)  # aiokafka tells of every retry while new topics find their leaders
    if unknown := set(given.parts) - {*parts, "contenders"}:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(parts)}, contenders")
    for name in given.parts or [*parts, "contenders"]:
        if name == "contenders":
            contest.hold(contenders)
        else:
            title, measure = parts[name]
            report(title, measure(given), RESULTS)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("ended; what was measured until now is kept") from None
