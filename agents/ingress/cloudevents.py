"""CloudEvents 1.0 over HTTP: binary, structured and batched, all at `POST /v1/cloudevents`.

| CloudEvents | here |
|---|---|
| `type` | the event's name; `identify` sets the profile to its data |
| `subject`, or the extension `userid`, which wins | the user |
| `source` and `id`, which are unique together | the event's id: both, with a space between |
| `time` | when it occurred, as it stands |
| `data` | the properties, if it is a JSON object; else the property `data`, binary as `data_base64` |

The write key comes as Basic or Bearer authentication. What the official library makes is sent here by the tests; it is
not used to read, as it takes what is not JSON (NaN, lone surrogates), and a batch only as a whole.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import web
from msgspec import DecodeError, Struct
from msgspec.json import Decoder, decode

from agents.ingress import batches, bodies, contents, segment, timestamps
from agents.ingress.credentials import WriteKeys, key_in_header
from agents.ingress.overload import Admission
from agents.ingress.refusals import Refusal
from agents.ingress.submissions import TRACEPARENT, Intake, Submission
from agents.ingress.tracking import is_strict
from schemas.inputs import Event

PATH: Final = "/v1/cloudevents"
STRUCTURED: Final = "application/cloudevents"
BATCHED: Final = "application/cloudevents-batch"


class CloudEvent(Struct, omit_defaults=True):
    """The attributes of a CloudEvent that matter here; other extensions are skipped."""

    id: str = ""
    source: str = ""
    type: str = ""
    specversion: str = ""
    subject: str = ""
    userid: str = ""
    time: str | None = None
    data: Any = None
    data_base64: str | None = None


_decoder = Decoder(CloudEvent)


class CloudEvents:
    """The route for CloudEvents over one log."""

    def __init__(self, keys: WriteKeys, intake: Intake, admission: Admission, clock: Callable[[], int]) -> None:
        self._keys = keys
        self._intake = intake
        self._admission = admission
        self._clock = clock

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """Take one event or a batch."""
        received_at = self._clock()
        tenant = self._keys.tenant(key_in_header(request.headers.get("Authorization")))
        submission = Submission(tenant, request[TRACEPARENT])
        content_type = request.headers.get("Content-Type", "").lower()
        with self._admission.request() as share:
            if content_type.startswith(BATCHED):
                body = bodies.text(await bodies.read(request, segment.LARGEST_BATCH, share), content_type)
                submission.add_each(batches.read_list(body).batch, lambda raw: read(raw, _decode(raw), received_at))
            elif content_type.startswith(STRUCTURED):
                body = bodies.text(await bodies.read(request, contents.LARGEST_EVENT, share), content_type)
                submission.add_only(body, lambda raw: read(raw, _decode(raw), received_at))
            else:
                body = await bodies.read(request, contents.LARGEST_EVENT, share)
                submission.add_only(body, lambda raw: read(raw, _binary(request.headers, raw), received_at))
            answer = await self._intake.take(submission, share, is_strict(request))
            return answer.response()


def read(raw: bytes, cloud_event: CloudEvent, received_at: int) -> tuple[str, Event]:
    """The user and the event of a CloudEvent. Raises a Refusal that says what is missing or wrong."""
    user = contents.identifier(cloud_event.userid or cloud_event.subject, "subject")
    try:
        if cloud_event.specversion != "1.0":
            raise Refusal("kind", f"specversion must be '1.0', not {cloud_event.specversion[:40]!r}")
        for name in ("id", "source", "type"):
            if not getattr(cloud_event, name):
                raise Refusal("type", f"{name} is required")
        if not user:
            raise Refusal("no_user", "subject (or the extension userid) is required: the user it is about")
        properties = _properties(cloud_event)
        contents.check(raw, properties)
        identify = cloud_event.type == "identify"
        event = Event(
            id=_id(cloud_event),
            name=contents.identifier(cloud_event.type, "type"),
            occurred_at=timestamps.occurred_at(cloud_event.time, None, received_at),
            properties={} if identify else properties,
            profile=properties if identify else {},
        )
    except Refusal as why:
        why.user = user
        raise
    return user, event


def _id(cloud_event: CloudEvent) -> str:
    both = f"{cloud_event.source} {cloud_event.id}"
    if len(both) > contents.LONGEST_ID:  # Both may be long, and cut off they would no longer be unique.
        return hashlib.sha256(both.encode()).hexdigest()
    return contents.identifier(both, "id")


def _properties(cloud_event: CloudEvent) -> dict[str, Any]:
    if isinstance(cloud_event.data, dict):
        return cloud_event.data
    if cloud_event.data_base64 is not None:
        return {"data_base64": cloud_event.data_base64}
    return {} if cloud_event.data is None else {"data": cloud_event.data}


def _decode(raw: bytes) -> CloudEvent:
    if len(raw) > contents.LARGEST_EVENT:
        raise Refusal("too_large", f"the event is larger than {contents.LARGEST_EVENT:,} bytes")
    try:
        return _decoder.decode(raw)
    except (DecodeError, ValueError, RecursionError) as error:
        raise contents.undecodable(error) from None


def _binary(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """Attributes from the headers, where they are percent-encoded; the body is the data."""
    attributes: dict[str, Any] = {
        name: unquote(headers[f"ce-{name}"])
        for name in ("id", "source", "type", "specversion", "subject", "userid", "time")
        if f"ce-{name}" in headers
    }
    if "specversion" not in attributes:
        raise Refusal("kind", f"send ce-* headers, or {STRUCTURED}+json or {BATCHED}+json as content type")
    content_type = headers.get("Content-Type", "application/json")
    media_type = content_type.partition(";")[0].strip().lower()
    if not body:
        return CloudEvent(**attributes)
    if media_type.endswith(("/json", "+json")):
        try:
            return CloudEvent(**attributes, data=decode(bodies.text(body, content_type)))
        except (DecodeError, ValueError, RecursionError) as error:
            raise contents.undecodable(error) from None
    if media_type.startswith("text/"):
        try:
            return CloudEvent(**attributes, data=bodies.text(body, content_type).decode("utf-8"))
        except UnicodeDecodeError:
            raise Refusal("charset", "the body is not UTF-8") from None
    return CloudEvent(**attributes, data_base64=base64.b64encode(body).decode())
