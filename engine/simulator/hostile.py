"""Histories that nobody would wish for, as Hypothesis strategies: for properties that must hold whatever happens.

    from engine.simulator.hostile import histories
    from engine.simulator.invariants import check

    @given(histories(my_journey, my_policy))
    def test_nothing_bad_happens_to_anybody(history):
        check(history.play(my_journey, my_policy, settle=days(60)))

What is drawn is made for the definitions it is drawn for: their events and attributes with values on either side of each
comparison, waits that end in the very millisecond of a timeout, before and after it. In between come duplicates, events
that are late or from the future, outages in which wake-ups are lost, wake-ups too many, receipts in any order, changes of the
time zone and of consent, huge and odd payloads, logins on devices with a past, pauses, new versions, erasure; and lives begin
before the clocks change.

Needs Hypothesis: pip install 'equeengage[testing]'.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

try:
    from hypothesis import strategies as st
except ImportError as missing:
    raise ImportError(
        "hostile histories are drawn by Hypothesis, which is not installed; run: pip install 'equeengage[testing]'"
    ) from missing

from engine.events import MAX_DEPTH, MAX_NAME
from engine.journey import Journey
from engine.policy import Policy
from engine.simulator.acts import (
    Act,
    Controls,
    Enters,
    Erases,
    Happens,
    Hears,
    History,
    LogsIn,
    OnDevice,
    Publishes,
    Repeats,
    Resumes,
    Sleeps,
    Waits,
    Wakes,
)
from engine.simulator.vocabulary import ODD, Candidates, Vocabulary, nested
from schemas.inputs import ReceiptStatus

MOST_ACTS = 30
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Kiritimati",
    "Pacific/Pago_Pago", "Mars/Phobos", 7, None,
)  # fmt: skip
BEGINNINGS = tuple(
    datetime.fromisoformat(f"{day}T{hour}:00+00:00")
    for day, hour in [
        ("2026-01-05", "09"),
        ("2026-03-07", "12"),  # the night before the clocks go forward in New York,
        ("2026-03-28", "12"),  # in Berlin,
        ("2026-10-03", "06"),  # and on Lord Howe, by half an hour
        ("2026-04-04", "06"),  # and back there,
        ("2026-10-24", "12"),  # in Berlin,
        ("2026-10-31", "12"),  # in New York
        ("2028-02-28", "20"),  # a leap year
        ("2026-12-31", "23"),
    ]
)
DEVICES = ("phone", "desk")
OUTAGES = (timedelta(minutes=5), timedelta(hours=3), timedelta(hours=25), timedelta(days=8))
LATE = (timedelta(minutes=1), timedelta(hours=30), timedelta(days=4), timedelta(days=-2))
STATUSES: tuple[ReceiptStatus, ...] = (*get_args(ReceiptStatus), "accepted", "delivered", "opened", "opened", "clicked")


def histories(
    *definitions: Journey | Policy,
    later: Sequence[Journey | Policy] = (),
    erasure: bool = True,
    operators: bool = True,
    logins: bool = True,
    most: int = MOST_ACTS,
) -> st.SearchStrategy[History]:
    """Return a strategy of lives in which these definitions have a part.

    later: versions and policies that are published on the way. erasure: whether users ask to be forgotten. operators:
    whether journeys are paused, resumed, stopped and retired, and suspended runs resumed. logins: whether there are devices
    that turn out to be the user's. most: acts in a life.
    """
    vocabulary = Vocabulary([*definitions, *later], BEGINNINGS[0])
    acts = st.one_of(_acts(vocabulary, later, erasure, operators, logins))
    short, long = st.lists(acts, max_size=most // 3), st.lists(acts, min_size=most // 3, max_size=most)
    return st.builds(History, st.sampled_from(BEGINNINGS), profiles(vocabulary), st.one_of(short, long).map(tuple))


def profiles(vocabulary: Vocabulary) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy of who the user is: with or without addresses, a time zone, consent, and what is asked about."""
    addresses = st.sampled_from(
        [{}, {}, {}, {}, {"email": None}, {"phone": None, "push_token": None}, {"email": "x" * 400}]
    )
    consents = st.one_of(st.just({}), st.just({}), _consents(vocabulary))
    return st.builds(
        lambda *parts: {name: value for part in parts for name, value in part.items()},
        addresses, _zones(), consents, _values(vocabulary.attributes),
    )  # fmt: skip


