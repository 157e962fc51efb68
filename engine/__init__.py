"""The pure engine, and the words a journey is written with."""

from engine.conditions import all_of, any_of, not_, on, profile, receipt, where
from engine.durations import days, hours, minutes, seconds, weeks
from engine.errors import JourneyError
from engine.journey import Journey, after, always, once
from engine.steps import Branch, Cohorts, Delay, Exit, Send, WaitFor

__all__ = [
    "Branch",
    "Cohorts",
    "Delay",
    "Exit",
    "Journey",
    "JourneyError",
    "Send",
    "WaitFor",
    "after",
    "all_of",
    "always",
    "any_of",
    "days",
    "hours",
    "minutes",
    "not_",
    "on",
    "once",
    "profile",
    "receipt",
    "seconds",
    "weeks",
    "where",
]
