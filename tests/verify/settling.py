"""How the verifier waits until everything has come to rest: it looks again and again."""

import asyncio
import time
from collections.abc import Collection
from pathlib import Path

from engine.runtime.settings import Kafka
from tests.verify.comparison import verify
from tests.verify.evidence import read_evidence, read_ledger, read_stores
from tests.verify.rows import Verdict

LOOKS_EVERY_SECONDS = 0.5


async def verdict_within(
    settings: Kafka,
    seconds: float,
    folders: list[Path] | None = None,
    ledgers: dict[str, str] | None = None,
    damaged: Collection[str] = (),
) -> Verdict:
    """Look again and again until everything is as it must be and no run waits any more, or the time is over.

    `damaged` names stores that may be unreadable: somebody has damaged them, and nobody has read them since.
    """
    deadline = time.monotonic() + seconds
    while True:
        evidence = await read_evidence(settings)
        stores = [store for data in folders or [] for store in read_stores(data)]
        evidence.stores = [store for store in stores if not (store.unreadable and store.name in damaged)]
        for channel, path in (ledgers or {}).items():
            with Path(path).open(encoding="utf-8") as lines:  # noqa: ASYNC230 - nothing else runs here
                evidence.ledgers[channel] = read_ledger(lines)
        verdict = verify(evidence)
        if (verdict.is_clean and not verdict.waiting) or time.monotonic() > deadline:
            return verdict
        await asyncio.sleep(LOOKS_EVERY_SECONDS)
