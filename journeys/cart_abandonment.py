"""Win back a cart: remind after an hour, then make one offer to whoever stays silent."""

from engine import Branch, Cohorts, Delay, Exit, Journey, Send, WaitFor, after, days, hours, on, profile, receipt, where

journey = Journey(
    name="cart_abandonment",
    version=3,
    description="One run per cart. An order with the cart's id ends it at once.",
    entry=on("cart_updated", where("items", ">", 0)),
    key="cart_id",
    reentry=after(days(7)),
    exit_on=on("order_placed"),
    goal=on("order_placed", within=days(3), value="total"),
    start="cooldown",
    steps={
        "cooldown": Delay(hours(1), then="remind"),
        "remind": Send("email", template="cart_reminder", then="answer"),
        "answer": WaitFor(receipt("remind", "clicked"), timeout=days(1), then="done", on_timeout="offer"),
        "offer": Branch([(profile("tier", "==", "gold"), "gold")], otherwise="experiment"),
        "gold": Send("email", template="gold_offer", then="done"),
        "experiment": Cohorts({"ten_percent": 50, "control": 50}),
        "ten_percent": Send("email", template="ten_percent", then="done"),
        "control": Exit("control group"),
        "done": Exit(),
    },
)
