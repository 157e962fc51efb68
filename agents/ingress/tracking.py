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
from agents.ingress.refusals import Refusal
from agents.ingress.submissions import Intake, Submission
from engine.runtime import tracing

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
            key = key_in_header(request.headers.get("Authorization"))
            tenant = self._keys.tenant(key) if key is not None else None
            with self._admission.request() as share:
                body = await bodies.read(request, contents.LARGEST_EVENT, share)
                body = bodies.text(body, request.headers.get("Content-Type"))
                try:
                    call = segment.decode(body)
                except Refusal as why:
                    tenant = tenant or self._keys.tenant(segment.write_key_of(body))
                    if why.reason != "type" and why.reason != "number":  # Segment's answer too: 400
                        raise
                    submission = Submission(tenant, request[tracing.HEADER])
                    submission.refuse(body, why)
                else:
                    tenant = tenant or self._keys.tenant(call.write_key)
                    submission = Submission(tenant, request[tracing.HEADER])
                    try:
                        submission.add(*segment.read(body, call, kind, call.sent_at, received_at))
                    except Refusal as why:
                        submission.refuse(body, why)
                return await self._intake.take(submission, share, is_strict(request))

        return handle

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        received_at = self._clock()
        key = key_in_header(request.headers.get("Authorization"))
        tenant = self._keys.tenant(key) if key is not None else None
        with self._admission.request() as share:
            body = await bodies.read(request, segment.LARGEST_BATCH, share)
            batch = batches.read(bodies.text(body, request.headers.get("Content-Type")))
            submission = Submission(tenant or self._keys.tenant(batch.write_key), request[tracing.HEADER])
            for event in batch.batch[: segment.MOST_EVENTS]:
                raw = segment.text_of(event)
                try:
                    call = segment.decode(raw)
                    sent_at = batch.sent_at or call.sent_at
                    submission.add(*segment.read(raw, call, None, sent_at, received_at))
                except Refusal as why:
                    submission.refuse(raw, why)
            if rest := batch.batch[segment.MOST_EVENTS :]:  # Put aside as one: there may be 200,000 of two bytes.
                over = Refusal(
                    "too_many", f"a batch has at most {segment.MOST_EVENTS:,} events; {len(rest):,} are over"
                )
                submission.refuse(b"[%b]" % b",".join(map(segment.text_of, rest)), over)
            return await self._intake.take(submission, share, is_strict(request))


def is_strict(request: web.Request) -> bool:
    """Whether the sender wants to hear of wrong events as an error."""
    return request.headers.get("X-Strict-Mode") == "1"
