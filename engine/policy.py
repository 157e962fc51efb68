"""May this message go out now?

One pure function returns a verdict with its reason, and every verdict is journaled. The order is fixed:

1. *late*: a send whose own time lies further back than its `max_lateness` is dropped, so that a backlog floods nobody
2. *consent* for the channel and the topic (suppressions are judged again by the channel worker, right before the call)
3. *address*: known and of a possible length
4. *holdout*: users who get nothing, so that it can be measured what messages do; sticky
5. *quiet hours*, by the user's clock: hold until they end
6. *caps* in rolling windows, per channel, per topic or over all
7. *budget* of the tenant for the channel and the day: asked of the quota actor

A transactional message (a receipt, a password) is held to 1 and 3 only. Of several channels the first that may deliver is
taken; if none may now and one may later, the message is held.
"""

from collections.abc import Mapping, Sequence
from datetime import time, timedelta
from typing import Annotated, Any, Literal

from msgspec import Struct
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from engine.cohorts import point
from engine.conditions import FORBID
from engine.durations import Duration, describe, milliseconds
from engine.local_time import find_zone, next_time_of_day, to_local, zone
from schemas.state import Contact, User

# Which profile attribute is the address of a channel. Other channels are addressed by the user's id.
ADDRESSES = {"email": "email", "sms": "phone", "whatsapp": "phone", "push": "push_token"}
MAX_ADDRESS = 320  # characters: the longest email address (64 + @ + 255)
MAX_CONTACTS = 512  # remembered per user: above what any sensible cap allows
EVERY_DAY = frozenset(range(7))

Percent = Annotated[float, Field(ge=0, le=100)]


def _a_zone(name: str) -> str:
    zone(name)
    return name


@dataclass(frozen=True, config=FORBID)
class QuietHours:
    """No messages from `start` to `end` on the user's clock, over midnight if `end` is earlier. No channels: all."""

    start: time
    end: time
    channels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.start == self.end:
            raise ValueError("quiet hours begin and end at different times, such as time(21) and time(8)")


@dataclass(frozen=True, config=FORBID)
class Cap:
    """At most so many messages within any such time: of a channel, of a topic, or of all."""

    most: int = Field(ge=1, le=MAX_CONTACTS)
    within: Duration = Field(gt=timedelta(0))
    channel: str | None = None
    topic: str | None = None

    def __str__(self) -> str:
        what = " ".join(part for part in (self.channel, self.topic) if part) or "messages"
        return f"at most {self.most} {what} within {describe(self.within)}"


@dataclass(frozen=True, config=FORBID)
class Budget:
    """At most so many messages of a channel in a day of the policy's time zone, over all users."""

    channel: str
    per_day: int = Field(ge=0)


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Policy:
    """What a tenant allows. A definition like a journey: versioned, and activated through the log.

    topics: "opt_in" needs consent first, "opt_out" goes until it is taken back; a topic that isn't named is "opt_out".
    Consent is the profile's attribute `consent`: an object of "topic", "channel" or "channel:topic" to true or false.
    """

    version: int = Field(ge=1, le=999_999)
    name: Literal["policy"] = "policy"
    zone: Annotated[str, AfterValidator(_a_zone)] = "UTC"
    topics: dict[str, Literal["opt_in", "opt_out"]] = Field(default_factory=dict)
    holdout: Percent = 0
    holdout_salt: str = "global"
    quiet_hours: tuple[QuietHours, ...] = ()
    caps: tuple[Cap, ...] = ()
    budgets: tuple[Budget, ...] = ()
    kind: Literal["policy"] = "policy"

    @property
    def label(self) -> str:
        return f"policy v{self.version}"

    @property
    def longest_window_ms(self) -> int:
        """How far back the caps look."""
        return max((milliseconds(cap.within) for cap in self.caps), default=0)


class Request(Struct, frozen=True, gc=False):
    """A message that a send asks for, as the policy needs to know it. `at`: the send's own time."""

    channels: Sequence[str]
    topic: str
    transactional: bool
    at: int
    max_lateness_ms: int
    ignores_quiet_hours: bool = False
    holdout: float = 0  # of the journey, in percent
    journey: str = ""
    is_paid: bool = False  # the budget has granted a place


class Verdict(Struct, frozen=True, gc=False):
    """The policy's answer for one message. `until_at`: when a held one is judged anew; `budget`: what to ask of the quota."""

    kind: Literal["deliver", "drop", "hold", "ask"]
    reason: str = ""
    channel: str = ""
    address: str = ""
    until_at: int = 0
    budget: Budget | None = None
    day: str = ""


