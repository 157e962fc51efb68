"""The pure engine, and the words a journey is written with."""

from engine.conditions import all_of, answer, any_of, did, not_, on, profile, receipt, where
from engine.durations import days, hours, minutes, seconds, weeks
from engine.entries import api, changed, schedule, segment_entered, segment_left
from engine.errors import JourneyError
from engine.journey import EXIT, AtMost, EntryCap, Journey, after, always, once
from engine.policy import Budget, Cap, Policy, QuietHours
from engine.steps import (
    Branch,
    Call,
    Cohorts,
    Delay,
    DelayUntil,
    Emit,
    Enter,
    Exit,
    Send,
    Throttle,
    Update,
    WaitFor,
)
from engine.values import value

__all__ = [
    "EXIT",
    "AtMost",
    "Branch",
    "Budget",
    "Call",
    "Cap",
    "Cohorts",
    "Delay",
    "DelayUntil",
    "Emit",
    "Enter",
    "EntryCap",
    "Exit",
    "Journey",
    "JourneyError",
    "Policy",
    "QuietHours",
    "Send",
    "Throttle",
    "Update",
    "WaitFor",
    "after",
    "all_of",
    "always",
    "answer",
    "any_of",
    "api",
    "changed",
    "days",
    "did",
    "hours",
    "minutes",
    "not_",
    "on",
    "once",
    "profile",
    "receipt",
    "schedule",
    "seconds",
    "segment_entered",
    "segment_left",
    "value",
    "weeks",
    "where",
]
