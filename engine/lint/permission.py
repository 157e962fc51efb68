"""The rules about the tenant's policy: topics that mean nothing, times at which nothing goes out."""

from collections.abc import Iterator
from datetime import datetime, time, timedelta

from engine.durations import describe
from engine.journey import Journey
from engine.lint.findings import Finding, nearest
from engine.policy import Policy, QuietHours
from engine.steps import DelayUntil, Send


def check(journey: Journey, policy: Policy) -> Iterator[Finding]:
    """Yield what does not go together with the policy."""
    for name, step in journey.steps.items():
        if isinstance(step, Send) and not step.transactional:
            yield from _topic(name, step, policy)
            yield from _lateness(name, step, policy)
        if isinstance(step, DelayUntil) and step.at is not None:
            yield from _target(journey, name, step, policy)


def _topic(name: str, step: Send, policy: Policy) -> Iterator[Finding]:
    if policy.topics and step.topic not in policy.topics:
        problem = f"the policy has no topic {step.topic!r}, so the message needs no consent"
        yield Finding("warning", "topic", name, problem, nearest(step.topic, policy.topics, "its topics are"))


def _lateness(name: str, step: Send, policy: Policy) -> Iterator[Finding]:
    """A message that may not wait for the end of the quiet hours is lost in them."""
    for hours in _quiet_hours(policy, step):
        if step.max_lateness < (length := _length(hours)):
            yield Finding(
                "warning",
                "quiet_hours",
                name,
                f"quiet hours last {describe(length)}, and a message that is held longer than {describe(step.max_lateness)}"
                " is dropped",
                f"let max_lateness be more than {describe(length)}",
            )


def _target(journey: Journey, name: str, step: DelayUntil, policy: Policy) -> Iterator[Finding]:
    assert step.at is not None
    for target in _sends_right_after(journey, step.then):
        send = journey.steps[target]
        assert isinstance(send, Send)
        for hours in () if send.transactional else _quiet_hours(policy, send):
            if _lies_in(step.at, hours):
                yield Finding(
                    "warning",
                    "quiet_hours",
                    name,
                    f"{step.at:%H:%M} lies in the quiet hours ({hours.start:%H:%M} to {hours.end:%H:%M}): {target!r} will"
                    f" be held until {hours.end:%H:%M}",
                    'wait for a time outside them, or say quiet_hours="ignore" at the send',
                )


def _sends_right_after(journey: Journey, begin: str) -> list[str]:
    """Return the sends that a run can come to from a step without waiting in between."""
    ahead, seen, found = [begin], set(), []
    while ahead:
        name = ahead.pop()
        if name in seen:
            continue
        seen.add(name)
        if isinstance(journey.steps[name], Send):
            found.append(name)
        else:
            ahead += journey.steps[name].passes()
    return found


def _quiet_hours(policy: Policy, step: Send) -> list[QuietHours]:
    """Return the quiet hours that every channel of a send keeps."""
    if step.quiet_hours == "ignore":
        return []
    return [hours for hours in policy.quiet_hours if not hours.channels or set(step.channels) <= set(hours.channels)]


def _lies_in(shown: time, hours: QuietHours) -> bool:
    if hours.end < hours.start:
        return shown >= hours.start or shown < hours.end
    return hours.start <= shown < hours.end


def _length(hours: QuietHours) -> timedelta:
    day = datetime(2026, 1, 1)  # noqa: DTZ001 - any day, on anybody's clock
    length = datetime.combine(day, hours.end) - datetime.combine(day, hours.start)
    return length if length > timedelta(0) else length + timedelta(days=1)
