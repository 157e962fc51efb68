"""Small journeys to try the loop on."""

from datetime import timedelta

from engine import (
    Branch,
    Delay,
    Emit,
    Enter,
    EntryCap,
    Exit,
    Journey,
    Send,
    Throttle,
    Update,
    WaitFor,
    always,
    api,
    days,
    did,
    hours,
    on,
    profile,
    receipt,
    schedule,
    seconds,
    where,
)

HOUR = hours(1)


def greeting(
    version: int = 1, template: str = "hello", pause: timedelta = HOUR, moves: dict[str, str] | None = None
) -> Journey:
    """Greets at once and says goodbye after a pause."""
    return Journey(
        name="greeting",
        version=version,
        entry=on("signed_up"),
        reentry=always,
        start="greet",
        steps={
            "greet": Send("inapp", template=template, then="pause"),
            "pause": Delay(pause, then="part"),
            "part": Send("inapp", template="goodbye", then="done"),
            "done": Exit(),
        },
        moves=moves or {},
    )


def basket() -> Journey:
    """One run per basket: reminds after an hour, unless it is bought, and once more unless that was read."""
    return Journey(
        name="basket",
        version=1,
        entry=on("basket_filled"),
        key="basket",
        reentry=always,
        exit_on=on("bought"),
        goal=on("bought", within=days(2), value="total"),
        start="pause",
        steps={
            "pause": Delay(hours(1), then="remind"),
            "remind": Send("inapp", template="reminder", then="answer"),
            "answer": WaitFor(receipt("remind", "opened"), timeout=hours(6), then="done", on_timeout="again"),
            "again": Send("inapp", template="last_reminder", then="done"),
            "done": Exit(),
        },
    )


def poison() -> Journey:
    """Passes every check, and loops without waiting as soon as its message is accepted: both waits are over then."""
    return Journey(
        name="poison",
        version=1,
        entry=on("signed_up"),
        start="send",
        steps={
            "send": Send("inapp", template="hello", then="one"),
            "one": WaitFor(receipt("send", "accepted"), timeout=days(1), then="other", on_timeout="done"),
            "other": WaitFor(receipt("send", "accepted"), timeout=days(1), then="one", on_timeout="done"),
            "done": Exit(),
        },
    )


def metronome() -> Journey:
    """Goes back and forth, a second each, until told to leave: thousands of its timers are due after an outage."""
    return Journey(
        name="metronome",
        version=1,
        entry=on("signed_up"),
        exit_on=on("stopped"),
        start="tick",
        steps={"tick": Delay(seconds(1), then="tock"), "tock": Delay(seconds(1), then="tick")},
    )


def loyalty() -> Journey:
    """Asks the past, changes the profile, writes an event, and lets the user into the queue."""
    return Journey(
        name="loyalty",
        version=1,
        entry=on("bought"),
        reentry=always,
        exit_on=profile("plan", "==", "free"),
        start="often",
        steps={
            "often": Branch(
                [
                    (did("bought", at_least=3, within=days(1)), "fan"),
                    (did(on("bought", where("basket", "==", "b1")), at_least=2), "queue"),
                    (did("bought", total="total", total_at_least=50), "tell"),
                ],
                otherwise="done",
            ),
            "fan": Update({"plan": "fan", "score": None}, then="tell"),
            "tell": Emit("looked", {"why": "loyal"}, then="queue"),
            "queue": Enter("queue", {"from": "loyalty"}, then="done"),
            "done": Exit(),
        },
    )


def queue() -> Journey:
    """Few may enter, and they go on one after the other: over all users."""
    return Journey(
        name="queue",
        version=1,
        entry=api(),
        reentry=always,
        entry_cap=EntryCap(3, hours(1)),
        start="turn",
        steps={
            "turn": Throttle(per_minute=2, then="serve"),
            "serve": Send("inapp", template="your_turn", then="done"),
            "done": Exit(),
        },
    )


def news(cron: str = "0 * * * *") -> Journey:
    """A message to everybody, every hour."""
    return Journey(
        name="news",
        version=1,
        entry=schedule(cron),
        reentry=always,
        start="send",
        steps={"send": Send("inapp", template="news", then="done"), "done": Exit()},
    )
