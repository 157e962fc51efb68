"""A worker that was down for days while events and timers piled up decides as if it had never been down, and floods nobody."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random

from engine import Delay, Exit, Journey, Send, WaitFor, always, days, hours, on
from schemas.inputs import Event
from tests.runtime.trial_journeys import greeting
from tests.scenarios.embedded_world import BEGIN, World
from tests.scenarios.tale import seed

HOUR = 3_600_000
DAY = 24 * HOUR
DOWN_HOURS = 72
DRIPS = 10

Act = tuple[int, str, Event]  # when, who, what


def course() -> Journey:
    """A lesson every twelve hours; whoever unsubscribes from it leaves."""
    steps: dict[str, Send | Delay | Exit] = {}
    for number in range(DRIPS):
        steps[f"lesson_{number}"] = Send("inapp", template=f"lesson_{number}", then=f"pause_{number}")
        steps[f"pause_{number}"] = Delay(hours(12), then=f"lesson_{number + 1}" if number + 1 < DRIPS else "done")
    return Journey(
        name="course",
        version=1,
        entry=on("enrolled"),
        exit_on=on("left"),
        start="lesson_0",
        steps={**steps, "done": Exit()},
    )


def quote() -> Journey:
    """Wait a day for the order, then once more for half a day: an order in time and one too late end differently."""
    return Journey(
        name="quote",
        version=1,
        entry=on("asked"),
        reentry=always,
        start="first",
        steps={
            "first": WaitFor(on("ordered"), timeout=days(1), then="thank", on_timeout="remind"),
            "remind": Send("inapp", template="remind", then="second"),
            "second": WaitFor(on("ordered"), timeout=hours(12), then="thank", on_timeout="lost"),
            "thank": Send("inapp", template="thank", then="done"),
            "lost": Exit("lost"),
            "done": Exit(),
        },
    )


def acts_of(chance: Random) -> list[Act]:
    """Three days in the lives of forty users."""
    acts: list[Act] = []
    for number in range(40):
        user = f"u{number}"
        acts.append((chance.randrange(2 * HOUR), user, Event(f"{user}-0", "enrolled", BEGIN)))
        for turn in range(1, 6):
            name = chance.choice(["asked", "asked", "ordered", "ordered", "signed_up", "looked", "left"])
            acts.append((chance.randrange((DOWN_HOURS - 1) * HOUR), user, Event(f"{user}-{turn}", name, BEGIN)))
    return sorted(acts, key=lambda act: (act[0], act[1]))


async def live_through(acts: Sequence[Act], down: bool) -> World:
    """Let the acts happen at their times; `down`: the worker is started only when they are all over."""
    world = World()
    await world.publish(course(), quote(), greeting())
    if not down:
        world.start()
    pending = list(acts)
    for hour in range(DOWN_HOURS + 1):
        while pending and pending[0][0] <= hour * HOUR:
            at, user, event = pending.pop(0)
            world.clock.now = BEGIN + at
            if not down:
                await world.until_quiet()  # whose time has come before this act
            await world.append((user, Event(event.id, event.name, world.clock.now)))
        world.clock.now = BEGIN + hour * HOUR
        if not down:
            await world.until_quiet()
    if down:
        world.start()
        await world.until_quiet()
    return world


def paths(world: World) -> dict[str, list[tuple[str, int]]]:
    """Every run's way: the steps it came to, each with its own time, and how it ended."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for entry in world.journal():
        if entry.kind in ("step", "exited"):
            found[entry.run].append((f"{entry.kind} {entry.step} {entry.reason}", entry.at))
    return found


async def test_a_worker_that_was_down_for_days_takes_the_same_paths_as_one_that_never_was() -> None:
    acts = acts_of(Random(seed()))
    up = await live_through(acts, down=False)
    down = await live_through(acts, down=True)
    try:
        assert paths(down) == paths(up)
        assert len(paths(up)) > 80
        kinds = {entry.reason for entry in up.journal() if entry.kind == "exited"}
        assert kinds >= {"done", "lost", "exit_on"}
        assert not [entry for entry in up.journal() if entry.kind == "blocked"]
        check_that_nobody_is_flooded(up, down)
    finally:
        await up.close()
        await down.close()


def check_that_nobody_is_flooded(up: World, down: World) -> None:
    """Of what people got in time, they still get what is less than a day late; the rest is kept back, and reported."""
    in_time = {message.id: message for message in up.messages()}
    assert sorted(up.delivered) == sorted(in_time)
    newest = {id for id, message in in_time.items() if message.requested_at > down.clock.now - DAY}
    assert set(down.delivered) == newest
    assert len(down.delivered) == len(newest) > 20
    lessons = Counter(in_time[id].user for id in down.delivered if in_time[id].journey == "course")
    assert max(lessons.values()) == 2, "those of the last day"
    late = [entry for entry in down.journal() if entry.kind == "blocked" or entry.reason == "dropped"]
    assert len(late) == len(in_time) - len(newest)
    assert {entry.reason if entry.kind == "blocked" else entry.detail["detail"] for entry in late} == {"late"}


async def test_thousands_of_timers_due_at_once_are_all_answered_each_once() -> None:
    world = World()
    await world.publish(greeting())
    crowd = [(f"u{number}", Event(f"e{number}", "signed_up", BEGIN)) for number in range(3000)]
    await world.append(*crowd)
    world.start()
    try:
        await world.until_quiet()
        assert len(world.messages()) == 3000
        await world.restart()
        world.clock.now += 5 * HOUR
        world.start()
        await world.until_quiet()
        assert world.due() == []
        goodbyes = [message.user for message in world.messages() if message.step == "part"]
        assert sorted(goodbyes) == sorted(user for user, _ in crowd)
        assert _wake_ups(world) < 2 * 3000
    finally:
        await world.close()


def _wake_ups(world: World) -> int:
    values = [record.value or b"" for records in world.records("events").values() for record in records]
    return sum(b'"type":"wake_up"' in value for value in values)
