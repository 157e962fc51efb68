"""What must hold for every journey and every life, ready to be checked on yours.

    check(user)                 all of it for one user
    check(*crowd)               for everybody in a crowd, and what holds over all of them

Each is a function that raises AssertionError: what was broken, and the story of the user. They judge by what left the engine
(the journal, the messages) and by the inputs, not by how it came to them.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec

from engine.actor import handle
from engine.durations import milliseconds
from engine.local_time import to_local, zone
from engine.policy import EVERYTHING_GOES, Policy, is_full, quiet_until
from engine.simulator.user import SimulatedUser
from engine.steps import Delay, Send, WaitFor
from engine.steps.sends import CALL_CHANNEL
from schemas.inputs import Erased, Receipt
from schemas.outputs import JournalEntry, Message
from schemas.state import Contact, User

ENDED = ("step", "sent", "held", "blocked", "updated", "asked", "moved", "suspended", "exited")  # no more after the end


def check(*users: SimulatedUser) -> None:
    """Raise AssertionError if anything that must always hold doesn't."""
    for user in users:
        nothing_happens_twice(user)
        nothing_happens_after_the_end(user)
        nobody_is_sent_what_they_refused(user)
        caps_hold(user)
        quiet_hours_hold(user)
        nothing_is_early(user)
        no_run_is_lost(user)
        the_same_log_gives_the_same(user)
        a_state_can_be_stored(user)
    budgets_hold(users)


def nothing_happens_twice(user: SimulatedUser) -> None:
    """No message has the id of another; a run begins, ends and reaches its goal once, whoever had it; one is live per
    journey and key."""
    ids = _ids_of(user)
    _once(user, "was sent", [message.id for each in ids for message in each.messages])
    for kind in ("entered", "exited", "goal"):
        _once(user, kind, [entry.run for each in ids for entry in each.journal if entry.kind == kind])
    live: dict[tuple[str, str | None], str] = {}
    for entry in user.journal:
        if entry.kind == "entered":
            slot = (entry.journey, entry.detail.get("key"))
            _must(user, slot not in live, f"{entry.run} began while {live.get(slot)} was live")
            live[slot] = entry.run
        elif entry.kind == "exited":
            live = {slot: run for slot, run in live.items() if run != entry.run}


def nothing_happens_after_the_end(user: SimulatedUser) -> None:
    """A run that has ended does nothing more, and nothing is done for a user who was erased."""
    ended: set[str] = set()
    for entry in user.journal:
        _must(
            user, entry.run not in ended or entry.kind not in ENDED, f"{entry.run} had ended: {entry.kind} {entry.step}"
        )
        if entry.kind == "exited":
            ended.add(entry.run)
    if any(isinstance(folded.input, Erased) for folded in user.log):
        erased_at = next(folded.at for folded in user.log if isinstance(folded.input, Erased))
        _must(user, user.state == User(erased=True), "something is left of a user who was erased")
        after = [message.id for message in user.messages if message.requested_at > erased_at]
        _must(user, not after, f"{after} were sent after the erasure")


def nobody_is_sent_what_they_refused(user: SimulatedUser) -> None:
    """After an unsubscription, a complaint, or with consent taken back, only what is transactional is sent."""
    topics = {message.id: message.topic for message in user.messages}
    refused: list[tuple[int, str, str]] = []  # since when, channel, topic or "all"
    for folded in user.log:
        receipt = folded.input
        if isinstance(receipt, Receipt) and receipt.status in ("unsubscribed", "complained"):
            topic = "all" if receipt.status == "complained" else topics.get(receipt.message, "marketing")
            refused.append((folded.at, receipt.channel, topic))
    for message, _ in _promotional(user):
        for at, channel, topic in refused:
            is_meant = message.channel == channel and topic in ("all", message.topic)
            _must(user, not is_meant or message.requested_at <= at, f"{message.id} was sent although it was refused")
        said = message.profile.get("consent")
        if isinstance(said, dict):
            words = [said.get(name) for name in (f"{message.channel}:{message.topic}", message.topic, message.channel)]
            first = next((word for word in words if isinstance(word, bool)), True)
            _must(user, first, f"{message.id} was sent without consent")


def caps_hold(user: SimulatedUser) -> None:
    """No window holds more messages than a cap of the policy allows, as long as that policy is the current one."""
    contacts: list[Contact] = []
    current = EVERYTHING_GOES
    for message, policy in _promotional(user):
        if policy is not current:
            current, contacts = policy, []
        for cap in policy.caps:
            full = is_full(cap, contacts, message.channel, message.topic, message.requested_at)
            _must(user, not full, f"{message.id} was sent beyond the cap of {cap}")
        contacts.append(Contact(message.requested_at, message.channel, message.topic))


def quiet_hours_hold(user: SimulatedUser) -> None:
    """No message is asked for in quiet hours on the user's clock, unless its send ignores them."""
    for message, policy in _promotional(user):
        step = user.catalog.journeys[user.tenant, message.journey, message.version].steps[message.step]
        if isinstance(step, Send) and step.quiet_hours == "keep":
            until = quiet_until(policy, message.channel, message.profile, message.requested_at)
            _must(user, until is None, f"{message.id} was sent in quiet hours")


