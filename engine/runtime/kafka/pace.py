"""How long a partition waits for a batch to fill: not at all in an idle process, up to 20 ms in a busy one.

Tiny transactions are what a low load costs: at 1,000 events a second the shortest latency (p50 4 ms) takes 60 % of a
core, and a pause of 20 ms after each short batch 18 % (p50 32 ms). So the pause follows the CPU time the process takes:
none below a tenth of a core, all of it from three tenths on, and what is between settles by itself.
"""

import time
from collections.abc import Callable

LONGEST_PAUSE_SECONDS = 0.02
NO_PAUSE_BELOW, LONGEST_PAUSE_FROM = 0.1, 0.3  # of one core
MEASURED_EVERY_SECONDS = 0.5
SHORT_BATCH = 0.25  # of what was asked for: a fuller one is a backlog, which is not kept waiting


class Pace:
    """Shared by the partitions of a process. `clock` and `cpu_clock` tell seconds."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu_clock: Callable[[], float] = time.process_time
    ) -> None:
        self._clock, self._cpu_clock = clock, cpu_clock
        self._measured_at = clock()
        self._cpu_seconds = cpu_clock()
        self._pause_seconds = 0.0

    def pause_seconds(self, records: int, limit: int) -> float:
        """How long to wait after a batch of so many records, of at most `limit`."""
        if not records or records >= limit * SHORT_BATCH:
            return 0.0
        now = self._clock()
        elapsed = now - self._measured_at
        if elapsed >= MEASURED_EVERY_SECONDS:
            cpu_seconds = self._cpu_clock()
            load = (cpu_seconds - self._cpu_seconds) / elapsed
            share = (load - NO_PAUSE_BELOW) / (LONGEST_PAUSE_FROM - NO_PAUSE_BELOW)
            self._pause_seconds = LONGEST_PAUSE_SECONDS * min(1.0, max(0.0, share))
            self._measured_at, self._cpu_seconds = now, cpu_seconds
        return self._pause_seconds
