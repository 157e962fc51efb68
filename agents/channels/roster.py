"""Which channels there are, and how each is made from the settings."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from agents.channels.call import CallChannel
from agents.channels.delivery import Channel
from agents.channels.email import EmailChannel
from agents.channels.links import Links
from agents.channels.pacing import Pace
from agents.channels.smtp import SmtpServer
from agents.channels.webhook import WebhookChannel
from engine.runtime.settings import Settings

WEBHOOKS_PER_SECOND: Final = 1000.0  # what one process can do anyway: the endpoint is the tenant's own
CALLS_PER_SECOND: Final = 1000.0  # likewise; a Throttle before the step is how an author spares a system


def make_channel(name: str, settings: Settings) -> tuple[Channel[Any], Pace]:
    """Return a channel with the pace that all its partitions in this process share.

    Raises ValueError that names the setting which is missing or wrong, or the channels there are.
    """
    if name not in CHANNELS:
        raise ValueError(f"there is no channel {name!r}; there are {', '.join(CHANNELS)}")
    return CHANNELS[name](settings)


def _make_email(settings: Settings) -> tuple[Channel[Any], Pace]:
    if not settings.public_url:
        raise ValueError("EQUEENGAGE_PUBLIC_URL: links in mails need the address at which the ingress is reached")
    try:
        server = SmtpServer.parse(settings.smtp_url.get_secret_value())
    except ValueError as error:
        raise ValueError(f"EQUEENGAGE_SMTP_URL: {error}") from None
    links = Links(settings.public_url, settings.link_secret.get_secret_value().encode())
    channel = EmailChannel(server, settings.email_from, links)
    return channel, Pace(channel.concurrency, settings.email_per_second)


def _make_webhook(settings: Settings) -> tuple[Channel[Any], Pace]:
    channel = WebhookChannel(settings.endpoints, settings.allowed_webhook_hosts, _wall_clock)
    return channel, Pace(channel.concurrency, WEBHOOKS_PER_SECOND)


def _make_call(settings: Settings) -> tuple[Channel[Any], Pace]:
    channel = CallChannel(settings.call_secrets, settings.allowed_webhook_hosts, _wall_clock)
    return channel, Pace(channel.concurrency, CALLS_PER_SECOND)


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


CHANNELS: Final[Mapping[str, Callable[[Settings], tuple[Channel[Any], Pace]]]] = {
    "email": _make_email,
    "webhook": _make_webhook,
    "call": _make_call,
}
