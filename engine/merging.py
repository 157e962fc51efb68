"""How an alias comes to stand for a user, and what becomes of inputs meanwhile.

An alias is an actor like any other until it is linked: an anonymous id has a profile and runs of its own. Then:

    user                                                    alias
    an event names the alias                                (may have runs, a profile ...)
      -> is folded; `Linked` goes to the alias
    keeps further inputs ..................................  `Linked`: what is due fires; `Absorbed` hands over all it has;
      `Absorbed`: both are united (engine/identity.py)       from now on it forwards what it gets
      the kept inputs are folded, each at its own time

- It is waited for at most 30 s, and at most 256 inputs (or 256 KiB) are kept. After that the user goes on alone; what the
  alias has is united whenever it comes. The bound is the actor's timer: it fires as the timers of runs do, and while it
  waits no other timer of the user fires, since inputs that were there before it are still kept.
- The merge counts as of the moment of the link, and each kept input as of its own. So the outcome doesn't depend on how long
  the alias took, nor on where batches begin.
- Who stands for somebody doesn't come to stand for somebody else: such a link is refused, and so is one to an erased id.
- If two users are linked to each other at once, the one whose id sorts first stays. Longer circles end after the 30 s: who
  went on alone refuses the links that it had kept.
- A forwarded input carries the ids it came by. Where it comes back to one of them the links led in a circle, which takes links
  that cross while partitions lag by more than the 30 s: the one whose id sorts first is a user again, and the others stand
  for it. What has passed 32 ids stays where it is.
- An erased user's aliases are erased with them; erasing an alias erases the user.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from engine import duplicates
from engine.catalog import Catalog
from engine.errors import InvalidInput
from engine.events import check, check_entry, check_nesting
from engine.identity import Ended, portions, united
from engine.turn import Turn
from schemas.inputs import Absorbed, Entered, Erased, Event, Forwarded, Input, Linked, Receipt, UserInput, WakeUp
from schemas.outputs import JournalEntry, JournalKind, Message
from schemas.state import Identity, User

if TYPE_CHECKING:
    from engine.actor import Handled

MAX_WAIT_MS = 30_000  # for what an alias has; it usually takes a commit of either partition
MAX_KEPT = 256  # inputs kept meanwhile
MAX_KEPT_BYTES = 262_144  # and their JSON: each of them is written again with every further one
MAX_NAMED = 8  # aliases in one event
MAX_KEY_BYTES = 512  # as for any actor
MAX_ALIASES = 256  # remembered per user: a new device, or cookies cleared, every week for five years
MAX_LATE = 16  # aliases that were waited for in vain
MAX_PATH = 32  # aliases that one input passes; who was renamed more often is not found any more

NOBODY_IN_PARTICULAR = Identity()

_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], UserInput] = msgspec.json.Decoder(UserInput).decode

Fold = Callable[[User, bytes, UserInput, int], "Handled"]  # an input of an actor that is simply a user


class Merging:
    """One call of `handle` for an actor that stands for somebody, waits for an alias, or is told to do either."""

    def __init__(
        self, fold: Fold, catalog: Catalog, tenant: str, user_id: str, user: User, older: bytes, now: int
    ) -> None:
        self.fold = fold
        self.catalog = catalog
        self.tenant = tenant
        self.user_id = user_id
        self.user = user
        self.older = older
        self.now = now
        self.messages: list[Message] = []
        self.journal: list[JournalEntry] = []
        self.inputs: list[tuple[str, Input]] = []
        self.errors: list[Exception] = []
        self.folded: list[Handled] = []

    def take(self, input: UserInput, at: int) -> None:
        """Give the actor an input that came at `at`. Raises InvalidInput, as `handle` does."""
        path: tuple[str, ...] = ()
        given = input
        if isinstance(input, Forwarded):
            path, input = input.path, input.input
        identity = self.user.identity or NOBODY_IN_PARTICULAR
        if self.user.erased:
            if isinstance(input, Linked):
                self._refuse(input.user, "erased")
        elif identity.alias_of:
            self._stand(input, path, identity, at)
        elif not identity.awaited:
            self._act(input, identity, at)
        elif at >= identity.until_at:
            self._give_up(f"nothing came within {MAX_WAIT_MS // 1000} s")
            self.take(given, at)
        else:
            self._wait(given, input, identity, at)

    # A user

    def _act(self, input: UserInput, identity: Identity, at: int) -> None:
        match input:
            case Linked():
                if self.user.aliases.get(input.user) or (input.user in identity.late and self.user_id < input.user):
                    self._refuse(input.user, "linked to each other")
                elif input.user != self.user_id:
                    self._fold(WakeUp(at), at)
                    self._hand_over(input.user, at)
            case Absorbed():
                self._bring(input, at)
            case Event() if input.aliases:
                self._check_names(input.aliases)
                self._fold(input, at)
                self._link(input.aliases, at)
            case Erased():
                self._erase(input, at)
            case _:
                self._fold(input, at)

    def _check_names(self, aliases: Sequence[str]) -> None:
        if len(aliases) > MAX_NAMED:
            raise InvalidInput(f"an event names at most {MAX_NAMED} aliases")
        if any(not each or len(self._key(each).encode()) > MAX_KEY_BYTES for each in aliases):
            raise InvalidInput(f"an alias is an id as any other: with the tenant at most {MAX_KEY_BYTES} bytes")

    def _link(self, aliases: Sequence[str], at: int) -> None:
        """Ask the aliases that aren't known yet for what they have, and wait for it."""
        identity = self.user.identity or NOBODY_IN_PARTICULAR
        known = {self.user_id, *self.user.aliases, *identity.late}
        awaited = tuple(dict.fromkeys(each for each in aliases if each not in known))
        if awaited:
            self.inputs += [(self._key(each), Linked(self.user_id)) for each in awaited]
            until_at = self.now + MAX_WAIT_MS
            self._be(replace(identity, awaited=awaited, linked_at=at, until_at=until_at))

    def _hand_over(self, to: str, at: int) -> None:
        """Stand for a user from now on."""
        identity = self.user.identity or NOBODY_IN_PARTICULAR
        self._tell_ended(self._unite(identity), at)
        parts = portions(self.user, self.older)
        for number, part in enumerate(parts):
            absorbed = Absorbed(self._id(to, str(number)), self.user_id, part, len(parts) - 1 - number)
            self.inputs.append((self._key(to), absorbed))
        standing = Identity(alias_of=to)
        self.user, self.older = User(aliases=self.user.aliases, identity=standing), b""
        self._note("linked", at, detail={"user": to})
        for when, kept in identity.kept:
            self._again(kept, when)

    def _erase(self, erased: Erased, at: int) -> None:
        """Forget the user, and have their aliases forget that they stood for them."""
        identity = self.user.identity or NOBODY_IN_PARTICULAR
        if erased.user and erased.user != identity.alias_of:
            return
        for input in (_decode(kept) for _, kept in identity.kept):
            if isinstance(input, Linked):
                self._refuse(input.user, "erased")
        standing = [name for name, is_theirs in self.user.aliases.items() if is_theirs]
        for alias in dict.fromkeys([*standing, *identity.awaited, *identity.late]):
            self.inputs.append((self._key(alias), Erased(erased.id, self.user_id)))
        self.user = replace(self.user, aliases={}, identity=None)
        self._fold(Erased(erased.id), at)

    # A user who waits

    def _wait(self, given: UserInput, input: UserInput, identity: Identity, at: int) -> None:
        match input:
            case Absorbed():
                self._bring(input, at)
            case Erased():
                self._erase(input, at)
            case Linked() if input.user in identity.awaited or input.user in identity.late:
                if self.user_id < input.user:
                    self._refuse(input.user, "linked to each other")
                else:
                    self._hand_over(input.user, at)
            case WakeUp():
                pass
            case _:
                self._keep(given, input, identity, at)

    def _keep(self, given: UserInput, input: UserInput, identity: Identity, at: int) -> None:
        _check(input)
        if isinstance(input, Event):
            self._check_names(input.aliases)
        kept = _encode(given)
        taken = sum([len(each) for _, each in identity.kept])
        if len(identity.kept) < MAX_KEPT and taken + len(kept) <= MAX_KEPT_BYTES:
            self._be(replace(identity, kept=(*identity.kept, (at, kept))))
        else:
            self._give_up(f"{len(identity.kept)} inputs are kept already")
            self.take(given, at)

    def _bring(self, absorbed: Absorbed, at: int) -> None:
        """Take what an alias has handed over, or its refusal; go on if that was all that was waited for."""
        identity = self.user.identity or NOBODY_IN_PARTICULAR
        seen = duplicates.noted(self.user.seen, self.older, absorbed.id, self.now)
        if seen is not None:
            self.user = replace(self.user, seen=seen)
            if absorbed.refused:
                self._note("not_linked", at, absorbed.refused, {"alias": absorbed.alias})
            elif absorbed.state:
                identity = replace(identity, brought=(*identity.brought, (absorbed.alias, absorbed.state)))
            if not absorbed.left and not absorbed.refused:
                self._note("absorbed", at, detail={"alias": absorbed.alias})
        was_waiting = bool(identity.awaited)
        if not absorbed.left:
            self._know(absorbed.alias, not absorbed.refused)
            awaited = tuple(each for each in identity.awaited if each != absorbed.alias)
            late = tuple(each for each in identity.late if each != absorbed.alias)
            identity = replace(identity, awaited=awaited, late=late)
        self._be(identity)
        if not identity.awaited:
            self._go_on(identity.linked_at if was_waiting else at)

    def _give_up(self, reason: str) -> None:
        identity = self.user.identity or NOBODY_IN_PARTICULAR
        for alias in identity.awaited:
            self._note("not_linked", identity.linked_at, reason, {"alias": alias})
        kept = []
        for when, raw in identity.kept:
            input = _decode(raw)
            if isinstance(input, Linked):
                self._refuse(input.user, "linked in a circle")
            else:
                kept.append((when, raw))
        late = (*identity.late, *identity.awaited)[-MAX_LATE:]
        self._be(replace(identity, awaited=(), late=late, kept=tuple(kept)))
        self._go_on(identity.linked_at)

    def _go_on(self, at: int) -> None:
        """Show the runs what has changed by the merge, as of `at`; then fold what was kept, each at its own time."""
        identity = self.user.identity or NOBODY_IN_PARTICULAR
        before = self.user.profile
        ended = self._unite(identity)
        kept = identity.kept
        self._be(replace(identity, kept=(), brought=(), linked_at=0, until_at=0))
        if identity.brought:
            self._show(before, ended, at)
        for when, raw in kept:
            self._again(raw, when)
        if at < self.now:
            self.take(WakeUp(self.now), self.now)

    def _again(self, kept: bytes, at: int) -> None:
        """Take what was kept. It is a record of its own: what is wrong with it harms nothing else."""
        input = _decode(kept)
        before = self.user, self.older
        try:
            self.take(input, at)
        except Exception as error:
            self.user, self.older = before
            self._note("dropped", at, f"{type(error).__name__}: {error}"[:500])
            if not isinstance(error, InvalidInput):
                self.errors.append(error)

    def _unite(self, identity: Identity) -> list[Ended]:
        ended: list[Ended] = []
        for _, part in identity.brought:
            self.user, self.older, more = united(self.user, self.older, part, self.catalog, self.tenant, self.now)
            ended += more
        return ended

    def _show(self, before: dict[str, Any], ended: Sequence[Ended], at: int) -> None:
        identity = self.user.identity
        turn = Turn(
            self.catalog, self.tenant, self.user_id, replace(self.user, identity=None) if identity else self.user, at,
            self.older,
        )  # fmt: skip
        self._tell_ended(ended, at)
        turn.fire_what_is_due()
        if turn.changed_by_steps is None:
            turn.changed_by_steps = before
        turn.settle()
        self.user, self.older = turn.finish()
        self._be(identity)
        self.messages += turn.messages
        self.journal += turn.journal
        self.inputs += turn.inputs
        self.errors += turn.errors

    def _tell_ended(self, ended: Sequence[Ended], at: int) -> None:
        for run, reason in ended:
            self._note("exited", at, reason, journey=run.journey, version=run.version, run=run.id, step=run.step)

    # An alias

    def _stand(self, input: UserInput, path: tuple[str, ...], identity: Identity, at: int) -> None:
        match input:
            case Linked():
                if input.user == identity.alias_of:
                    self.inputs.append((self._key(input.user), Absorbed(self._id(input.user, "again"), self.user_id)))
                else:
                    self._refuse(input.user, "stands for another user")
            case Erased() if input.user:
                self._erase(input, at)
            case WakeUp():
                if self.user.runs:
                    self._fold(input, at)
            case Entered() if input.by == "schedule":
                pass  # A sweep comes to the user as well.
            case Absorbed() if input.refused:
                pass  # It was for who this was: nobody waits for it any more.
            case _ if self.user_id in path and self.user_id == min(path[path.index(self.user_id) :]):
                self._note("not_linked", at, "linked in a circle", {"alias": identity.alias_of})
                identity = replace(identity, alias_of="")
                self._be(identity)
                self._act(input, identity, at)
            case _ if len(path) >= MAX_PATH:
                self._act(replace(input, aliases=()) if isinstance(input, Event) else input, identity, at)
            case _:
                assert not isinstance(input, Forwarded)  # It was opened, and holds none.
                if isinstance(input, Absorbed):
                    self._know(input.alias, True)
                self.inputs.append((self._key(identity.alias_of), Forwarded((*path, self.user_id), input)))

    # What all of them do

    def _fold(self, input: UserInput, at: int) -> None:
        """Fold an input as if the actor were simply a user."""
        identity, before = self.user.identity, self.user
        if identity is not None:
            before = replace(before, identity=None)
        if isinstance(input, Event) and input.aliases:
            input = replace(input, aliases=())
        handled = self.fold(before, self.older, input, at)
        if handled.user is not before:
            self.user = handled.user
            if identity is not None and not handled.user.erased:
                self._be(identity)
        self.older = handled.older
        self.messages += handled.messages
        self.journal += handled.journal
        self.inputs += handled.inputs
        self.errors += handled.errors
        self.folded.append(handled)

    def _be(self, identity: Identity | None) -> None:
        if identity == NOBODY_IN_PARTICULAR:
            identity = None
        if identity != self.user.identity:
            self.user = replace(self.user, identity=identity)

    def _know(self, alias: str, is_theirs: bool) -> None:
        if self.user.aliases.get(alias) is not is_theirs:
            aliases = {**self.user.aliases, alias: is_theirs}
            while len(aliases) > MAX_ALIASES:
                del aliases[next(iter(aliases))]
            self.user = replace(self.user, aliases=aliases)

    def _refuse(self, to: str, reason: str) -> None:
        self.inputs.append((self._key(to), Absorbed(self._id(to, "no"), self.user_id, refused=reason)))

    def _id(self, to: str, what: str) -> str:
        return f"{self.user_id}>{to}@{self.now}#{what}"

    def _key(self, user_id: str) -> str:
        return f"{self.tenant}:{user_id}"

    def _note(
        self, kind: JournalKind, at: int, reason: str = "", detail: dict[str, Any] | None = None, **more: Any
    ) -> None:
        entry = JournalEntry(kind, at, self.tenant, self.user_id, "link", reason=reason, detail=detail or {}, **more)
        self.journal.append(entry)


def _check(input: UserInput) -> None:
    """Raise InvalidInput for what could not be folded later: then it is its record's fault, not that of the merge."""
    match input:
        case Event():
            check(input)
        case Entered():
            check_entry(input)
        case Receipt():
            check_nesting(input.answer, "the answer")
