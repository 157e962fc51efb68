"""How a message becomes a signed HTTP request to a tenant's own endpoint (Standard Webhooks 1.0)."""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from standardwebhooks import Webhook
from yarl import URL

from agents.channels.addresses import ForbiddenAddress, GuardedResolver, is_public, literal
from agents.channels.rendering import TemplateError, Templates, variables
from engine.errors import PermanentFailure, TemporaryFailure, UnknownOutcome
from engine.runtime import tracing
from engine.runtime.settings import Endpoint
from schemas.definitions import Definition
from schemas.outputs import Message

CONCURRENCY: Final = 100
CONNECT_SECONDS: Final = 5.0
CALL_SECONDS: Final = 20.0  # Standard Webhooks asks for 15 to 30
ANSWER_BYTES: Final = 200  # of an answer's body, for the receipt; the rest is not read
LONGEST_RETRY_AFTER_SECONDS: Final = 7 * 86_400.0
LATER: Final = (408, 425, 429)  # and all of 5xx


class WebhookChannel:
    """Posts to the endpoint that the settings name for the tenant. The id lets the endpoint recognise a repetition."""

    name = "webhook"
    idempotent = True
    needs_template = True
    concurrency = CONCURRENCY

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        allowed_hosts: Collection[str],
        clock: Callable[[], int],
        resolver: AbstractResolver | None = None,
    ) -> None:
        """Raises ValueError where an endpoint can't be used, saying which and why."""
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._clock = clock
        self._resolver = resolver
        self._templates = Templates()
        self._session: aiohttp.ClientSession | None = None
        self._endpoints: dict[str, tuple[URL, Webhook]] = {}
        for tenant, endpoint in endpoints.items():
            try:
                signer = Webhook(endpoint.secret.get_secret_value())
                self._endpoints[tenant] = checked(endpoint.url, self._allowed_hosts), signer
            except Exception as error:  # the library raises what base64 raises
                raise ValueError(f"the webhook endpoint of {tenant!r} can't be used: {error}") from error

    def target(self, message: Message) -> str:
        return str(self._endpoint(message)[0])

    def lane(self, message: Message) -> str | None:
        return message.tenant

    def render(self, message: Message, template: Definition) -> bytes:
        parts = self._templates.render(template, variables(message))
        if "json" not in parts:
            return msgspec.json.encode(_default_body(message, parts))
        try:
            msgspec.json.decode(parts["json"])
        except msgspec.MsgspecError as error:
            raise TemplateError(f"{template.name}, json: what it makes is not JSON: {error}") from error
        return parts["json"].encode()

    async def deliver(self, message: Message, content: bytes) -> str:
        assert self._session is not None, "open() comes first"
        url, signer = self._endpoint(message)
        at = datetime.fromtimestamp(self._clock() // 1000, UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Equeengage",
            "webhook-id": message.id,
            "webhook-timestamp": str(self._clock() // 1000),
            "webhook-signature": signer.sign(message.id, at, content.decode()),
        }
        tracing.add_to(headers)
        try:
            async with self._session.post(url, data=content, headers=headers, allow_redirects=False) as response:
                answer = await _excerpt(response)
                return _judge(response, answer, self._clock())
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, ForbiddenAddress):
                raise PermanentFailure(str(error.os_error)) from error
            raise TemporaryFailure(f"no connection: {error}") from error
        except aiohttp.InvalidURL as error:  # such as http://127.1, which means more to a socket than to a reader
            raise PermanentFailure(f"the endpoint can't be used: {error}") from error
        except aiohttp.ConnectionTimeoutError as error:
            raise TemporaryFailure(f"no connection within {CONNECT_SECONDS:g} s") from error
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise UnknownOutcome(f"no answer: {type(error).__name__}: {error}"[:500]) from error

    async def open(self) -> None:
        self._session = guarded_session(self._allowed_hosts, self._resolver, CONCURRENCY)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _endpoint(self, message: Message) -> tuple[URL, Webhook]:
        endpoint = self._endpoints.get(message.tenant)
        if endpoint is None:
            raise PermanentFailure(f"no endpoint is set for {message.tenant!r}: see EQUEENGAGE_ENDPOINTS")
        return endpoint


def guarded_session(
    allowed_hosts: Collection[str], resolver: AbstractResolver | None, limit: int
) -> aiohttp.ClientSession:
    """A session that connects to public addresses only, or to allowed hosts; at most `limit` calls at once."""
    guarded = GuardedResolver(resolver or aiohttp.DefaultResolver(), allowed_hosts)
    # Without a DNS cache: its entries would be checked once and used for as long as they live, which is right, but
    # a tenant who moves expects to be found.
    connector = aiohttp.TCPConnector(resolver=guarded, use_dns_cache=False, limit=limit)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=CALL_SECONDS, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def checked(text: str, allowed_hosts: Collection[str]) -> URL:
    """The URL, if messages may be posted to it. Raises ValueError."""
    url = URL(text)
    host = (url.host or "").lower()
    if url.scheme not in ("http", "https") or not host:
        raise ValueError("not a URL that begins with https://")
    if url.user is not None or url.password is not None:
        raise ValueError("a URL with a user name in it: the signature is what shows who we are")
    if host not in allowed_hosts:
        if url.scheme != "https":
            raise ValueError(f"not https, and {host} is not among the allowed webhook hosts")
        # The connector asks the resolver for names only, so addresses are checked here.
        address = literal(host)
        if address is not None and not is_public(address):
            raise ValueError(f"{host} is not a public address, and not among the allowed webhook hosts")
    return url.with_fragment(None)


def retry_after_seconds(header: str | None, now: int) -> float | None:
    """What `Retry-After` asks for: seconds, or a date. None where it says nothing that can be understood."""
    if header is None:
        return None
    header = header.strip()
    if header.isascii() and header.isdigit():
        seconds = float(header)
    else:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - now / 1000
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def _judge(response: aiohttp.ClientResponse, answer: str, now: int) -> str:
    """What the endpoint's answer means."""
    said = f"{response.status} {answer}".strip()
    if 200 <= response.status < 300:
        return said
    if response.status == 410:
        raise PermanentFailure(f"the endpoint is gone: {said}", gone=True)
    if response.status in LATER or response.status >= 500:
        raise TemporaryFailure(said, retry_after_seconds(response.headers.get("Retry-After"), now))
    if 300 <= response.status < 400:
        raise PermanentFailure(f"redirects are not followed: {said}")
    raise PermanentFailure(said)


async def _excerpt(response: aiohttp.ClientResponse) -> str:
    """The beginning of the body; the status alone counts, so a body that breaks off is as good as none."""
    try:
        return (await response.content.read(ANSWER_BYTES)).decode("utf-8", "replace")
    except (aiohttp.ClientError, OSError):
        return ""


def _default_body(message: Message, parts: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "message",
        "timestamp": datetime.fromtimestamp(message.requested_at / 1000, UTC).isoformat().replace("+00:00", "Z"),
        "data": {
            "message": message.id,
            "user": message.user,
            "journey": message.journey,
            "step": message.step,
            "profile": message.profile,
            "event": message.event,
            "content": parts,
        },
    }
