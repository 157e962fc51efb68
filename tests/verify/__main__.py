"""`python -m tests.verify`: compare what stands on Kafka with what must have come of the events."""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from engine.runtime.settings import Settings
from tests.verify.settling import verdict_within


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.verify", description=__doc__)
    parser.add_argument(
        "--data", type=Path, action="append", default=[], help="a worker's data folder; may be repeated"
    )
    parser.add_argument(
        "--ledger", action="append", default=[], help="CHANNEL=FILE: NDJSON of {id, at}, by its provider"
    )
    parser.add_argument("--wait", type=float, default=0, help="look again for so many seconds until all is well")
    parser.add_argument("--json", type=Path, help="write the table there, too")
    given = parser.parse_args()
    ledgers = dict(each.split("=", 1) for each in given.ledger)
    verdict = asyncio.run(verdict_within(Settings().kafka, given.wait, given.data, ledgers))
    print(verdict.table())
    if given.json is not None:
        given.json.write_text(json.dumps(verdict.as_json(), indent=2) + "\n")
    sys.exit(0 if verdict.is_clean else 1)


if __name__ == "__main__":
    main()
