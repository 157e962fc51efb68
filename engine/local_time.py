"""What a time on somebody's clock means, daylight saving included.

Zones come from the pinned `tzdata`, never from the machine, so that every worker and every replay agrees. A time that the
clocks skip (the spring gap) becomes the first instant after the gap; a time that comes twice (the autumn overlap) is the
first of the two, once.
"""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from engine.errors import JourneyError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@lru_cache(maxsize=1024)
def find_zone(name: str) -> ZoneInfo | None:
    """Return the time zone of an IANA name such as "Europe/Berlin", or None if tzdata has no such zone."""
    parts = name.split("/")
    if len(name) > 64 or not all(part.replace("_", "").replace("-", "").replace("+", "").isalnum() for part in parts):
        return None
    resource = files("tzdata").joinpath("zoneinfo", *parts)
    if not resource.is_file():
        return None
    with resource.open("rb") as data:
        try:
            return ZoneInfo.from_file(data, key=name)
        except ValueError:  # tzdata's own tables lie beside the zones
            return None


def zone(name: str) -> ZoneInfo:
    """Return the time zone of a name that a definition gives. Raises JourneyError if there is none."""
    found = find_zone(name)
    if found is None:
        raise JourneyError(f"{name!r} is not a time zone; zones are written like 'Europe/Berlin'")
    return found


def read_local(text: str) -> datetime:
    """Return the time on a clock that a text such as "2026-05-01T09:00" means."""
    return datetime.fromisoformat(text)


def to_local(at: int, where: ZoneInfo) -> datetime:
    """Return what the clocks show at an instant (ms), without a zone."""
    return (EPOCH + timedelta(milliseconds=at)).astimezone(where).replace(tzinfo=None)


def to_instant(local: datetime, where: ZoneInfo) -> int:
    """Return the instant (ms) at which the clocks first show a time; if they skip it, the first instant after the gap."""
    first = local.replace(tzinfo=where, fold=0).astimezone(UTC)
    if first.astimezone(where).replace(tzinfo=None) == local:
        return _milliseconds(first)
    # In the gap. Read with the offset before it, the time lies behind the change; with the offset after it, before.
    low, high = local.replace(tzinfo=where, fold=1).astimezone(UTC), first
    before = low.astimezone(where).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(where).utcoffset() == before:
            low = middle
        else:
            high = middle
    return _milliseconds(high.replace(microsecond=0))


def next_time_of_day(now: int, at: time, weekdays: frozenset[int], where: ZoneInfo) -> int:
    """Return the first instant, at or after `now`, at which the clocks show `at` on one of the weekdays (0 is Monday)."""
    today = to_local(now, where).date()
    for ahead in range(-1, 9):  # a week, and a day on either side for the changes of the clocks
        day = today + ahead * DAY
        if day.weekday() in weekdays and (instant := to_instant(datetime.combine(day, at), where)) >= now:
            return instant
    raise AssertionError("a week has a day of every name")


def read_date(value: object, where: ZoneInfo, at: time | None) -> int | None:
    """Return the instant that an attribute means, or None if it isn't a date.

    Taken are ISO 8601 dates ("2026-05-01": midnight, or the time `at`), dates with a time (local, unless they say
    otherwise), and milliseconds since the epoch. With `at`, only the day of a time counts.
    """
    try:
        if isinstance(value, bool) or value is None:
            return None
        if isinstance(value, int | float):
            local = to_local(int(value), where)
        elif isinstance(value, str) and len(value) <= 40:
            parsed = datetime.fromisoformat(value) if "T" in value or " " in value else _midnight(value)
            local = parsed if parsed.tzinfo is None else parsed.astimezone(where).replace(tzinfo=None)
        else:
            return None
        return to_instant(local if at is None else datetime.combine(local.date(), at), where)
    except (ValueError, OverflowError):
        return None


def _midnight(text: str) -> datetime:
    return datetime.combine(date.fromisoformat(text), time())


def _milliseconds(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(milliseconds=1)
