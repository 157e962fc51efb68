"""That what an author has written wrongly is told with the place, and with what would be right."""

import pytest
from pydantic import ValidationError

import engine
from engine.definitions import load
from engine.errors import JourneyError
from engine.mistakes import explain

NAMES = "lower-case letters, digits and _, a letter first"
MISTAKES = [
    ("WaitFor(on('x'), then='a', on_timeout='b')", "WaitFor: `timeout` is missing; say how long is waited at most"),
    (
        "WaitFor(on('x'), then='a', timeout=days(1))",
        "WaitFor: `on_timeout` is missing; name the step for who has waited",
    ),
    ("Delay(hours(1))", "Delay: `then` is missing; name the step that comes next"),
    ("Delay(-hours(1), then='x')", "Delay: `duration` is -1 day, 23:00:00; it should be greater than 0 seconds"),
    ("Delay(3, then='x')", "Delay: `duration` is 3; write a duration, such as days(3) or hours(3)"),
    ("after(30)", "After: `duration` is 30; write a duration, such as days(30) or hours(30)"),
    ("Cap(1, 7)", "Cap: `within` is 7; write a duration, such as days(7)"),
    ("did('x', within=7)", "Did: `within` is 7; write a duration, such as days(7)"),
    (
        "WaitFor(on('x'), timeout=60, then='a', on_timeout='b')",
        "WaitFor: `timeout` is 60; write a duration, such as days(60)",
    ),
    ("Send('Email', template='x', then='d')", f"Send: `channel` is 'Email'; write it with {NAMES}, 32 at most"),
    ("Send('email', template='Hi!', then='d')", "Send: `template` is 'Hi!'; write it with lower-case letters, digits,"),
    ("Send('email', templat='x', then='d')", "Send: `templat` is nothing that it takes; did you mean 'template'?"),
    ("Send('email', template='x', then='d', zzz=1)", "Send: `zzz` is nothing that it takes; there are channel, "),
    ("Call('ftp://x', then='a', on_failed='b')", "Call: `url` is 'ftp://x'; write an address such as 'https://"),
    ("Call('https://x.example', then='a')", "Call: `on_failed` is missing; name the step for who could not be served"),
    ("Cohorts({})", "Cohorts: `weights` is empty; it needs at least one entry"),
    ("Cohorts({'a': 0})", "Cohorts: `weights.a` is 0; it should be greater than 0"),
    ("Branch([], otherwise='x')", "Branch: `cases` is empty; it needs at least one entry"),
    ("Branch([(on('x'), 'y')])", "Branch: `otherwise` is missing; name the step for whom no case holds"),
    ("Throttle(per_minute=0, then='x')", "Throttle: `per_minute` is 0; it should be greater than 0"),
    ("Update({}, then='x')", "Update: `profile` is empty; it needs at least one entry"),
    ("Enter('Welcome', then='x')", f"Enter: `journey` is 'Welcome'; write it with {NAMES}, 64 at most"),
    ("DelayUntil(at='nine', then='x')", "DelayUntil: `at` is 'nine'; it should be in a valid time format"),
    ("DelayUntil(then='x')", "DelayUntil needs a time (`at`) or a date (`date`)"),
    ("value('evnt.x')", "Path: `path` is 'evnt.x'; write a path such as 'event.total', 'profile.tier'"),
    ("on('')", "On: `name` is empty; it needs at least one character"),
    ("profile('tier', '=', 'x')", "Profile: `op` is '='; did you mean '=='?"),
    ("did('x', at_least=-1)", "Did: `at_least` is -1; it should be greater than or equal to 1"),
    ("schedule('0 9 * * 1', zone='Nowhere')", "Schedule: `zone`: 'Nowhere' is neither 'user' nor a time zone such as"),
    ("Cap(0, days(1))", "Cap: `most` is 0; it should be greater than or equal to 1"),
    ("Policy(version=1, holdout=200)", "Policy: `holdout` is 200; it should be less than or equal to 100"),
    (
        "Journey(name='Hi', version=1, entry=on('x'), start='a', steps={'a': Exit()})",
        f"Journey: `name` is 'Hi'; write it with {NAMES}, 64 at most",
    ),
    (
        "Journey(name='hi', version=1, entry=on('x'), start='a', steps={'a': Exit(), 'b': 'x' * 99})",
        "Journey: `steps.b` is 'xxx",
    ),
]


@pytest.mark.parametrize(("written", "told"), MISTAKES)
def test_a_mistake_is_told_in_one_line_with_its_place_and_a_way_out(written: str, told: str) -> None:
    with pytest.raises(ValidationError) as raised:
        eval(written, dict(vars(engine)))
    line = explain(raised.value)
    assert line.startswith(told)
    assert "\n" not in line
    assert len(line) < 400


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("{}", "Journey: `name` is missing; give it a name"),
        ("[", "Invalid JSON: EOF while parsing a list"),
        (
            '{"name":"a","version":1,"entry":{"kind":"on","name":"x"},"start":"a","steps":{"a":{"kind":"exit","raison":""}}}',
            "Journey: `steps.a.exit.raison` is nothing that it takes; did you mean 'reason'?",
        ),
        (
            '{"name":"a","version":1,"entry":{"kind":"on","name":"x"},"start":"a","steps":{"a":{"kind":"dealy"}}}',
            "Journey: `steps.a` is of the kind 'dealy', which is none; did you mean 'delay'?",
        ),
        (
            '{"name":"a","version":1,"entry":{"kind":"on","name":"x"},"start":"a","steps":{"a":{"duration":"PT1H"}}}',
            "Journey: `steps.a` doesn't say which kind it is; give it a `kind`",
        ),
        (
            '{"name":"a","version":1,"entry":{"kind":"on","name":"x"},"start":"a",'
            '"steps":{"a":{"kind":"delay","duration":"PT0S","then":"a"}}}',
            "Journey: `steps.a.delay.duration` is 0:00:00; it should be greater than 0 seconds",
        ),
    ],
)
def test_in_json_the_place_is_a_path(body: str, told: str) -> None:
    with pytest.raises(JourneyError) as raised:
        load(body)
    assert str(raised.value).startswith(told)
