"""May this message go out now?

One pure function returns a verdict with its reason, and every verdict is journaled. The order is fixed; today it judges:

1. lateness: a send whose own time lies further back than its `max_lateness` is dropped. After an outage or a pause,
   a backlog never floods anybody.
2. reachability: the first channel of the list for which the user has an address.

Suppressions are judged by the channel worker, right before it calls its provider, where they are fresh.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from engine.durations import milliseconds

# Which profile attribute is the address of a channel. Other channels are addressed by the user's id.
ADDRESSES = {"email": "email", "sms": "phone", "whatsapp": "phone", "push": "push_token"}

MAX_ADDRESS = 320  # characters: the longest email address (64 + @ + 255)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The policy's answer for one message."""

    kind: Literal["deliver", "drop"]
    reason: str = ""
    channel: str = ""
    address: str = ""


def judge(
    channels: tuple[str, ...], user: str, profile: Mapping[str, Any], at: int, now: int, max_lateness: timedelta
) -> Verdict:
    """Return the verdict on a send that was due at `at` and is considered at `now` (both in milliseconds)."""
    if now - at > milliseconds(max_lateness):
        return Verdict("drop", "late")
    for channel in channels:
        if address := address_on(channel, user, profile):
            return Verdict("deliver", "", channel, address)
    return Verdict("drop", f"no address for {' or '.join(channels)}")


def address_on(channel: str, user: str, profile: Mapping[str, Any]) -> str:
    """Return the user's address on a channel, or an empty text."""
    attribute = ADDRESSES.get(channel)
    if attribute is None:
        return user
    address = profile.get(attribute)
    return address if isinstance(address, str) and len(address) <= MAX_ADDRESS else ""
