"""The users of a partition that were heard from last, decoded: who is heard from again costs no read and no decoding."""

from itertools import islice

from engine.actor import NOBODY
from schemas.state import User

HOT_USERS = 24_000  # of all partitions, also if one process has them all: some 50 MB decoded


class Actor:
    """A user in memory: as the store has them, and as they are by now."""

    __slots__ = ("due_at", "id", "older", "older_stored", "tenant", "user", "user_stored")

    def __init__(self, tenant: str, id: str, user: User | None, older: bytes, due_at: int | None) -> None:
        self.tenant = tenant
        self.id = id
        self.user = self.user_stored = user if user is not None else NOBODY
        self.older = self.older_stored = older  # seen ids that are not part of the user
        self.due_at = due_at  # of the earliest timer, as it is stored (ms)


class Hot:
    """The actors heard from last, as the store has them.

    A batch takes out those it is about, and puts them back when it is done. One that is folded again finds them in the store;
    if a commit fails, the whole partition is opened anew, and this with it.
    """

    def __init__(self, partitions: int, most: int = HOT_USERS) -> None:
        self.most = most // partitions
        self.actors: dict[bytes, Actor] = {}  # the coldest first

    def take(self, key: bytes) -> Actor | None:
        return self.actors.pop(key, None)

    def keep(self, key: bytes, actor: Actor) -> None:
        self.actors[key] = actor

    def trim(self) -> None:
        """Let go of the coldest."""
        for key in list(islice(self.actors, max(0, len(self.actors) - self.most))):
            del self.actors[key]
