"""Events from other people's systems, at `POST /v1/webhooks/{source}`, as the settings describe each source.

The signature is over the body as it was sent, and is checked before anything in it is believed: an HMAC-SHA256 in a
header of the source's choosing (hex or base64), or Standard Webhooks with its tolerance of five minutes. The tenant is
the source's; there is no write key.

The event's id is the webhook's (`webhook-id`, or what the path `id` finds), so a delivery that is repeated or replayed
is a duplicate to the engine. Where a source has no ids it is the hash of the body: the same bytes count once.

Systems that send webhooks switch an endpoint off after some errors, and can repair nothing. So what has a good signature
and is JSON is answered 200; where user or event cannot be found in it, it is in `events.invalid`.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from aiohttp import web
from msgspec import DecodeError
from msgspec.json import decode, encode
from standardwebhooks.webhooks import EmptyWebhookSecretError, WebhookVerificationError
from standardwebhooks.webhooks import Webhook as StandardWebhook

from agents.ingress import bodies, contents
from agents.ingress.overload import Admission
from agents.ingress.refusals import Refusal
from agents.ingress.submissions import TRACEPARENT, Intake, Submission
from agents.ingress.tracking import is_strict
from engine.runtime.settings import TENANT, Webhook
from schemas.inputs import Event

PATH: Final = "/v1/webhooks/{source}"
LARGEST_BODY: Final = 500_000  # bytes: an order with all its lines; what is kept of it must fit into an event


class Webhooks:
    """The route for webhooks over one log."""

    def __init__(
        self, sources: Mapping[str, Webhook], intake: Intake, admission: Admission, clock: Callable[[], int]
    ) -> None:
        self._sources = {name: (webhook, _signature(name, webhook)) for name, webhook in sources.items()}
        self._intake = intake
        self._admission = admission
        self._clock = clock

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """Take one webhook."""
        received_at = self._clock()
        source = request.match_info["source"]
        if source not in self._sources:
            raise Refusal("unknown", "there is no webhook of this name; see EQUEENGAGE_WEBHOOKS")
        webhook, signature = self._sources[source]
        with self._admission.request() as share:
            body = await bodies.read(request, LARGEST_BODY, share)
            signature.check(request.headers, body)
            id = request.headers.get("webhook-id") if webhook.scheme == "standard-webhooks" else None
            submission = Submission(webhook.tenant, request[TRACEPARENT])
            submission.add_only(
                bodies.text(body, request.headers.get("Content-Type")),
                lambda raw: read(raw, source, webhook, id, received_at),
            )
            answer = await self._intake.take(submission, share, is_strict(request))
            return answer.response()


def read(raw: bytes, source: str, webhook: Webhook, id: str | None, received_at: int) -> tuple[str, Event]:
    """The user and the event in a webhook's body. Raises a Refusal if they are not where the settings say."""
    try:
        content = decode(raw)
    except (DecodeError, ValueError, RecursionError) as error:
        raise contents.undecodable(error) from None
    user = _identifier(find(content, webhook.user), webhook.user)
    if not user:
        raise Refusal("no_user", f"there is no user at {webhook.user!r}")
    try:
        name = _identifier(find(content, webhook.event), webhook.event)
        if not name:
            raise Refusal("no_event", f"there is no event name at {webhook.event!r}")
        properties = find(content, webhook.properties)
        if not isinstance(properties, dict):
            properties = {} if properties is None else {"data": properties}
        if len(raw) > contents.LARGEST_EVENT and len(encode(properties)) > contents.LARGEST_EVENT:
            raise Refusal("too_large", f"the properties are larger than {contents.LARGEST_EVENT:,} bytes")
        contents.check(raw, properties)
        id = id or _identifier(find(content, webhook.id), webhook.id) or hashlib.sha256(raw).hexdigest()
        event = Event(
            id=contents.identifier(f"{source} {id}", "id"),  # Two sources may count from 1.
            name=contents.identifier(webhook.event_prefix + name, "event"),
            occurred_at=received_at,
            properties=properties,
        )
    except Refusal as why:
        why.user = user
        raise
    return user, event


def find(content: Any, path: str) -> Any:
    """What is at a dotted path (`data.customer.id`, `lines.0.sku`), None if nothing is; the whole at an empty path."""
    for name in path.split(".") if path else ():
        if isinstance(content, dict):
            content = content.get(name)
        elif isinstance(content, list) and name.isascii() and name.isdigit() and int(name) < len(content):
            content = content[int(name)]
        else:
            return None
    return content


def _identifier(value: object, path: str) -> str:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return contents.identifier(value, path)
    return ""


class Signature(Protocol):
    """How the calls of a source are signed."""

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Raise a Refusal if the body is not what the owner of the secret signed."""
        ...


def check(sources: Mapping[str, Webhook]) -> None:
    """Raise ValueError if the settings of a source cannot work."""
    for name, webhook in sources.items():
        _signature(name, webhook)


def _signature(name: str, webhook: Webhook) -> Signature:
    """Raises ValueError if the settings of a source cannot work, so that a server with them does not start."""
    setting = f"EQUEENGAGE_WEBHOOKS: {name}"
    secret = webhook.secret.get_secret_value()
    if not secret:
        raise ValueError(f"{setting}: the secret is empty")
    if not TENANT.match(webhook.tenant):
        raise ValueError(f"{setting}: a tenant is written [a-z0-9-]")
    if webhook.scheme == "hmac-sha256":
        return _Hmac(secret.encode(), webhook.header)
    try:
        return _Standard(StandardWebhook(secret))
    except (binascii.Error, EmptyWebhookSecretError, ValueError):
        raise ValueError(f"{setting}: a Standard Webhooks secret is base64, often after 'whsec_'") from None


class _Hmac:
    """The HMAC-SHA256 of the body, in hex or base64, with or without the name of the method before it."""

    def __init__(self, secret: bytes, header: str) -> None:
        self._secret = secret
        self._header = header

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        given = headers.get(self._header, "").strip().removeprefix("sha256=").encode("utf-8", "surrogateescape")
        right = hmac.digest(self._secret, body, "sha256")
        as_hex = hmac.compare_digest(given.lower(), right.hex().encode())
        as_base64 = hmac.compare_digest(given, base64.b64encode(right))
        if not (as_hex or as_base64):
            raise Refusal("signature", f"the signature in {self._header} is missing or wrong")


class _Standard:
    """https://www.standardwebhooks.com"""

    def __init__(self, webhook: StandardWebhook) -> None:
        self._webhook = webhook

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        try:
            self._webhook.verify(body, dict(headers), json_parse=False)
        except (WebhookVerificationError, ValueError):  # also of base64 and UTF-8
            raise Refusal(
                "signature", "the Standard Webhooks signature is missing, wrong, too old or too new"
            ) from None
