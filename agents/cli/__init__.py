"""The command `equeengage`: one file per command, loaded fast; what a command needs it imports when it runs."""

import sys


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 misused, 130 interrupted."""
    from agents.cli.program import run

    sys.exit(run(sys.argv[1:]))