def _acts(
    vocabulary: Vocabulary, later: Sequence[Journey | Policy], erasure: bool, operators: bool, logins: bool
) -> list[st.SearchStrategy[Act]]:
    events = st.sampled_from(["unheard", *vocabulary.events])
    properties = _values(vocabulary.properties)
    durations = st.one_of(
        st.sampled_from([timedelta(0), *vocabulary.durations]),
        st.integers(1, 3 * 24 * 60).map(lambda minutes: timedelta(minutes=minutes)),
    )
    statuses = st.sampled_from(STATUSES)
    attributes = st.one_of(_values(vocabulary.attributes), _zones(), _consents(vocabulary))
    names = st.sampled_from([journey.name for journey in vocabulary.journeys] or ["unheard"])
    answers, nth = _answers(vocabulary), st.integers(1, 4)
    happens, hears, waits = (
        st.builds(Happens, events, properties),
        st.builds(Hears, nth, statuses, answers),
        st.builds(Waits, durations),
    )
    # What is ordinary stands here more often than what is odd about it, or nothing would come about for it to be odd about.
    acts: list[st.SearchStrategy[Any]] = [
        happens, happens, happens, happens, waits, waits, waits, hears, hears,
        st.builds(Happens, events, properties, late=st.sampled_from(LATE)),
        st.builds(Happens, events, properties, attributes),
        st.builds(Happens, st.just("identify"), profile=attributes),
        st.builds(Happens, events, _huge(), id=st.sampled_from(["", "i" * MAX_NAME, "i" * (MAX_NAME + 1)])),
        st.builds(Repeats, nth),
        st.builds(Sleeps, st.one_of(durations, st.sampled_from(OUTAGES))),
        st.builds(Enters, names, properties),
        st.sampled_from([Wakes(), Resumes()]),
    ]  # fmt: skip
    if logins:
        devices = st.sampled_from(DEVICES)
        acts += [st.builds(OnDevice, devices, st.one_of(happens, happens, hears)), st.builds(LogsIn, devices)]
    if operators:
        actions = st.sampled_from(["resume", "resume", "resume", "pause", "pause", "retire", "stop"])
        acts.append(st.builds(Controls, names, actions))
    if later:
        acts.append(st.builds(Publishes, st.sampled_from(list(later))))
    if erasure:
        acts.append(st.sampled_from([Wakes(), Wakes(), Wakes(), Wakes(), Erases()]))  # seldom: nothing happens after it
    return acts


def _values(candidates: Candidates) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy of objects that have most of the paths, mostly with a value that makes a difference."""
    pairs = [
        st.sampled_from([*([(path, value) for value in values] * 6), *((path, odd) for odd in ODD), None, None, None])
        for path, values in candidates.items()
    ]
    return st.tuples(*pairs).map(lambda drawn: nested([pair for pair in drawn if pair is not None]))


def _answers(vocabulary: Vocabulary) -> st.SearchStrategy[dict[str, Any]]:
    kinds = [_values(candidates) for candidates in vocabulary.answers.values()]
    return st.one_of(st.just({}), *kinds)


def _zones() -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from(ZONES).map(lambda zone: {"timezone": zone})


def _consents(vocabulary: Vocabulary) -> st.SearchStrategy[dict[str, Any]]:
    topics, channels = list(vocabulary.topics), list(vocabulary.channels)
    narrow = [f"{channel}:{topic}" for channel in channels for topic in topics]
    said = st.dictionaries(st.sampled_from([*topics, *channels, *narrow]), st.booleans(), max_size=2)
    return st.one_of(said, st.sampled_from([None, "yes"])).map(lambda consent: {"consent": consent})


def _huge() -> st.SearchStrategy[dict[str, Any]]:
    deep: dict[str, Any] = {}
    for _ in range(MAX_DEPTH - 1):
        deep = {"in": deep}
    return st.sampled_from(
        [
            {"text": "ü" * 15_000},
            {f"field_{number}": number for number in range(500)},
            deep,
            {"deeper": deep},  # one level more than is taken
            {"number": 1 << 70},
        ]
    )


assert BEGINNINGS[0].tzinfo == UTC
