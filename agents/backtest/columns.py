"""How a row of a table becomes an event: which column is what.

Columns that are not named for something are properties of the event. In CSV everything is text, so what looks like a number
or a truth value becomes one, except with leading zeros (a postal code); an empty cell is an absent property.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

from agents.ingress import timestamps
from agents.ingress.refusals import Refusal
from engine.errors import InvalidInput
from schemas.inputs import Event

# What a column is taken for if nothing is said, in this order.
USER_NAMES = ("user", "user_id", "userid", "customer", "customer_id")
TIME_NAMES = ("time", "timestamp", "occurred_at", "at", "date", "datetime")
EVENT_NAMES = ("event", "event_name", "name")
ID_NAMES = ("id", "event_id", "message_id", "messageid")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what. `event_name` is the name of all events, where no column says it; `profile` are columns whose
    values are set in the user's profile."""

    user: str | None = None
    time: str | None = None
    event: str | None = None
    event_name: str | None = None
    id: str | None = None
    time_format: str | None = None
    profile: tuple[str, ...] = ()

    def reader(self, names: Sequence[str], file: str) -> Callable[[Sequence[Any], int], tuple[str, Event]]:
        """Return what makes (user, event) of a row and its number. Raises InvalidInput if a column is missing."""
        user = _find(self.user, USER_NAMES, names, file, "the user", "--user-column")
        time = _find(self.time, TIME_NAMES, names, file, "the time", "--time-column")
        event = None
        if self.event_name is None:
            event = _find(self.event, EVENT_NAMES, names, file, "the event's name", "--event-column or --event")
        id = _find(self.id, ID_NAMES, names, file, "the event's id", "--id-column", needed=self.id is not None)
        profile = [(name, _at(name, names, file)) for name in self.profile]
        taken = {user, time, event, id, *(place for _, place in profile)}
        rest = [(name, place) for place, name in enumerate(names) if place not in taken and name]
        read_time = _time_reader(self.time_format)
        width = len(names)

        def read(row: Sequence[Any], number: int) -> tuple[str, Event]:
            if len(row) != width:
                raise InvalidInput("the row has more or fewer cells than the header")
            who = _text(row[user])
            if not who:
                raise InvalidInput("the row names no user")
            name = self.event_name if event is None else _text(row[event])
            if not name:
                raise InvalidInput("the row names no event")
            known = "" if id is None else _text(row[id])
            return who, Event(
                id=known or f"{file}:{number}",
                name=name,
                occurred_at=read_time(row[time]),
                properties={name: value for name, at in rest if (value := _value(row[at])) is not None},
                profile={name: value for name, at in profile if (value := _value(row[at])) is not None},
            )

        return read


def _find(
    wanted: str | None,
    usual: Sequence[str],
    names: Sequence[str],
    file: str,
    what: str,
    option: str,
    needed: bool = True,
) -> Any:
    if wanted is not None:
        return _at(wanted, names, file)
    lowered = [name.lower() for name in names]
    place = next((lowered.index(name) for name in usual if name in lowered), None)
    if place is None and needed:
        raise InvalidInput(f"{file}: no column is known to hold {what}; name it with {option}: {', '.join(names)}")
    return place


def _at(name: str, names: Sequence[str], file: str) -> int:
    if name not in names:
        raise InvalidInput(f"{file} has no column {name!r}; it has {', '.join(names)}")
    return names.index(name)


def _time_reader(format: str | None) -> Callable[[Any], int]:
    @lru_cache(maxsize=100_000)  # dates repeat, and strptime takes 8 us
    def parse(text: str) -> int:
        if format is not None:
            try:
                moment = datetime.strptime(text, format)  # noqa: DTZ007 - the format may name a zone, or not
            except ValueError:
                raise InvalidInput(f"a time is not written as {format}") from None
            moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            return round(moment.timestamp() * 1000)
        try:
            return timestamps.read(float(text) if text.replace(".", "", 1).isdecimal() else text)
        except Refusal:
            raise InvalidInput("a time can't be read; say how it is written with --time-format") from None

    def read(value: Any) -> int:
        if isinstance(value, str):
            return parse(value.strip())
        if isinstance(value, datetime):
            return round((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() * 1000)
        if isinstance(value, date):
            return round(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp() * 1000)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return parse(str(value)) if format is not None else timestamps.read(value)
        raise InvalidInput("the row has no time")

    return read


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else str(value)


def _value(value: Any) -> Any:
    """Return a cell as an event may hold it; None if it is empty."""
    if isinstance(value, str):
        return _typed(value.strip())
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): inner for name, item in value.items() if (inner := _value(item)) is not None}
    if isinstance(value, list):
        return [_value(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


@lru_cache(maxsize=100_000)
def _typed(text: str) -> bool | int | float | str | None:
    if not text:
        return None
    if text in ("true", "false"):
        return text == "true"
    digits = text.lstrip("-")
    if digits[:1] == "0" and digits[1:2].isdecimal():
        return text
    try:
        if digits.isdecimal():
            return int(text) if len(digits) < 19 else text
        number = float(text)
    except ValueError:
        return text
    return number if digits[:1] in "0123456789." else text  # "nan" and "infinity" are words
