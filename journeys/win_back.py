"""Win back a customer who has not ordered for thirty days; every order starts the count anew."""

from engine import Exit, Journey, Send, WaitFor, always, any_of, days, on, receipt

journey = Journey(
    name="win_back",
    version=1,
    description="One mail after thirty silent days, a last one a week later if the first was not opened.",
    entry=on("order_placed"),
    reentry=always,
    exit_on=any_of(on("account_closed"), receipt("miss_you", "complained")),
    goal=on("order_placed", within=days(60), value="total"),
    start="silence",
    steps={
        "silence": WaitFor(on("order_placed"), timeout=days(30), then="silence", on_timeout="miss_you"),
        "miss_you": Send("email", template="miss_you", then="reaction"),
        "reaction": WaitFor(
            [(on("order_placed"), "silence"), (receipt("miss_you", "opened"), "done")],
            timeout=days(7),
            on_timeout="last_call",
        ),
        "last_call": Send("email", template="last_call", then="done"),
        "done": Exit(),
    },
)
