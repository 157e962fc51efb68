"""How tests wait for what another process or task does: by looking, within bounds."""

import asyncio
import time
from collections.abc import Callable

from tests.agents.command import PATIENCE_SECONDS


async def until(holds: Callable[[], object], what: str) -> None:
    """Return when it holds; fail if it doesn't in time."""
    by = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < by, f"not in {PATIENCE_SECONDS:g} s: {what}"
        await asyncio.sleep(0.02)
