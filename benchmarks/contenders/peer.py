"""How a contender in Python is called, and how it tells how far it is.

Needs nothing but the standard library: it is imported from the peers' own environments.
"""

import argparse
import threading
import time
from collections.abc import Callable
from pathlib import Path

TELLS_EVERY_SECONDS = 0.2


def parser_for(description: str | None) -> argparse.ArgumentParser:
    """Return what reads the options that every contender is given."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bootstrap", "topic", "commands", "app"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--partitions", type=int, required=True)
    return parser


def keep_telling(folded: Callable[[], int]) -> None:
    """Print from now on, in a thread, how many events have been folded."""

    def tell() -> None:
        while True:
            print(folded(), flush=True)
            time.sleep(TELLS_EVERY_SECONDS)

    threading.Thread(target=tell, daemon=True).start()
