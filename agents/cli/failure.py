"""How a command fails: what happened and what to do, in one line."""

import errno
import re


class Failed(Exception):  # noqa: N818 - says what is the case
    """The command cannot do what it was asked to. The text says why and what to do. Exit code 2: it was misused."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def explain(error: Exception) -> str:
    """Say any error in one line with what to do about it."""
    if isinstance(error, OSError):
        return _explain_os_error(error)
    if type(error).__module__ in OURS:
        return str(error)
    return (
        f"this should not happen: {type(error).__name__}: {error}; run it again with --verbose and report what it shows"
    )


# Modules whose errors are written for whoever reads this line.
OURS = frozenset(
    {
        "agents.server",
        "engine.errors",
        "engine.runtime.host",
        "engine.runtime.kafka.process",
        "engine.runtime.kafka.topics",
    }
)


def _explain_os_error(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    what = {
        errno.EADDRINUSE: f"the port is taken{where or _address_in(error)}; choose another, or stop what listens there",
        errno.EACCES: f"not allowed{where}; run it as the user who owns it, or choose another place",
        errno.ENOSPC: "the disk is full; make room, or move the data folder with --data",
        errno.ENOENT: f"not found{where}",
        errno.ECONNREFUSED: "nobody answers there; is the server running?",
    }.get(error.errno or 0)
    return what or f"{error.strerror or error}{where}"


def _address_in(error: OSError) -> str:
    """Return the address that asyncio puts into the text of a failed bind."""
    found = re.search(r"\('([^']+)', (\d+)", str(error))
    return f" ({found[1]}:{found[2]})" if found else ""