def nothing_is_early(user: SimulatedUser) -> None:
    """No wait is shorter than it says, nor longer; no message is asked for before its own time, nor too late."""
    arrivals: dict[str, JournalEntry] = {}
    for entry in user.journal:
        if entry.kind == "step" and (before := arrivals.get(entry.run)) is not None:
            _stay_is_right(user, before, entry)
        if entry.kind == "step":
            arrivals[entry.run] = entry
        elif entry.kind == "moved":
            arrivals.pop(entry.run, None)
        elif entry.kind == "sent":
            message = next(each for each in user.messages if each.id == entry.message)
            _must(user, entry.at <= message.requested_at, f"{message.id} was sent before its time")
            _must(user, message.requested_at <= message.expires_at, f"{message.id} was sent too late")


def _stay_is_right(user: SimulatedUser, before: JournalEntry, after: JournalEntry) -> None:
    stay = after.at - before.at
    step = user.catalog.journeys[user.tenant, before.journey, before.version].steps[before.step]
    _must(user, stay >= 0, f"{before.run} left {before.step!r} before it came")
    match step:
        case Delay(duration=duration):
            _must(
                user,
                stay == milliseconds(duration),
                f"{before.run} stayed {stay} ms at {before.step!r}: {step.describe()}",
            )
        case WaitFor(timeout=timeout):
            _must(
                user,
                stay <= milliseconds(timeout),
                f"{before.run} stayed {stay} ms at {before.step!r}: {step.describe()}",
            )


def no_run_is_lost(user: SimulatedUser) -> None:
    """Every run that began is live or has ended, and one that is live can go on: by a timer, a quota or an operator.

    It may have begun under another id that turned out to be the user's.
    """
    ids = _ids_of(user)
    entered = Counter(entry.run for each in ids for entry in each.journal if entry.kind == "entered")
    accounted = Counter(entry.run for each in ids for entry in each.journal if entry.kind == "exited")
    accounted.update(run.id for each in ids for run in each.runs)
    _must(
        user,
        entered == accounted,
        f"began and not accounted for, or the reverse: {(entered - accounted) + (accounted - entered)}",
    )
    for run in user.runs:
        is_due = run.due_at is not None or run.look_at is not None
        _must(
            user,
            bool(run.suspended) or is_due or run.mode == "asked",
            f"nothing will ever move {run.id} at {run.step!r}",
        )


def the_same_log_gives_the_same(user: SimulatedUser) -> None:
    """Folding the user's inputs once more gives the same messages, the same journal and the same state."""
    state, older = user.first_state, b""
    messages: list[Message] = []
    journal: list[JournalEntry] = []
    for folded in user.log:
        handled = handle(folded.catalog, user.tenant, user.user_id, state, folded.input, folded.at, older)
        state, older = handled.user, handled.older
        messages += handled.messages
        journal += handled.journal
    _must(user, (state, older) == (user.state, user.older), "the same log gave another state")
    _must(user, messages == user.messages, "the same log gave other messages")
    _must(user, journal == user.journal, "the same log gave another journal")


def a_state_can_be_stored(user: SimulatedUser) -> None:
    """What a store would hold comes back as it went in."""
    stored = msgspec.msgpack.encode(user.state)
    _must(user, msgspec.msgpack.decode(stored, type=User) == user.state, "the state doesn't come back as it was stored")


def budgets_hold(users: Sequence[SimulatedUser]) -> None:
    """Over all users no day has more messages of a channel than the budget of the policy that is current allows."""
    if not users:
        return
    policy = users[0].catalog.policy_of(users[0].tenant)
    where = zone(policy.zone)
    for budget in policy.budgets:
        spent = Counter(
            to_local(message.requested_at, where).date()
            for user in users
            for message, judged_by in _promotional(user)
            if message.channel == budget.channel and judged_by is policy
        )
        for day, count in spent.items():
            assert count <= budget.per_day, (
                f"{count} {budget.channel} were sent on {day}; the budget is {budget.per_day}"
            )


def _ids_of(user: SimulatedUser) -> list[SimulatedUser]:
    """Return the user, and whoever else of the simulation turned out to be the same person."""
    found: dict[str, SimulatedUser] = {}
    following = [user]
    while following:
        each = following.pop()
        if each.user_id in found:
            continue
        found[each.user_id] = each
        for entry in each.journal:
            if entry.kind in ("linked", "absorbed"):
                other = entry.detail["user" if entry.kind == "linked" else "alias"]
                following.append(user.simulation.people[other])
    return list(found.values())


def _promotional(user: SimulatedUser) -> list[tuple[Message, Policy]]:
    """Return the messages that are neither transactional nor calls, in order, each with the policy that let it go out."""
    return [
        (message, folded.catalog.policy_of(user.tenant))
        for folded in user.log
        for message in folded.messages
        if not message.transactional and message.channel != CALL_CHANNEL
    ]


def _once(user: SimulatedUser, what: str, ids: Sequence[str]) -> None:
    twice = [id for id, count in Counter(ids).items() if count > 1]
    _must(user, not twice, f"{what} more than once: {', '.join(twice)}")


def _must(user: SimulatedUser, holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(f"{otherwise}\n{user.story()}")
