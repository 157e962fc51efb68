"""The routes of Segment's tracking API, as its SDKs call them: long and one-letter paths, with `/v1` and without.

`POST /v1/track` and its like take one call, `POST /v1/batch` (also `/v1/import`, as Java and older Android have it) up
to 2,500. `GET /v1/projects/{key}/settings` is what browsers and phones ask for before they send anything.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from agents.ingress import answers, batches, bodies, contents, segment
from agents.ingress.answers import Answer
from agents.ingress.credentials import WriteKeys, key_in_header
from agents.ingress.overload import Admission, Share
from agents.ingress.plain import Head
from agents.ingress.submissions import TRACEPARENT, Intake, Submission
from schemas.inputs import Event

PATHS: Final = {
    "track": ("track", "t"),
    "identify": ("identify", "i"),
    "page": ("page", "p"),
    "screen": ("screen", "s"),
    "group": ("group", "g"),
    "alias": ("alias", "a"),
    "batch": ("batch", "b", "import"),
}

LARGEST_BODY: Final = {kind: segment.LARGEST_BATCH if kind == "batch" else contents.LARGEST_EVENT for kind in PATHS}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Tracking:
    """The tracking API over one log."""

    def __init__(
        self, keys: WriteKeys, intake: Intake, admission: Admission, public_url: str, clock: Callable[[], int]
    ) -> None:
        self._keys = keys
        self._intake = intake
        self._admission = admission
        self._public_url = public_url
        self._clock = clock

    def routes(self) -> dict[str, Handler]:
        """All paths that are posted to."""
        handlers = {kind: self._handler(kind) for kind in PATHS}
        return {path: handlers[kind] for path, kind in paths().items()}

    async def settings(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/projects/{key}/settings`: where a browser or a phone sends its calls."""
        key = request.match_info["key"]
        self._keys.tenant(key)
        url = self._public_url or f"{request.scheme}://{request.host}"
        scheme, _, host = url.partition("://")
        return answers.document(
            {
                "integrations": {
                    "Segment.io": {"apiKey": key, "apiHost": f"{host.rstrip('/')}/v1", "protocol": scheme},
                },
                "plan": {"track": {"__default": {"enabled": True, "integrations": {}}}},
                "edgeFunction": {},
                "metrics": {"sampleRate": 0},
            }
        )

    async def take(self, head: Head, body: bytes, share: Share, traceparent: str, received_at: int) -> Answer:
        """Take a request that has arrived as a whole, and say what it is answered with. Raises what `explain` explains."""
        tenant = self.tenant(head.authorization)
        submission = self._read(head.kind, body, head.content_type, tenant, traceparent, received_at)
        return await self._intake.take(submission, share, head.strict)

    def tenant(self, authorization: str | None) -> str | None:
        """Whose the request is, if its head says so. Raises a Refusal if there is no such key.

        Asked before the body is read: who has no key shall not make us read one.
        """
        key = key_in_header(authorization)
        return None if key is None else self._keys.tenant(key)

    def _handler(self, kind: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            received_at = self._clock()
            tenant = self.tenant(request.headers.get("Authorization"))
            with self._admission.request() as share:
                body = await bodies.read(request, LARGEST_BODY[kind], share)
                content_type = request.headers.get("Content-Type")
                submission = self._read(kind, body, content_type, tenant, request[TRACEPARENT], received_at)
                answer = await self._intake.take(submission, share, is_strict(request))
                return answer.response()

        return handle

    def _read(
        self, kind: str, body: bytes, content_type: str | None, tenant: str | None, traceparent: str, received_at: int
    ) -> Submission:
        """What a request hands in. Raises a Refusal if that can't be said."""
        body = bodies.text(body, content_type)
        if kind == "batch":
            batch = batches.read(body)
            submission = Submission(tenant or self._keys.tenant(batch.write_key), traceparent)

            def read_one(raw: bytes) -> tuple[str, Event]:
                call = segment.decode(raw)
                return segment.read(raw, call, None, batch.sent_at or call.sent_at, received_at)

            submission.add_each(batch.batch, read_one)
        else:
            submission = Submission(tenant or self._keys.tenant(segment.write_key_in(body)), traceparent)

            def read_only(raw: bytes) -> tuple[str, Event]:
                call = segment.decode(raw)
                return segment.read(raw, call, kind, call.sent_at, received_at)

            submission.add_only(body, read_only)
        return submission


def paths() -> dict[str, str]:
    """The paths that are posted to, each with the kind of call it takes."""
    return {
        f"{version}/{name}{end}": kind
        for kind, names in PATHS.items()
        for name in names
        for version in ("/v1", "")
        for end in ("", "/")
    }


def is_strict(request: web.Request) -> bool:
    """Whether the sender wants to hear of wrong events as an error."""
    return request.headers.get("X-Strict-Mode") == "1"
