"""How a `Call` step becomes an HTTP request to somebody's system, and what of its answer the run keeps.

The request carries the command's id as `webhook-id`: whoever gets it twice (an answer was lost, a worker died in between)
knows it by that; with a secret set for the tenant it is signed as a Standard Webhook. It goes where a webhook may go: to
https and public addresses, or to hosts that an operator allows. The body and the answer are data; of the answer a JSON
object of up to 4 KiB goes back to the run with the receipt.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from pydantic import SecretStr
from standardwebhooks import Webhook
from yarl import URL

from agents.channels.addresses import ForbiddenAddress
from agents.channels.deliveries import Accepted
from agents.channels.webhook import CONNECT_SECONDS, LATER, checked, guarded_session, retry_after_seconds
from engine.errors import PermanentFailure, TemporaryFailure, UnknownOutcome
from engine.events import MAX_ANSWER_BYTES, carried, nests_too_deep
from engine.runtime import tracing
from schemas.definitions import Definition
from schemas.outputs import Message

CONCURRENCY: Final = 100
READ_BYTES: Final = 64 << 10  # of an answer: sixteen times what is kept
SHOWN: Final = 200  # characters of a refusal's text, for the receipt


class CallChannel:
    """Calls other systems for journeys' runs."""

    name = "call"
    idempotent = True
    needs_template = False
    concurrency = CONCURRENCY

    def __init__(
        self,
        secrets: Mapping[str, SecretStr],
        allowed_hosts: Collection[str],
        clock: Callable[[], int],
        resolver: AbstractResolver | None = None,
    ) -> None:
        """Raises ValueError where a secret can't be used, saying whose."""
        self._signers: dict[str, Webhook] = {}
        for tenant, secret in secrets.items():
            try:
                self._signers[tenant] = Webhook(secret.get_secret_value())
            except Exception as error:  # the library raises what base64 raises
                raise ValueError(f"the call secret of {tenant!r} can't be used: {error}") from error
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._clock = clock
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    def target(self, message: Message) -> str:
        return str(self._url(message))

    def lane(self, message: Message) -> str | None:
        """One system's slowness is its own."""
        try:
            return f"{message.tenant} {URL(message.address).host}"
        except ValueError:  # `target` says what is wrong with it
            return message.tenant

    def render(self, message: Message, template: Definition) -> bytes:
        return msgspec.json.encode(message.call.get("body", {}))

    async def deliver(self, message: Message, content: bytes) -> Accepted:
        """Make the call. What was lost on the way is unknown, and asked again under the same id."""
        assert self._session is not None, "open() comes first"
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # what is small when packed need not be small
            "Content-Type": "application/json",
            "User-Agent": "Equeengage",
            "webhook-id": message.id,
            **self._signature(message, content),
        }
        tracing.add_to(headers)
        method = str(message.call.get("method", "POST"))
        try:
            async with self._session.request(
                method, self._url(message), data=content, headers=headers, allow_redirects=False
            ) as response:
                return _judge(response, await _beginning(response), self._clock())
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, ForbiddenAddress):
                raise PermanentFailure(str(error.os_error)) from error
            raise TemporaryFailure(f"no connection: {error}") from error
        except aiohttp.InvalidURL as error:
            raise PermanentFailure(f"the URL can't be called: {error}") from error
        except aiohttp.ConnectionTimeoutError as error:
            raise TemporaryFailure(f"no connection within {CONNECT_SECONDS:g} s") from error
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise UnknownOutcome(f"no answer: {type(error).__name__}: {error}"[:500]) from error

    async def open(self) -> None:
        self._session = guarded_session(self._allowed_hosts, self._resolver, CONCURRENCY)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _signature(self, message: Message, content: bytes) -> dict[str, str]:
        signer = self._signers.get(message.tenant)
        if signer is None:
            return {}
        at = self._clock() // 1000
        signature = signer.sign(message.id, datetime.fromtimestamp(at, UTC), content.decode())
        return {"webhook-timestamp": str(at), "webhook-signature": signature}

    def _url(self, message: Message) -> URL:
        try:
            return checked(message.address, self._allowed_hosts)
        except ValueError as error:
            raise PermanentFailure(f"the URL can't be called: {error}") from None


def _judge(response: aiohttp.ClientResponse, body: bytes, now: int) -> Accepted:
    """What the answer means."""
    if 200 <= response.status < 300:
        answer, why_not = _kept(body)
        return Accepted(f"{response.status}{why_not}", answer)
    said = f"{response.status} {body[:SHOWN].decode('utf-8', 'replace')}".strip()
    if response.status in LATER or response.status >= 500:
        raise TemporaryFailure(said, retry_after_seconds(response.headers.get("Retry-After"), now))
    if 300 <= response.status < 400:
        raise PermanentFailure(f"redirects are not followed: {said}")
    raise PermanentFailure(said)


def _kept(body: bytes) -> tuple[dict[str, Any], str]:
    """Return what of an answer the run keeps, and in words why it isn't all of it."""
    if not body.strip():
        return {}, ""
    if len(body) > READ_BYTES:
        return {}, f"; nothing of the answer is kept: it is larger than {READ_BYTES >> 10} KiB"
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}, "; nothing of the answer is kept: it is not JSON"
    if not isinstance(answer, dict) or nests_too_deep(answer):
        return {}, "; nothing of the answer is kept: it is not a JSON object, or nested too deep"
    kept = carried(answer, MAX_ANSWER_BYTES)
    left_out = [name for name in answer if name not in kept]
    return kept, f"; not kept of the answer: {', '.join(left_out)}"[:SHOWN] if left_out else ""


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Read the body, or as much of it as shows that it is too large."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > READ_BYTES:
            break
    return bytes(body)
