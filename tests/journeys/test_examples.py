"""What the example journeys do to customers, and that every mail they send can be written."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agents.channels.rendering import Templates, variables
from agents.folder import read_folder
from engine import Journey, days, hours, minutes
from engine.definitions import dump, freeze, load
from engine.diagrams import to_mermaid
from engine.simulator import Simulate, SimulatedUser
from journeys.cart_abandonment import journey as cart_abandonment
from journeys.welcome import journey as welcome
from journeys.win_back import journey as win_back
from schemas.definitions import Definition
from schemas.outputs import Message

EXAMPLES = Path(__file__).parent.parent.parent / "journeys"
ALL = (cart_abandonment, welcome, win_back)


# A cart left behind


def left_a_cart(simulate: Simulate, **profile: Any) -> SimulatedUser:
    user = simulate(cart_abandonment, **profile)
    user.event("cart_updated", items=2, cart_id="c1", total=30)
    return user


def test_a_cart_left_for_an_hour_is_called_to_mind(simulate: Simulate) -> None:
    user = left_a_cart(simulate)
    user.wait(minutes(59))
    assert user.sent == []
    user.wait(minutes(1))
    assert user.sent == ["email:cart_reminder"]


def test_who_orders_the_cart_hears_nothing_more_of_it_and_counts(simulate: Simulate) -> None:
    user = left_a_cart(simulate)
    user.wait(minutes(30))
    user.event("order_placed", cart_id="c1", total=30)
    user.wait(days(30))
    assert (user.sent, user.exits, user.goals) == ([], ["exit_on"], ["cart_abandonment"])


def test_an_order_of_another_cart_changes_nothing(simulate: Simulate) -> None:
    user = left_a_cart(simulate)
    user.event("order_placed", cart_id="c2", total=30)
    user.wait(hours(1))
    assert user.sent == ["email:cart_reminder"]


def test_who_clicks_the_reminder_gets_no_offer(simulate: Simulate) -> None:
    user = left_a_cart(simulate)
    user.wait(hours(2))
    user.receipt("remind", "clicked")
    user.wait(days(30))
    assert (user.sent, user.exits) == (["email:cart_reminder"], ["done"])


def test_a_silent_gold_customer_gets_the_gold_offer_a_day_later(simulate: Simulate) -> None:
    user = left_a_cart(simulate, tier="gold")
    user.wait(hours(1) + days(1))
    assert user.sent == ["email:cart_reminder", "email:gold_offer"]


def test_other_silent_customers_get_ten_percent_or_nothing_half_and_half(simulate: Simulate) -> None:
    offered = 0
    for number in range(400):
        user = simulate(cart_abandonment, user_id=f"user-{number}")
        user.event("cart_updated", items=1, cart_id="c1")
        user.wait(days(3))
        assert user.sent in (["email:cart_reminder"], ["email:cart_reminder", "email:ten_percent"])
        assert user.exits == (["done"] if len(user.sent) == 2 else ["control group"])
        offered += len(user.sent) - 1
    assert 150 < offered < 250


def test_every_cart_is_a_run_of_its_own_and_enters_again_after_a_week(simulate: Simulate) -> None:
    user = left_a_cart(simulate)
    user.event("cart_updated", items=1, cart_id="c2")
    user.event("cart_updated", items=3, cart_id="c1")
    assert [run.key for run in user.runs] == ["c1", "c2"]
    user.wait(days(6))
    user.event("cart_updated", items=1, cart_id="c1")
    assert not user.runs
    user.wait(days(1))
    user.event("cart_updated", items=1, cart_id="c1")
    assert [run.key for run in user.runs] == ["c1"]


def test_an_empty_cart_and_one_without_an_id_begin_nothing(simulate: Simulate) -> None:
    user = simulate(cart_abandonment)
    user.event("cart_updated", items=0, cart_id="c1")
    user.event("cart_updated", items=1)
    assert not user.runs


# Welcome


def signed_up(simulate: Simulate, **profile: Any) -> SimulatedUser:
    user = simulate(welcome, **profile)
    user.event("signed_up")
    return user


def test_a_new_customer_is_welcomed_at_once_and_gets_tips_after_a_day(simulate: Simulate) -> None:
    user = signed_up(simulate)
    assert user.sent == ["email:welcome"]
    user.wait(days(1))
    assert user.sent == ["email:welcome", "email:welcome_tips"]


def test_who_orders_on_the_first_day_needs_no_tips(simulate: Simulate) -> None:
    user = signed_up(simulate)
    user.wait(hours(5))
    user.event("order_placed", total=20)
    user.wait(days(30))
    assert (user.sent, user.exits, user.goals) == (["email:welcome"], ["ordered"], ["welcome"])


def test_who_reads_the_tips_and_orders_nothing_gets_a_gift(simulate: Simulate) -> None:
    user = signed_up(simulate)
    user.wait(days(1))
    user.receipt("tips", "clicked")
    user.wait(days(2))
    assert user.sent == ["email:welcome", "email:welcome_tips", "email:first_order_gift"]
    assert user.exits == ["done"]


def test_a_business_customer_gets_no_gift(simulate: Simulate) -> None:
    user = signed_up(simulate, plan="business")
    user.wait(days(1))
    user.receipt("tips", "clicked")
    user.wait(days(10))
    assert user.sent == ["email:welcome", "email:welcome_tips"]


def test_who_does_not_read_the_tips_is_left_alone(simulate: Simulate) -> None:
    user = signed_up(simulate)
    user.wait(days(30))
    assert (user.sent, user.exits) == (["email:welcome", "email:welcome_tips"], ["done"])


def test_nobody_is_welcomed_twice(simulate: Simulate) -> None:
    user = signed_up(simulate)
    user.wait(days(400))
    user.event("signed_up")
    assert user.sent.count("email:welcome") == 1


# Win back


def test_thirty_silent_days_after_an_order_the_customer_is_missed_and_a_week_later_once_more(
    simulate: Simulate,
) -> None:
    user = simulate(win_back)
    user.event("order_placed", total=10)
    user.wait(days(30))
    assert user.sent == ["email:miss_you"]
    user.wait(days(7))
    assert user.sent == ["email:miss_you", "email:last_call"]
    assert user.exits == ["done"]


def test_every_order_starts_the_count_anew(simulate: Simulate) -> None:
    user = simulate(win_back)
    for _ in range(12):
        user.event("order_placed", total=10)
        user.wait(days(29))
    assert user.sent == []
    user.wait(days(1))
    assert user.sent == ["email:miss_you"]
    user.event("order_placed", total=10)
    user.wait(days(29))
    assert (user.step, user.sent) == ("silence", ["email:miss_you"])


def test_who_opened_the_first_mail_gets_no_last_call(simulate: Simulate) -> None:
    user = simulate(win_back)
    user.event("order_placed", total=10)
    user.wait(days(31))
    user.receipt("miss_you", "opened")
    user.wait(days(30))
    assert (user.sent, user.exits) == (["email:miss_you"], ["done"])


def test_who_complains_or_leaves_is_left_in_peace(simulate: Simulate) -> None:
    complained, left = simulate(win_back), simulate(win_back)
    for user in (complained, left):
        user.event("order_placed", total=10)
        user.wait(days(31))
    complained.receipt("miss_you", "complained")
    left.event("account_closed")
    for user in (complained, left):
        user.wait(days(60))
        assert (user.sent, user.exits) == (["email:miss_you"], ["exit_on"])


def test_an_order_that_brings_the_customer_back_is_the_goal_and_is_counted_once(simulate: Simulate) -> None:
    user = simulate(win_back)
    user.event("order_placed", total=10)
    user.wait(days(31))
    user.event("order_placed", total=20)
    user.event("order_placed", total=30)
    assert [entry.detail for entry in user.journal if entry.kind == "goal"] == [{"value": 20}]


def test_a_shop_without_mail_addresses_sends_nothing_and_says_why(simulate: Simulate) -> None:
    user = simulate(*ALL, email=None)
    user.event("signed_up")
    user.event("cart_updated", items=1, cart_id="c1")
    user.event("order_placed")
    user.wait(days(100))
    assert user.sent == []
    assert set(user.reasons("blocked")) == {"no address for email"}
    assert not user.runs


# All of them


def test_the_folder_holds_exactly_these_journeys() -> None:
    folder = read_folder(EXAMPLES)
    assert [journey.name for journey in folder.journeys] == ["cart_abandonment", "welcome", "win_back"]
    assert folder.journeys == list(ALL)


@pytest.mark.parametrize("journey", ALL, ids=lambda journey: journey.name)
def test_an_example_survives_the_way_through_json_and_is_drawn(journey: Journey) -> None:
    assert load(dump(journey)) == journey
    diagram = to_mermaid(journey)
    assert diagram.startswith(f"stateDiagram-v2\n  %% {journey.label}\n")
    for name in journey.steps:
        assert f"  {name}: {name} | " in diagram
    assert journey.description


def test_every_template_is_sent_by_somebody() -> None:
    folder = read_folder(EXAMPLES)
    assert sorted(folder.templates) == sorted({name for journey in ALL for name in journey.template_names()})


PEOPLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "known": ({"first_name": "Ann & Bo <b>", "tier": "gold"}, {"cart_id": "a b/c", "items": 2, "total": 59.9}),
    "unknown": ({}, {}),
    "odd": ({"first_name": ""}, {"items": 1, "cart_id": 7, "total": 0}),
}


class Links(HTMLParser):
    """Collects what a mail links to, and which elements are open at its end."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag not in ("meta", "br", "img", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize("journey", ALL, ids=lambda journey: journey.name)
