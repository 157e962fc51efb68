"""`python -m tests.verify`: compare what stands on Kafka with what must have come of the events."""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from engine.runtime.settings import Kafka, Settings
from tests.verify.comparison import verify
from tests.verify.evidence import read_evidence, read_ledger, read_stores
from tests.verify.rows import Verdict

LOOKS_EVERY_SECONDS = 1.0


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


async def verdict_within(
    settings: Kafka, seconds: float, folders: list[Path] | None = None, ledgers: dict[str, str] | None = None
) -> Verdict:
    """Look again and again until everything is as it must be and no run waits any more, or the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        evidence = await read_evidence(settings)
        evidence.stores = [store for data in folders or [] for store in read_stores(data)]
        for channel, path in (ledgers or {}).items():
            with Path(path).open(encoding="utf-8") as lines:  # noqa: ASYNC230 - nothing else runs here
                evidence.ledgers[channel] = read_ledger(lines)
        verdict = verify(evidence)
        if (verdict.is_clean and not verdict.waiting) or time.monotonic() > deadline:
            return verdict
        await asyncio.sleep(LOOKS_EVERY_SECONDS)


if __name__ == "__main__":
    main()
