"""Who the customers of the demo's shop are, what they do, and which mails that must bring them.

What a customer must get is written down here by hand, next to what they do, and knows nothing of the server: it is the
measure of `equeengage demo --once`. The only thing taken from the engine is the split at random, which is a hash.

The journeys are played faster, each at its own pace (`PACES`). Acts keep well away from the end of a wait: an order that
must end a run comes together with the cart, one that must come late doesn't come at all.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from engine.cohorts import cohort

# How many times faster a journey is played: a day of the welcome series passes in 2 seconds, an hour of a cart's in 0.75,
# a day of the win-back in 0.5. Each is over in about 20 seconds.
PACES = {"welcome": 43_200.0, "cart_abandonment": 4_800.0, "win_back": 172_800.0}
LONGEST_SECONDS = 20.0  # from a customer's first act to their last mail: a cart takes 0.75 + 18, a win-back 15 + 3.5

# Which template a mail came from, by what its reader sees. The subject begins with these words.
SUBJECTS = {
    "welcome": "Welcome to",
    "welcome_tips": "Three things",
    "first_order_gift": "A small gift",
    "cart_reminder": "You left",
    "gold_offer": "Your gold price",
    "ten_percent": "Ten percent",
    "miss_you": "It has been a month",
    "last_call": "Shall we stay",
}

NAMES = (
    "Ada", "Alan", "Barbara", "Claude", "Donald", "Edsger", "Frances", "Grace", "Hedy", "Ivan", "Joan", "Katherine", "Leslie",
    "Margaret", "Niklaus", "Olga", "Radia", "Sophie", "Tony", "Vera",
)  # fmt: skip
GOODS = (("teapot", 39), ("notebook", 12), ("desk lamp", 59), ("blanket", 48), ("coffee", 14), ("headphones", 129))


@dataclass(frozen=True)
class Act:
    """One thing a customer does. `after_seconds` counts from when they come to the shop."""

    after_seconds: float
    kind: Literal["identify", "page", "track"]
    name: str
    properties: dict[str, Any]


@dataclass(frozen=True)
class Customer:
    """A customer: what they do by themselves, how they treat their mails, and what they must get."""

    number: int
    character: str
    user: str
    address: str
    acts: tuple[Act, ...]
    opens: tuple[str, ...]  # templates
    clicks: tuple[str, ...]
    unsubscribes: tuple[str, ...]
    expects: tuple[str, ...]  # templates, each once


@dataclass(frozen=True)
class _Character:
    does: Literal["nothing", "fills a cart", "orders"]
    expects: tuple[str, ...]
    opens: tuple[str, ...] = ()
    clicks: tuple[str, ...] = ()
    unsubscribes: tuple[str, ...] = ()
    profile: dict[str, str] = field(default_factory=dict)
    offered_at_random: bool = False  # then half of them get `ten_percent` besides


CHARACTERS: dict[str, _Character] = {
    "looks around": _Character("nothing", ("welcome", "welcome_tips")),
    "reads the tips": _Character("nothing", ("welcome", "welcome_tips", "first_order_gift"), clicks=("welcome_tips",)),
    "works for a company": _Character(
        "nothing", ("welcome", "welcome_tips"), clicks=("welcome_tips",), profile={"plan": "business"}
    ),
    "forgets the cart": _Character(
        "fills a cart", ("welcome", "welcome_tips", "cart_reminder"), offered_at_random=True
    ),
    "forgets the cart, gold": _Character(
        "fills a cart", ("welcome", "welcome_tips", "cart_reminder", "gold_offer"), profile={"tier": "gold"}
    ),
    "comes back to the cart": _Character(
        "fills a cart", ("welcome", "welcome_tips", "cart_reminder"), clicks=("cart_reminder",)
    ),
    "orders at once": _Character("orders", ("welcome", "miss_you", "last_call")),
    "orders and stays in touch": _Character("orders", ("welcome", "miss_you"), opens=("miss_you",)),
    "orders and unsubscribes": _Character("orders", ("welcome",), unsubscribes=("welcome",)),
}


def make_customer(number: int, seed: int, character: str | None = None) -> Customer:
    """Return a customer, always the same for a number and a seed."""
    chance = Random(f"{seed}:{number}")  # noqa: S311 - to play, not to hide
    name = chance.choice(NAMES)
    drawn = chance.choice(tuple(CHARACTERS))
    traits = CHARACTERS[character or drawn]
    user, address = f"{name.lower()}-{number}", f"{name.lower()}.{number}@example.com"
    expects = traits.expects
    if traits.offered_at_random and _is_offered_ten_percent(user):
        expects = (*expects, "ten_percent")
    acts = _acts(traits, {"email": address, "first_name": name, **traits.profile}, number, chance)
    return Customer(
        number, character or drawn, user, address, acts, traits.opens, traits.clicks, traits.unsubscribes, expects
    )


def make_cast(count: int, seed: int, first: int = 1) -> list[Customer]:
    """Return `count` customers from number `first` on, every character as often as the others."""
    characters = tuple(CHARACTERS)
    return [make_customer(first + place, seed, characters[place % len(characters)]) for place in range(count)]


def template_of(subject: str) -> str:
    """Return which template a mail came from, or its subject if that is none of ours."""
    return next((template for template, begins in SUBJECTS.items() if subject.startswith(begins)), subject)


def number_of(address: str) -> int | None:
    """Return which customer an address belongs to."""
    number = address.partition("@")[0].rpartition(".")[2]
    return int(number) if number.isascii() and number.isdecimal() else None


def _is_offered_ten_percent(user: str) -> bool:
    return cohort({"ten_percent": 50, "control": 50}, f"default:{user}", "cart_abandonment:experiment") == "ten_percent"


def _acts(traits: _Character, profile: dict[str, str], number: int, chance: Random) -> tuple[Act, ...]:
    source = chance.choice(("search", "friend", "newsletter"))
    article, price = chance.choice(GOODS)
    items = chance.randint(1, 3)
    cart = {"cart_id": f"cart-{number}", "items": items, "article": article, "total": items * price}
    acts = [Act(0.0, "identify", "", profile), Act(0.0, "track", "signed_up", {"source": source})]
    if traits.does != "nothing":
        acts.append(Act(0.0, "track", "cart_updated", cart))
    if traits.does == "orders":
        acts.append(Act(0.0, "track", "order_placed", {**cart, "order_id": f"order-{number}"}))
    pages = enumerate(("home", article, "about"))
    return (*acts, *(Act(0.4 + 0.9 * visit, "page", page, {"article": article}) for visit, page in pages))
