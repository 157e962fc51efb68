"""The command `equeengage`: one file per command, loaded fast; what a command needs it imports when it runs."""

import sys


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 misused, 130 interrupted."""
    try:
        from agents.cli.program import run
    except KeyboardInterrupt:  # that soon, while it still imports
        sys.stderr.write("equeengage: stopped\n")
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))
