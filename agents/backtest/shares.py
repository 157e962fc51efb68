"""How a backtest is spread over processes: each reads the whole recording, and plays its share of the users.

Users don't concern each other, so the parts add up to what one process would have found. A part is a process of its own,
which tells over a pipe how far it has come and in the end what it found, or what went wrong.
"""

import multiprocessing
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from agents.backtest.play import Part, Plan, Progress, Recording, play_share
from agents.backtest.recording import Rejects
from engine.comparison import merged
from engine.errors import InvalidInput


def fold_in(shares: int, plan: Plan, recording: Recording, progress: Progress) -> Part:
    """Play a recording in so many processes at once. Raises what went wrong in one of them.

    The recording must be readable by each: files are, a log that grows is not.
    """
    context = multiprocessing.get_context("spawn")  # a fork would take along open files and threads
    workers: dict[Connection, SpawnProcess] = {}
    try:
        for number in range(shares):
            ours, theirs = context.Pipe(duplex=False)
            worker = context.Process(target=_work, args=(theirs, plan, recording, number, shares), daemon=True)
            worker.start()
            theirs.close()
            workers[ours] = worker
        return _gathered(_hear(list(workers), progress))
    finally:
        for connection, worker in workers.items():
            worker.terminate()
            worker.join()
            worker.close()
            connection.close()


def _hear(connections: Sequence[Connection], progress: Progress) -> list[Part]:
    """Wait for all parts, in the order of the shares."""
    parts: dict[Connection, Part] = {}
    begun = ""
    while len(parts) < len(connections):
        for ready in wait([each for each in connections if each not in parts]):
            assert isinstance(ready, Connection)
            try:
                said = ready.recv()
            except EOFError:
                raise InvalidInput(
                    "a part of the backtest was ended from outside, perhaps for want of memory; try fewer --workers"
                ) from None
            match said:
                case Part():
                    parts[ready] = said
                case Exception():
                    raise said
                case str(what), int(size) if what != begun:
                    progress.begin(what, size * len(connections))
                    begun = what
                case str(what), int():
                    pass
                case int(by):
                    progress.advance(by)
    return [parts[each] for each in connections]


def _gathered(parts: Sequence[Part]) -> Part:
    rejects, left_out = Rejects(), parts[0].left_out
    for part in parts:
        rejects.include(part.rejects)
    return Part(merged([part.comparison for part in parts]), rejects, left_out, parts[0].until_at)


def _work(to: Connection, plan: Plan, recording: Recording, number: int, shares: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the one in front ends the others
    try:
        to.send(play_share(plan, recording, _Told(to), number, shares))
    except Exception as error:
        to.send(error)
    to.close()


@dataclass(frozen=True, slots=True)
class _Told:
    """Progress that is told over a pipe."""

    to: Connection

    def begin(self, what: str, size: int) -> None:
        self.to.send((what, size))

    def advance(self, by: int) -> None:
        self.to.send(by)


def best_fold(workers: int) -> partial[Part] | None:
    """Return how to fold with so many processes, or None for one: here."""
    return partial(fold_in, workers) if workers > 1 else None
