"""The routes of Segment's tracking API, as its SDKs call them: long and one-letter paths, with `/v1` and without.

`POST /v1/track` and its like take one call, `POST /v1/batch` (also `/v1/import`, as Java and older Android have it) up
to 2,500. `GET /v1/projects/{key}/settings` is what browsers and phones ask for before they send anything.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from agents.ingress import answers, batches, bodies, contents, segment
from agents.ingress.credentials import WriteKeys, key_in_header
from agents.ingress.overload import Admission
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
        return {
            f"{version}/{name}{end}": self._batch if kind == "batch" else self._single(kind)
            for kind, names in PATHS.items()
            for name in names
            for version in ("/v1", "")
            for end in ("", "/")
        }

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

    def _single(self, kind: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            received_at = self._clock()
            tenant = self._tenant_in_header(request)

            def read(raw: bytes) -> tuple[str, Event]:
                call = segment.decode(raw)
                return segment.read(raw, call, kind, call.sent_at, received_at)

            with self._admission.request() as share:
                body = await bodies.read(request, contents.LARGEST_EVENT, share)
                body = bodies.text(body, request.headers.get("Content-Type"))
                tenant = tenant or self._keys.tenant(segment.write_key_in(body))
                submission = Submission(tenant, request[TRACEPARENT])
                submission.add_only(body, read)
                return await self._intake.take(submission, share, is_strict(request))

        return handle

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        received_at = self._clock()
        tenant = self._tenant_in_header(request)

        def read(raw: bytes) -> tuple[str, Event]:
            call = segment.decode(raw)
            return segment.read(raw, call, None, batch.sent_at or call.sent_at, received_at)

        with self._admission.request() as share:
            body = await bodies.read(request, segment.LARGEST_BATCH, share)
            batch = batches.read(bodies.text(body, request.headers.get("Content-Type")))
            tenant = tenant or self._keys.tenant(batch.write_key)
            submission = Submission(tenant, request[TRACEPARENT])
            submission.add_each(batch.batch, read)
            return await self._intake.take(submission, share, is_strict(request))

    def _tenant_in_header(self, request: web.Request) -> str | None:
        """Before the body is read: who has no key shall not make us read one."""
        key = key_in_header(request.headers.get("Authorization"))
        return None if key is None else self._keys.tenant(key)


def is_strict(request: web.Request) -> bool:
    """Whether the sender wants to hear of wrong events as an error."""
    return request.headers.get("X-Strict-Mode") == "1"
