"""That the demo plays what it says, and that `--once` is a measure: it passes only if every mail came exactly once."""

import asyncio
import io
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as with_fields
from rich.console import Console

from agents.demo.customers import CHARACTERS, LONGEST_SECONDS, Customer, make_cast, make_customer, template_of
from agents.demo.figures import Meter, quantile
from agents.demo.mailbox import Mail, Mailbox
from agents.demo.once import CAST, compare
from agents.demo.shop import Shop
from agents.demo.stage import EXAMPLES, find_drawn, hurried, reserve_numbers
from agents.demo.view import Happening, Scene, draw, in_a_few_words, in_a_line
from agents.folder import read_folder
from engine.journey import Journey
from engine.runtime.metrics import Metrics
from engine.simulator import SimulatedUser
from schemas.outputs import JournalEntry
from tests.agents.command import PATIENCE_SECONDS, equeengage, started
from tests.agents.test_mailbox import a_mail
from tests.agents.waiting import until

SUBJECT_OF = {
    "welcome": "Welcome to Tern & Tide, Ada",
    "welcome_tips": "Three things to know before you order",
    "first_order_gift": "A small gift for your first order",
    "cart_reminder": "You left 2 things behind",
    "gold_offer": "Your gold price is in the cart",
    "ten_percent": "Ten percent off what is in your cart",
    "miss_you": "It has been a month, Ada",
    "last_call": "Shall we stay in touch?",
}


# The measure


def mails_for(cast: list[Customer]) -> list[Mail]:
    """Return exactly the mails that must come."""
    due = [(customer.address, template) for customer in cast for template in customer.expects]
    return [
        Mail(number, 0, "", address, SUBJECT_OF[template], "", "") for number, (address, template) in enumerate(due)
    ]


def test_what_must_come_and_nothing_else_is_exact() -> None:
    cast = make_cast(CAST, 7)
    comparison = compare(cast, mails_for(cast))
    assert comparison.is_exact
    assert comparison.differences() == []
    assert {verdict for *_, verdict in comparison.rows()} == {"exact"}


@pytest.mark.parametrize("place", range(len(mails_for(make_cast(9, 7)))))
def test_a_mail_that_is_withheld_or_doubled_is_found(place: int) -> None:
    cast = make_cast(9, 7)
    mails = mails_for(cast)
    withheld = compare(cast, mails[:place] + mails[place + 1 :])
    assert not withheld.is_exact
    template = template_of(mails[place].subject)
    assert withheld.differences() == [f"missing: {template} to {mails[place].recipient}"]
    doubled = compare(cast, [*mails, mails[place]])
    assert not doubled.is_exact
    assert doubled.differences() == [f"unexpected: {template} to {mails[place].recipient}"]


def test_a_mail_to_the_wrong_person_is_two_differences_though_the_numbers_are_right() -> None:
    cast = make_cast(2, 7)
    mails = mails_for(cast)
    swapped = [with_fields(mails[0], recipient="somebody@else.example"), *mails[1:]]
    assert len(compare(cast, swapped).differences()) == 2


def test_an_empty_mailbox_is_never_exact() -> None:
    assert not compare([], []).is_exact
    assert not compare(make_cast(9, 7), []).is_exact


def test_a_mail_that_is_none_of_ours_is_shown_under_its_subject() -> None:
    cast = make_cast(9, 7)
    comparison = compare(cast, [*mails_for(cast), Mail(99, 0, "", "x@example.com", "Buy gold", "", "")])
    assert comparison.rows()[-1] == ("Buy gold", 0, 1, "1 unexpected")


# The customers


def test_a_customer_is_always_the_same() -> None:
    assert make_customer(5, 7) == make_customer(5, 7)
    assert make_customer(5, 7) != make_customer(5, 8)
    assert find_drawn(7)(make_customer(5, 7).address) == make_customer(5, 7)
    assert find_drawn(7)("somebody.5@else.example") is None
    assert find_drawn(7)("nobody") is None


def test_every_character_is_in_the_cast() -> None:
    assert Counter(customer.character for customer in make_cast(CAST, 7)) == dict.fromkeys(
        CHARACTERS, CAST // len(CHARACTERS)
    )


def test_every_template_of_the_examples_is_expected_by_somebody() -> None:
    folder = read_folder(EXAMPLES)
    expected = {template for customer in make_cast(CAST, 7) for template in customer.expects}
    assert expected == {name for journey in folder.journeys for name in journey.template_names()}


@pytest.mark.parametrize("customer", make_cast(CAST, 7), ids=lambda customer: f"{customer.number} {customer.character}")
def test_what_is_written_by_hand_is_what_the_engine_does(customer: Customer) -> None:
    """The expectation is independent of the engine; this is where the two are confronted, without a server."""
    assert Counter(simulated(customer, [hurried(journey) for journey in read_folder(EXAMPLES).journeys])) == Counter(
        customer.expects
    )


