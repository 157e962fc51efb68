"""What one input does to one user: the fold.

    handle(catalog, tenant, user_id, user, input, now) -> Handled

`now` is the record's timestamp. Per input, in this order:

1. *What was due*: every timer due at or before `now` fires first, in the order of their times, each at its own time; and so
   does what an operator or a new version has done to a run meanwhile. An order that arrives at 12:00 does not save a wait
   that ended at 11:00, even if the worker was down in between.
2. *Duplicates*: an event whose id is known changes nothing more.
3. *The profile and the history* take what the event sets.
4. *Goals and exits*, then *waits*: every run gets every event, oldest run first; a keyed run only those with its key. A
   receipt concerns the run whose message it is about.
5. *Entries*. A run never sees the input that created it.
6. What a step changed in the profile, the other runs see.

Messages that runs come to in 1, and those in 3 to 6, are put before the policy together: the highest priority first, then
what was due first, then the oldest run. So a cap's last place goes to what matters most.

An exception inside a run suspends that run, as it was before the input, and the others go on: a wrong definition harms
nobody else. A suspended run notes its receipts and obeys its exit, and does nothing else until an operator resumes it.
Who a user turns out to be is for `engine/merging.py` to say: it gives each input its turn here, or keeps it, or passes it on.
Nothing here does I/O, so production, replay, simulation and explanation are this one function.
"""

from collections.abc import Sequence

from msgspec import Struct

from engine import shadows
from engine.catalog import Catalog
from engine.due import earliest_due
from engine.merging import Merging
from engine.order import give
from engine.passing import passes_by, remember
from engine.turn import Turn
from schemas.inputs import (
    Absorbed,
    Erased,
    Event,
    Forwarded,
    Input,
    Linked,
    UserInput,
)
from schemas.outputs import JournalEntry, Message
from schemas.state import User

__all__ = ["NOBODY", "Handled", "earliest_due", "handle"]

NOBODY = User()


class Handled(Struct):
    """What an input came to. `user` is the very same object if nothing about the user has changed."""

    user: User
    older: bytes = b""  # seen ids that are not part of `user`; to be stored if it isn't what was given
    messages: Sequence[Message] = ()
    journal: Sequence[JournalEntry] = ()
    inputs: Sequence[tuple[str, Input]] = ()  # the actor's key, and what it is given
    errors: Sequence[Exception] = ()  # of the runs that were suspended
    shadowed: Sequence[JournalEntry] = ()  # what would have happened to a shadow's runs


def handle(
    catalog: Catalog, tenant: str, user_id: str, user: User, input: UserInput, now: int, older: bytes = b""
) -> Handled:
    """Fold one input into a user. Raises InvalidInput if the input must not be folded; nothing has changed then."""
    if type(input) is Event and not (input.aliases or user.erased or user.identity is not None):  # nearly always
        if passes_by(input, user, catalog, tenant, now):
            passed = remember(input, user, now, older)
            if passed is not None:
                return Handled(*passed)
    elif user.erased or user.identity is not None or _is_of_identities(input, user):
        return _merge(catalog, tenant, user_id, user, input, now, older)
    turn = Turn(catalog, tenant, user_id, user, now, older)
    give(turn, input)
    turn.settle()
    after, spilled = turn.finish()
    handled = Handled(after, spilled, turn.messages, turn.journal, turn.inputs, turn.errors)
    if catalog.shadows or user.shadows:
        done = shadows.Done(user, after, input, turn.messages, turn.journal, now)
        handled.user, handled.shadowed = shadows.run_beside(catalog, tenant, user_id, done)
    return handled


def _is_of_identities(input: UserInput, user: User) -> bool:
    """Is it for `engine/merging.py` to say what becomes of the input?"""
    if isinstance(input, Event):
        return bool(input.aliases)
    if isinstance(input, Erased):
        return bool(input.user or user.aliases)
    return isinstance(input, (Linked, Absorbed, Forwarded))


def _merge(
    catalog: Catalog, tenant: str, user_id: str, user: User, input: UserInput, now: int, older: bytes
) -> Handled:
    """Fold an input of an actor that stands for a user, waits for one that does, or is told to (see `engine/merging.py`)."""

    def fold(user: User, older: bytes, input: UserInput, at: int) -> Handled:
        return handle(catalog, tenant, user_id, user, input, at, older)

    merging = Merging(fold, catalog, tenant, user_id, user, older, now)
    merging.take(input, now)
    shadowed = [entry for each in merging.folded for entry in each.shadowed]
    return Handled(
        merging.user, merging.older, merging.messages, merging.journal, merging.inputs, merging.errors, shadowed
    )
