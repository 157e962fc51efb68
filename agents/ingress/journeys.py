"""`POST /v1/journeys/{journey}/enter`: let a user enter a journey, from another system.

Whether a run begins is the journey's to say, and is decided where the user is: its entry's condition, its re-entry rule, a
pause. So 200 means that the asking is durable; what came of it is in the journal. Asked again under the same `id`, nothing
happens twice; without an `id` every request asks anew.

Unlike events, nothing wrong is put aside: it is 400, and the sender has it back.
"""

import re
from typing import Any, Final

from aiohttp import web
from msgspec import DecodeError, Struct
from msgspec.json import Decoder
from uuid_utils import uuid7

from agents.ingress import answers, bodies, contents
from agents.ingress.credentials import WriteKeys, key_in_header
from agents.ingress.overload import Admission
from agents.ingress.refusals import Refusal
from agents.ingress.segment import Id
from agents.ingress.submissions import TRACEPARENT, Intake, Submission
from engine.journey import NAME
from schemas.inputs import Entered

PATH: Final = "/v1/journeys/{journey}/enter"


class Entry(Struct, rename="camel", forbid_unknown_fields=True):
    """The body. What it does not know it does not pass over: a misspelt field would be an entry without it."""

    user_id: Id = None
    id: Id = None
    properties: dict[str, Any] = {}


_decode = Decoder(Entry).decode


class JourneyEntries:
    """The route over one log."""

    def __init__(self, keys: WriteKeys, intake: Intake, admission: Admission) -> None:
        self._keys = keys
        self._intake = intake
        self._admission = admission

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """Take one entry."""
        tenant = self._keys.tenant(key_in_header(request.headers.get("Authorization")))
        journey = request.match_info["journey"]
        if not re.fullmatch(NAME, journey):
            raise Refusal("unknown", f"no journey can be called {journey[:80]!r}")
        with self._admission.request() as share:
            body = await bodies.read(request, contents.LARGEST_EVENT, share)
            user, id, entered = read(bodies.text(body, request.headers.get("Content-Type")), journey)
            submission = Submission(tenant, request[TRACEPARENT])
            submission.add(user, entered)
            await self._intake.take(submission, share, strict=True)
        return answers.document({"success": True, "id": id})


def read(raw: bytes, journey: str) -> tuple[str, str, Entered]:
    """Return the user, the id as the sender knows it, and the input. Raises a Refusal that says what is missing or wrong."""
    try:
        entry = _decode(raw)
    except (DecodeError, ValueError, RecursionError) as error:
        raise contents.undecodable(error) from None
    user = contents.identifier(entry.user_id, "userId")
    if not user:
        raise Refusal("no_user", "userId is required")
    contents.check(raw, entry.properties)
    id = contents.identifier(entry.id, "id") or str(uuid7())
    # Ids are compared with those of all that a user is given: an order's number may be an event's id and an entry's.
    return user, id, Entered(f"{journey}:{id}", journey, "api", entry.properties)
