"""That Segment's own client for Python, unmodified, gets everything it is given into the log, in order and once."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from segment.analytics import request as segment_request
from segment.analytics.client import Client

from engine.runtime.host import Overloaded, Unavailable
from tests.clients import servers
from tests.clients.servers import Served
from tests.ingress.remembering_log import RememberingLog

MakeClient = Callable[..., Client]


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    clients: list[Client] = []

    def make(served: Served, **options: Any) -> Client:
        clients.append(Client(options.pop("write_key", served.write_key), host=served.url, **options))
        return clients[-1]

    yield make
    for client in clients:
        if client.consumers:  # a client that waits for each call has none
            client.join()
    segment_request._session.close()  # the client keeps its connections for the life of the process


def failures() -> tuple[list[Exception], Callable[[Exception, list[dict[str, Any]]], None]]:
    seen: list[Exception] = []
    return seen, lambda error, _: seen.append(error)


def play(client: Client, user: str, orders: int) -> None:
    client.identify(user, {"email": "ada@example.com", "tier": "gold", "joined": datetime(2025, 1, 31, 12, tzinfo=UTC)})
    for number in range(orders):
        client.track(user, "order_placed", {"number": number, "total": Decimal("9.5"), "text": "Grüße 👋"})
    client.page(user, "Shop", "Cart", {"url": "/cart"})
    client.screen(user, name="Home")
    client.group(user, "acme", {"plan": "team"})
    client.alias("anonymous-1", user)
    client.flush()


def test_every_call_arrives_in_order_and_once(served: Served, make_client: MakeClient) -> None:
    wrong, on_error = failures()
    for user, gzip in (("ada", False), ("bob", True)):
        play(make_client(served, gzip=gzip, upload_size=100, on_error=on_error), user, orders=230)
        assert wrong == []
        identify, *orders, page, screen, group, alias = served.events(user)
        assert identify.profile == {"email": "ada@example.com", "tier": "gold", "joined": "2025-01-31T12:00:00+00:00"}
        assert [order.properties["number"] for order in orders] == list(range(230))
        assert orders[0].properties == {"number": 0, "total": 9.5, "text": "Grüße 👋"}
        assert (page.name, page.properties) == ("page", {"name": "Cart", "category": "Shop", "url": "/cart"})
        assert (screen.name, screen.properties) == ("screen", {"name": "Home"})
        assert (group.name, group.properties) == ("group", {"groupId": "acme", "plan": "team"})
        assert (alias.name, alias.properties) == ("alias", {"previousId": "anonymous-1"})
        assert len({event.id for event in served.events(user)}) == 235


def test_a_client_that_waits_for_each_call(served_alone: Served, make_client: MakeClient) -> None:
    client = make_client(served_alone, sync_mode=True)
    client.track("ada", "order_placed", {"number": 1}, message_id="m-1", timestamp=datetime(2025, 1, 1, tzinfo=UTC))
    client.track(anonymous_id="a-1", event="seen")
    [order], [seen] = served_alone.events("ada"), served_alone.events("anon:a-1")
    assert (order.id, seen.name) == ("m-1", "seen")
    assert abs(order.occurred_at - 1_735_689_600_000) < 60_000  # less what it took: the clock is corrected


def test_a_wrong_key_is_told_and_not_tried_again(served_alone: Served, make_client: MakeClient) -> None:
    wrong, on_error = failures()
    client = make_client(served_alone, write_key="nobody", on_error=on_error)
    client.track("ada", "order_placed")
    client.flush()
    [error] = wrong
    assert "401" in str(error)
    assert "write_key" in str(error)
    assert served_alone.events("ada") == []


def test_one_bad_event_in_a_batch_does_not_cost_the_others(served_alone: Served, make_client: MakeClient) -> None:
    wrong, on_error = failures()
    client = make_client(served_alone, on_error=on_error)
    for number, total in enumerate((1.0, float("nan"), 10**30, 2.0)):
        client.track("ada", "order_placed", {"number": number, "total": total})
    client.flush()
    assert wrong == []
    assert [event.properties["number"] for event in served_alone.events("ada")] == [0, 3]


@pytest.mark.parametrize("failure", [Overloaded(1.0), Unavailable("the broker is down")], ids=["429", "503"])
def test_what_is_refused_for_a_while_arrives_when_we_are_back(make_client: MakeClient, failure: Exception) -> None:
    class BackAfterTwo(RememberingLog):
        async def append(self, records: Any) -> None:
            tried.append(len(records))
            self.failure = failure if len(tried) <= 2 else None
            if len(tried) == 2:
                twice.set()
            await super().append(records)

    tried: list[int] = []
    twice = threading.Event()
    wrong, on_error = failures()
    with servers.application(BackAfterTwo()) as served:
        client = make_client(served, on_error=on_error)
        for number in range(3):
            client.track("ada", "order_placed", {"number": number})
        client.flush()
        assert twice.is_set()
        assert wrong == []
        assert sorted(event.properties["number"] for event in served.events("ada")) == [0, 1, 2]
