"""What becomes of what is kept about two actors when they turn out to be one person.

The user is who was identified; the alias is who they were before: an anonymous id, a device, an earlier id. Nothing of
either is lost, and where both cannot be kept the rule is one of:

- *profile*: the user's values win; what only the alias knows is added as long as it fits. Consent is united name by name,
  and a no of either side is a no.
- *runs* keep their ids. Of two of one journey (and key) the journey's `on_merge` says which goes on; the other ends with
  the reason "merged", and its goal with it. At most 64 stay: the oldest.
- *refusals, contacts, last entries, open goals, history*: united, so that every limit counts what both have had. Where
  refusals no longer fit, the channel is refused as a whole.
- *seen ids*: united, so that what was sent to both is folded once.
- *shadows* (`engine/shadows.py`) take the person over anew, as they are then.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from engine import duplicates
from engine.admission import MAX_RUNS, forget_oldest
from engine.catalog import Catalog
from engine.errors import InvalidInput
from engine.goals import MAX_GOALS
from engine.history import MAX_TRACKS
from engine.policy import MAX_CONTACTS
from engine.profiles import MAX_ATTRIBUTES, merged
from engine.turn import MAX_REFUSED
from schemas.state import Contact, OpenGoal, Run, Track, User

MAX_PART_BYTES = 65_536  # of what an alias hands over at once; in base64 it still is a record that may be folded
MAX_RECENT = 256  # occurrences that a track keeps: as many as the most demanding question needs
PORTIONS = ("profile", "runs", "entered", "goals", "seen", "history", "contacts", "refused")

Ended = tuple[Run, str]  # a run that doesn't go on, and why

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(User).decode


def portions(user: User, older: bytes) -> list[bytes]:
    """Return what is kept about an actor as parts that can be sent: one, if it isn't much."""
    whole = User(
        user.profile, user.runs, user.entered, user.goals, older + user.seen, False, user.history, user.contacts,
        user.refused,
    )  # fmt: skip
    encoded = _encode(whole)
    if len(encoded) <= MAX_PART_BYTES:
        return [encoded]
    return [part for name in PORTIONS for part in _split(name, getattr(whole, name))]


def united(
    user: User, older: bytes, part: bytes, catalog: Catalog, tenant: str, now: int
) -> tuple[User, bytes, list[Ended]]:
    """Return the user with a part of what an alias had, their older seen ids, and the runs that end by it."""
    other = _decode(part)
    runs, ended = _runs(user.runs, other.runs, catalog, tenant)
    gone = {run.id for run, _ in ended}
    seen, older = duplicates.united(older + user.seen, other.seen, now)
    after = replace(
        user,
        profile=_profile(user.profile, other.profile),
        runs=runs,
        entered=_entered(user.entered, other.entered),
        goals=_goals(user.goals, other.goals, gone),
        seen=seen,
        has_older=bool(older),
        history=_history(user.history, other.history),
        contacts=_contacts(user.contacts, other.contacts),
        refused=_refused(user.refused, other.refused),
        shadows={},
    )
    return after, older, ended


def _split(name: str, value: Any) -> Iterator[bytes]:
    """Yield one field in as many parts as it takes. A run that is too large by itself leaves its oldest answers behind."""
    if not value:
        return
    encoded = _encode(User(**{name: value}))
    if len(encoded) <= MAX_PART_BYTES:
        yield encoded
        return
    if len(value) == 1:
        if name == "runs" and value[0].answers:
            yield from _split(name, (replace(value[0], answers=dict(list(value[0].answers.items())[1:])),))
        else:
            yield encoded
        return
    half = len(value) // 2
    if isinstance(value, dict):
        items = list(value.items())
        halves: list[Any] = [dict(items[:half]), dict(items[half:])]
    else:
        if isinstance(value, bytes):
            half -= half % duplicates.CELL
        halves = [value[:half], value[half:]]
    for each in halves:
        yield from _split(name, each)


