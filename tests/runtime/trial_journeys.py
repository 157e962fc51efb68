"""Small journeys to try the loop on."""

from datetime import timedelta

from engine import Delay, Exit, Journey, Send, WaitFor, always, days, hours, on, receipt, seconds

HOUR = hours(1)


def greeting(version: int = 1, template: str = "hello", pause: timedelta = HOUR) -> Journey:
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