def judge(policy: Policy, user_id: str, user: User, request: Request, now: int) -> Verdict:
    """Return the verdict on a request considered at `now` (ms). `user` is as of this input: profile, contacts, refusals."""
    if now - request.at > request.max_lateness_ms:
        return Verdict("drop", "late")
    if len(request.channels) == 1:
        return _on_channel(policy, request.channels[0], user_id, user, request, now)
    verdicts = [_on_channel(policy, channel, user_id, user, request, now) for channel in request.channels]
    for verdict in verdicts:
        if verdict.kind in ("deliver", "ask"):
            return verdict
    held = [verdict for verdict in verdicts if verdict.kind == "hold"]
    if held:
        return min(held, key=lambda verdict: verdict.until_at)
    reasons = dict.fromkeys(verdict.reason for verdict in verdicts)
    if all(reason.startswith("no address") for reason in reasons):
        return Verdict("drop", f"no address for {' or '.join(request.channels)}")
    return Verdict("drop", "; ".join(reasons))


def _on_channel(policy: Policy, channel: str, user_id: str, user: User, request: Request, now: int) -> Verdict:
    if not request.transactional and not consents(policy, user, channel, request.topic):
        return Verdict("drop", f"no consent to {request.topic} on {channel}")
    address = address_on(channel, user_id, user.profile)
    if not address:
        return Verdict("drop", f"no address for {channel}")
    if request.transactional:
        return Verdict("deliver", "", channel, address)
    if (policy.holdout or request.holdout) and _is_held_out(policy, user_id, request):
        return Verdict("drop", "holdout")
    if not request.ignores_quiet_hours and (until_at := quiet_until(policy, channel, user.profile, now)) is not None:
        return Verdict("hold", "quiet hours", channel, address, until_at)
    for cap in policy.caps:
        if is_full(cap, user.contacts, channel, request.topic, now):
            return Verdict("drop", f"cap: {cap}")
    for budget in policy.budgets:
        if budget.channel == channel and not request.is_paid:
            reason = f"budget of {budget.per_day} {channel} a day"
            return Verdict("ask", reason, channel, address, budget=budget, day=day_of(policy, now))
    return Verdict("deliver", "", channel, address)


def day_of(policy: Policy, at: int) -> str:
    """Return the date, in the policy's zone, on whose budget a message at that instant is."""
    return to_local(at, zone(policy.zone)).date().isoformat()


def consents(policy: Policy, user: User, channel: str, topic: str) -> bool:
    """May the user be written to on this channel about this topic? The narrowest word of theirs counts."""
    if user.refused and (f"{channel}:{topic}" in user.refused or f"{channel}:all" in user.refused):
        return False
    said = user.profile.get("consent")
    if said is not None and isinstance(said, Mapping):
        for name in (f"{channel}:{topic}", topic, channel):
            if isinstance(said.get(name), bool):
                return bool(said[name])
    return policy.topics.get(topic, "opt_out") == "opt_out"


def address_on(channel: str, user_id: str, profile: Mapping[str, Any]) -> str:
    """Return the user's address on a channel, or an empty text."""
    attribute = ADDRESSES.get(channel)
    if attribute is None:
        return user_id
    address = profile.get(attribute)
    return address if isinstance(address, str) and len(address) <= MAX_ADDRESS else ""


def zone_name(policy: Policy, profile: Mapping[str, Any]) -> str:
    """Return the name of the user's time zone: the profile's `timezone` if it is one, else the tenant's."""
    name = profile.get("timezone")
    return name if isinstance(name, str) and find_zone(name) is not None else policy.zone


def quiet_until(policy: Policy, channel: str, profile: Mapping[str, Any], now: int) -> int | None:
    """Return when the quiet hours end that `now` lies in, or None if it lies in none."""
    if not policy.quiet_hours:
        return None
    where = zone(zone_name(policy, profile))
    shown = to_local(now, where).time()
    for hours in policy.quiet_hours:
        if hours.channels and channel not in hours.channels:
            continue
        over_midnight = hours.end < hours.start
        inside = shown >= hours.start or shown < hours.end if over_midnight else hours.start <= shown < hours.end
        if inside:
            return next_time_of_day(now, hours.end, EVERY_DAY, where)
    return None


def is_full(cap: Cap, contacts: Sequence[Contact], channel: str, topic: str, now: int) -> bool:
    """Would one more message break the cap? A message counts for a full window after it was asked for."""
    if cap.channel not in (None, channel) or cap.topic not in (None, topic):
        return False
    since = now - milliseconds(cap.within)
    counted = [
        contact
        for contact in contacts
        if contact.at > since and cap.channel in (None, contact.channel) and cap.topic in (None, contact.topic)
    ]
    return len(counted) >= cap.most


def with_contact(policy: Policy, contacts: tuple[Contact, ...], contact: Contact) -> tuple[Contact, ...]:
    """Return the contacts with one more, without those that no cap looks at any more."""
    since = contact.at - policy.longest_window_ms
    return (*(each for each in contacts if each.at > since), contact)[-MAX_CONTACTS:]


def _is_held_out(policy: Policy, user_id: str, request: Request) -> bool:
    if policy.holdout and point(user_id, f"holdout:{policy.holdout_salt}") * 100 < policy.holdout:
        return True
    return bool(request.holdout) and point(user_id, f"holdout:{request.journey}") * 100 < request.holdout


EVERYTHING_GOES = Policy(version=1)  # of a tenant that has published none
