"""Sets the clock of a Python process wrong by CLOCK_OFF_SECONDS: it is imported first, from PYTHONPATH.

All Python code is shown it, ours and the libraries'. RocksDB's own code is not: it keeps its file times by the machine's.
"""

import os
import time

_off = float(os.environ["CLOCK_OFF_SECONDS"])
_time, _time_ns = time.time, time.time_ns

vars(time).update(time=lambda: _time() + _off, time_ns=lambda: _time_ns() + int(_off * 1_000_000_000))