def _profile(ours: dict[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    if not theirs:
        return ours
    added = {name: value for name, value in theirs.items() if name not in ours}
    said, heard = ours.get("consent"), theirs.get("consent")
    if isinstance(said, Mapping) and isinstance(heard, Mapping):
        added["consent"] = {**heard, **said, **{name: False for name in heard if heard[name] is False}}
    if not added:
        return ours
    try:
        return merged(ours, added)
    except InvalidInput:
        return _as_far_as_it_fits(ours, added)


def _as_far_as_it_fits(profile: dict[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    for name in sorted(added, key=lambda name: name != "consent")[: MAX_ATTRIBUTES + 1]:
        try:
            profile = merged(profile, {name: added[name]})
        except InvalidInput:
            continue
    return profile


def _runs(
    ours: Sequence[Run], theirs: Sequence[Run], catalog: Catalog, tenant: str
) -> tuple[tuple[Run, ...], list[Ended]]:
    known = {run.id for run in ours}
    together = [*ours, *(run for run in theirs if run.id not in known)]
    together.sort(key=lambda run: (run.entered_at, run.id))
    kept: dict[tuple[str, str | None], Run] = {}
    others: list[Run] = []  # of journeys that keep both
    ended: list[Ended] = []
    for run in together:
        slot = (run.journey, run.key)
        earlier = kept.get(slot)
        if earlier is None:
            kept[slot] = run
            continue
        newest = max(earlier.version, run.version)
        match catalog.journeys[tenant, run.journey, newest].on_merge:
            case "keep_both":
                others.append(run)
            case "keep_earliest":
                ended.append((run, "merged"))
            case "keep_latest":
                ended.append((earlier, "merged"))
                kept[slot] = run
    stay = sorted([*kept.values(), *others], key=lambda run: (run.entered_at, run.id))
    ended += [(run, f"{MAX_RUNS} runs are live already") for run in stay[MAX_RUNS:]]
    return tuple(stay[:MAX_RUNS]), ended


def _entered(ours: dict[str, int], theirs: Mapping[str, int]) -> dict[str, int]:
    if not theirs:
        return ours
    latest = {slot: max(at, ours.get(slot, at)) for slot, at in theirs.items()}
    after = dict(sorted({**ours, **latest}.items(), key=lambda item: item[1]))
    forget_oldest(after)
    return after


def _goals(ours: Sequence[OpenGoal], theirs: Sequence[OpenGoal], gone: set[str]) -> tuple[OpenGoal, ...]:
    """United by run: what was reached once isn't reached again by the run that was merged away."""
    known = {goal.run for goal in ours}
    together = [*theirs, *ours] if not known else [*(goal for goal in theirs if goal.run not in known), *ours]
    return tuple([goal for goal in together if goal.run not in gone][-MAX_GOALS:])


def _history(ours: dict[str, Track], theirs: Mapping[str, Track]) -> dict[str, Track]:
    after = dict(ours)
    for name, track in theirs.items():
        mine = after.get(name)
        if mine is None:
            if len(after) < MAX_TRACKS:
                after[name] = track
            continue
        recent = tuple(sorted([*mine.recent, *track.recent])[-MAX_RECENT:])
        first_at = min(mine.first_at, track.first_at)
        after[name] = Track(first_at, mine.count + track.count, mine.total + track.total, recent)
    return after if theirs else ours


def _contacts(ours: tuple[Contact, ...], theirs: Sequence[Contact]) -> tuple[Contact, ...]:
    return tuple(sorted([*ours, *theirs], key=lambda each: each.at)[-MAX_CONTACTS:]) if theirs else ours


def _refused(ours: tuple[str, ...], theirs: Sequence[str]) -> tuple[str, ...]:
    together = tuple(dict.fromkeys([*ours, *theirs]))
    if len(together) <= MAX_REFUSED:
        return together if theirs else ours
    channels = dict.fromkeys(each.partition(":")[0] for each in together)
    return tuple(f"{channel}:all" for channel in channels)[-MAX_REFUSED:]
