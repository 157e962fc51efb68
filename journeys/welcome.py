"""Welcome a new customer, then help whoever has not ordered yet to find something."""

from engine import Branch, Delay, Exit, Journey, Send, WaitFor, days, on, once, profile, receipt

journey = Journey(
    name="welcome",
    version=1,
    description="Three mails at most: a welcome, tips after a day, a first-order gift for readers who are still looking.",
    entry=on("signed_up"),
    reentry=once,
    goal=on("order_placed", within=days(14), value="total"),
    start="welcome",
    steps={
        "welcome": Send("email", template="welcome", then="first_day"),
        "first_day": WaitFor(on("order_placed"), timeout=days(1), then="customer", on_timeout="tips"),
        "tips": Send("email", template="welcome_tips", then="read"),
        "read": WaitFor(
            [(on("order_placed"), "customer"), (receipt("tips", "clicked"), "undecided")],
            timeout=days(3),
            on_timeout="done",
        ),
        "undecided": Delay(days(2), then="plan"),
        "plan": Branch([(profile("plan", "==", "business"), "done")], otherwise="gift"),
        "gift": Send("email", template="first_order_gift", then="done"),
        "customer": Exit("ordered"),
        "done": Exit(),
    },
)