def test_every_mail_can_be_written_for_whoever_it_is_for(journey: Journey, person: str) -> None:
    profile, event = PEOPLE[person]
    *templates, _ = freeze("shop", journey, read_folder(EXAMPLES).templates)
    assert len(templates) == len(journey.template_names())
    for template in templates:
        mail = rendered(template, profile, event)
        assert set(mail) == {"subject", "html"}
        assert mail["subject"].strip() and "\n" not in mail["subject"].strip()
        for part in mail.values():
            assert "{{" not in part and "{%" not in part
            assert "None" not in part and "nil" not in part
        page = Links(mail["html"])
        assert page.open == []
        assert "https://shop.example.com/unsubscribe" in page.links
        assert any(link.startswith("https://shop.example.com/") for link in page.links[:-1])
        assert all(" " not in link for link in page.links)


def test_what_a_customer_is_called_cannot_become_markup() -> None:
    profile, event = PEOPLE["known"]
    *templates, _ = freeze("shop", welcome, read_folder(EXAMPLES).templates)
    mail = rendered(templates[0], profile, event)
    assert mail["subject"].strip().endswith("Ann & Bo <b>")
    assert "Ann &amp; Bo &lt;b&gt;" in mail["html"]


def rendered(template: Definition, profile: dict[str, Any], event: dict[str, Any]) -> dict[str, str]:
    message = Message(
        id="x.1.a:1",
        tenant="shop",
        user="ann",
        channel="email",
        address="ann@example.com",
        template=template.name,
        journey="x",
        version=1,
        step="mail",
        run="x.1.a",
        requested_at=0,
        expires_at=0,
        profile=profile,
        event=event,
    )
    return Templates().render(template, variables(message, "https://shop.example.com/unsubscribe"))
