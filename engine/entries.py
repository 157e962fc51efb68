"""How a run begins: the ways other than an event (`on(...)`)."""

from datetime import datetime
from typing import Annotated, Literal

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from engine.conditions import (
    FORBID,
    AllOf,
    Answer,
    AnyOf,
    Condition,
    Did,
    Not,
    On,
    Profile,
    ReceiptOf,
    Where,
    event_names,
)  # fmt: skip
from engine.local_time import find_zone, to_instant, to_local, zone

USERS_ZONE = "user"
MISSED_MS = 24 * 3_600_000  # a schedule's time that was missed by more than this is skipped
SEGMENT_ENTERED, SEGMENT_LEFT = "segment_entered", "segment_left"


@dataclass(frozen=True, config=FORBID)
class Api:
    """Entered by nothing but a call of the API or by another journey; `who` must hold then."""

    who: Condition | None = None
    kind: Literal["api"] = "api"

    def __str__(self) -> str:
        return "by API" if self.who is None else f"by API and {self.who}"


@dataclass(frozen=True, config=FORBID)
class Changed:
    """An attribute of the profile changes, by an event or by a step; `who` must hold after the change."""

    attribute: str = Field(min_length=1, max_length=256)
    who: Condition | None = None
    kind: Literal["changed"] = "changed"

    def __str__(self) -> str:
        return f"profile.{self.attribute} changes" + ("" if self.who is None else f" and {self.who}")


def _a_cron(expression: str) -> str:
    try:
        CronSim(expression, datetime(2026, 1, 1))  # noqa: DTZ001 - a time on somebody's clock
    except CronSimError as error:
        raise ValueError(
            f"{expression!r} is not a cron expression ({error}); every Monday at nine is '0 9 * * 1'"
        ) from None
    return expression


def _a_zone(name: str) -> str:
    if name != USERS_ZONE and find_zone(name) is None:
        raise ValueError(f"{name!r} is neither 'user' nor a time zone such as 'Europe/Berlin'")
    return name


@dataclass(frozen=True, config=FORBID)
class Schedule:
    """Every user for whom `who` holds, at the times of a cron expression, in a zone or on each user's own clock."""

    cron: Annotated[str, AfterValidator(_a_cron)]
    zone: Annotated[str, AfterValidator(_a_zone)] = "UTC"
    who: Condition | None = None
    kind: Literal["schedule"] = "schedule"

    def next_time(self, now: int) -> tuple[int, str]:
        """Return (when to go through the users, the time on their clocks or "") for the first time after `now` (ms).

        On the users' own clocks the sweep is made when the first of them, in the zone farthest ahead, gets there.
        """
        where = zone("Pacific/Kiritimati" if self.zone == USERS_ZONE else self.zone)
        after = to_local(now, where)
        for _ in range(3):  # a time in the spring gap may fall together with one after it
            local = next(CronSim(self.cron, after))
            instant = to_instant(local, where)
            if instant > now:
                return instant, local.isoformat(timespec="minutes") if self.zone == USERS_ZONE else ""
            after = local
        raise AssertionError(f"{self.cron} has no time after {after}")

    def catch_up(self, due_at: int, now: int) -> tuple[int | None, str, int]:
        """Return (the time to go through the users for, if any, the time on their clocks, the next time after now).

        `due_at` is when the schedule came next. Of several times that were missed only the last counts, and none that was
        missed by more than a day.
        """
        fired_at, local = None, ""
        while due_at <= now:
            following, shown = self.next_time(due_at - 1)
            if now - following <= MISSED_MS:
                fired_at, local = following, shown
            due_at = self.next_time(max(following, now - MISSED_MS))[0]
        return fired_at, local, due_at

    def __str__(self) -> str:
        return f"at {self.cron} ({self.zone})" + ("" if self.who is None else f" if {self.who}")


Entry = Annotated[
    On | AnyOf | AllOf | Api | Changed | Schedule | Where | Profile | Answer | Did | ReceiptOf | Not,
    Field(discriminator="kind"),
]  # what names no event is taken here, so that the journey can say what is wrong with it


def api(who: Condition | None = None) -> Api:
    """Entered by the API or by another journey only."""
    return Api(who)


def changed(attribute: str, who: Condition | None = None) -> Changed:
    """An attribute changes: `changed("plan", profile("plan", "==", "team"))`."""
    return Changed(attribute, who)


def schedule(cron: str, zone: str = "UTC", who: Condition | None = None) -> Schedule:
    """At the times of a cron expression: `schedule("0 9 * * 1", zone="user", who=profile("digest", "==", True))`."""
    return Schedule(cron, zone, who)


def segment_entered(name: str) -> On:
    """The user comes to belong to a segment."""
    return On(SEGMENT_ENTERED, (Where("segment", "==", name),))


def segment_left(name: str) -> On:
    """The user no longer belongs to a segment."""
    return On(SEGMENT_LEFT, (Where("segment", "==", name),))


def names_of(entry: Entry) -> frozenset[str]:
    """Return the events that can begin a run; none for entries that aren't events."""
    return frozenset() if isinstance(entry, Api | Changed | Schedule) else (event_names(entry) or frozenset())
