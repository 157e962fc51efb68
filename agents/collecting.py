"""How the garbage collector is set in a process that serves.

What a server loads at its start (modules, definitions) stays for its life, and of what it makes for an event almost nothing
is in a cycle. With Python's defaults the collector looks through all of the first again and again, for tens of milliseconds
in which nobody is answered, and through the second every 700 objects.
"""

import gc
from typing import Final

# Objects made and not yet freed before the youngest are looked through (a millisecond or two); then how many times that
# before those that survived are, and those that survived again. Measured: a tenth of the CPU of single requests.
THRESHOLDS: Final = (20_000, 10, 50)


def spare_what_is_there() -> None:
    """Never again look for garbage among what exists now, and less often among what comes. For a process of our own,
    once it has started."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