def simulated(customer: Customer, journeys: list[Journey]) -> list[str]:
    """Live the customer's life in steps of 0.1 s and return the templates that arrive."""
    user = SimulatedUser(*journeys, user_id=customer.user, tenant="default", profile={"email": None})
    acts = list(customer.acts)
    got: list[str] = []
    has_left = False
    for tick in range(int(LONGEST_SECONDS * 10)):
        while acts and acts[0].after_seconds <= tick / 10:
            act = acts.pop(0)
            if act.kind == "identify":
                user.identify(**act.properties)
            else:
                user.event(act.name, **act.properties)
        user.wait(timedelta(seconds=0.1))
        for message in user.messages[len(got) :]:
            template = message.template.partition("@")[0]
            got.append("" if has_left else template)
            has_left = has_left or template in customer.unsubscribes
            if got[-1] in customer.opens:
                user.receipt(message.step, "opened")
            if got[-1] in customer.clicks:
                user.receipt(message.step, "clicked")
    return [template for template in got if template]


def test_numbers_are_given_once_also_over_a_crash(tmp_path: Path) -> None:
    assert [reserve_numbers(tmp_path, 10) for _ in range(3)] == [1, 11, 21]


# The shop, through Segment's own client


class Listener:
    """A server that remembers what it was sent."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.requests: list[str] = []

    def app(self) -> web.Application:
        async def take(request: web.Request) -> web.Response:
            self.events += (await request.json())["batch"]
            return web.json_response({"success": True})

        async def follow(request: web.Request) -> web.Response:
            self.requests.append(f"{request.method} {request.path_qs} {(await request.text())}".strip())
            return web.Response(status=302, headers={"Location": "http://nowhere.invalid/"})

        app = web.Application()
        app.add_routes([web.post("/v1/batch", take), web.route("*", "/{kind:[ocu]}/{token}", follow)])
        return app


@pytest.fixture
async def listener() -> AsyncIterator[tuple[Listener, str]]:
    listener = Listener()
    async with TestServer(listener.app()) as server:
        yield listener, str(server.make_url("")).rstrip("/")


async def test_what_customers_do_arrives_in_order_and_is_attributed(
    listener: tuple[Listener, str], tmp_path: Path
) -> None:
    remembered, url = listener
    customer = make_customer(1, 7, "orders at once")
    customer = replace(customer, acts=tuple(replace(act, after_seconds=0.0) for act in customer.acts))
    shop = Shop("key", url, Mailbox(tmp_path), lambda address: customer)
    await shop.play(customer)
    await shop.flush()
    await shop.close()
    assert [event.get("event") or event["type"] for event in remembered.events] == [
        "identify", "signed_up", "cart_updated", "order_placed", "page", "page", "page",
    ]  # fmt: skip
    assert {event["userId"] for event in remembered.events} == {customer.user}
    assert remembered.events[0]["traits"]["email"] == customer.address
    assert not shop.problems


async def test_customers_treat_their_mails_as_their_character_is(
    listener: tuple[Listener, str], tmp_path: Path
) -> None:
    remembered, url = listener
    box = Mailbox(tmp_path)
    html = f'<p>Hi</p><a href="{url}/c/token?a=1&amp;b=2">Go</a><img src="{url}/o/token">'
    people = {
        "a@example.com": make_customer(1, 7, "comes back to the cart"),
        "b@example.com": make_customer(2, 7, "orders and stays in touch"),
        "c@example.com": make_customer(3, 7, "orders and unsubscribes"),
        "d@example.com": make_customer(4, 7, "looks around"),
    }
    shop = Shop("key", url, box, people.get)
    box.on_mail = shop.read
    for address in [*people, "stranger@example.com"]:
        for subject in ("You left 2 things behind", "It has been a month, B", "Welcome to Tern & Tide, C"):
            message = a_mail(address, subject, html)
            del message["List-Unsubscribe"]
            message["List-Unsubscribe"] = f"<{url}/u/token>"
            box.keep(message.as_bytes(), address)
    await until(lambda: len(remembered.requests) >= 3, "three reactions")
    await shop.close()
    assert sorted(remembered.requests) == [
        "GET /c/token?a=1&b=2",
        "GET /o/token",
        "POST /u/token List-Unsubscribe=One-Click",
    ]
    assert not shop.problems


async def test_what_goes_wrong_is_remembered_to_be_shown(tmp_path: Path, listener: tuple[Listener, str]) -> None:
    _, url = listener
    box = Mailbox(tmp_path)
    shop = Shop("key", url, box, lambda address: make_customer(1, 7, "comes back to the cart"))
    box.on_mail = shop.read
    box.keep(a_mail(subject="You left 1 thing behind", html="<p>no link</p>").as_bytes(), "a@example.com")
    await until(lambda: shop.problems, "a problem")
    await shop.close()
    assert list(shop.problems) == ["the link of cart_reminder is missing in the mail"]


# What is shown


@given(st.lists(st.floats(0.0005, 50), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    bounds = [0.001, 0.01, 0.1, 1.0, 10.0, 60.0, float("inf")]
    buckets = [(bound, float(sum(value <= bound for value in values))) for bound in bounds]
    true = sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
    found = quantile(buckets, share)
    assert found is not None
    upper = next(bound for bound in bounds if true <= bound)
    lower = max((bound for bound in bounds if bound < true), default=0.0)
    assert lower <= found <= upper + 1e-9


def test_without_observations_there_is_no_quantile() -> None:
    assert quantile([], 0.5) is None
    assert quantile([(1.0, 0.0), (float("inf"), 0.0)], 0.5) is None


def test_figures_are_read_from_the_metrics() -> None:
    metrics = Metrics()
    meter = Meter(metrics, started_at=100.0)
    meter.look(100.0)
    metrics.ingress_events_accepted.labels("default").inc(50)
    metrics.runs_entered.labels("default", "welcome").inc(3)
    metrics.messages_asked.labels("default", "welcome", "email").inc(5)
    metrics.channel_outcomes.labels("email", "accepted").inc(3)
    metrics.channel_outcomes.labels("email", "dropped").inc(1)
    metrics.channel_outcomes.labels("email", "unknown").inc(1)
    figures = meter.look(105.0)
    assert figures.events == 50
    assert figures.events_per_second == 10.0
    assert figures.entered == {"welcome": 3}
    assert figures.messages == {
        "asked for": 5, "accepted": 3, "opened": 0, "clicked": 0, "kept back": 1, "unknown": 1,
    }  # fmt: skip
    line = in_a_line(figures)
    assert "50 events (10/s), 3 runs entered" in line
    assert "1 unknown" in line


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_the_view_fits_the_terminal(size: tuple[int, int]) -> None:
    width, height = size
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    scene = Scene(
        "http://127.0.0.1:8080", "http://127.0.0.1:8025", Path("data/demo"), {"welcome": "a day passes in 2 seconds"}
    )
    scene.mails.extend(Mail(n, 0, "", f"ada.{n}@example.com", "A rather long subject " * 9, "", "") for n in range(50))
    scene.happenings.extend(Happening(0, f"ada-{n}", "enters a journey with quite a long name " * 3) for n in range(50))
    scene.notice = "the client's queue is full"
    console.print(draw(scene, height))
    lines = console.export_text().splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert any("http://127.0.0.1:8025" in line for line in lines)


def test_the_journal_is_told_in_a_few_words() -> None:
    def words(kind: str, **more: Any) -> str | None:
        entry = JournalEntry(kind, 0, "default", "ada", journey="win_back", version=1, step="tips", **more)  # type: ignore[arg-type]
        happening = in_a_few_words(entry)
        return happening.text if happening else None

    assert words("entered") == "enters win back"
    assert words("sent", detail={"channel": "email", "template": "tips@abc"}) == "email 'tips' asked for"
    assert words("receipt", reason="clicked") == "tips: clicked"
    assert words("receipt", reason="accepted") is None
    assert words("exited", reason="ordered") == "leaves win back: ordered"
    assert words("step") is None


# All of it


def test_once_everything_that_must_come_comes_exactly_once() -> None:
    result = equeengage("demo", "--once")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "exact" in result.stdout
    assert "missing" not in result.stdout
    assert re.search(r"\ball\b\D+(\d+)\D+\1\b", result.stdout), "as many arrived as were expected"


async def test_the_live_demo_shows_its_mails_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "data"
    arguments = ("demo", "--data", data, "--port", 0, "--mailbox-port", 0, "--customers", 5)
    newest = 0
    for _ in range(2):
        with started(tmp_path, *arguments, ready="messages:") as demo:
            newest = await _wait_for_newer(demo.place_of("mailbox"), newest)
            assert await asyncio.to_thread(demo.stop, signal.SIGINT) == 0, demo.said
            assert "goes on from there" in demo.said
    assert (data / "server.log").read_text() == "", "nothing went wrong"


async def _wait_for_newer(url: str, number: int) -> int:
    """Return the number of the newest mail on the page, once it is greater than this one."""
    found: list[int] = []
    async with aiohttp.ClientSession() as session:
        for _ in range(int(PATIENCE_SECONDS * 10)):
            async with session.get(f"{url}/list") as response:
                found = [int(each) for each in re.findall(r'data-number="(\d+)"', await response.text())]
            if found and found[0] > number:
                break
            await asyncio.sleep(0.1)
    assert found
    assert found[0] > number
    assert number == 0 or number in found, "the mails of before are still there"
    return found[0]
