"""Signed links: nobody but us can make one, and following one does what it says."""

import asyncio
import html
import re
import time
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from agents.channels.link_routes import link_routes
from agents.channels.links import URL_BYTES, Link, Links, is_http, read, sign
from engine.errors import InvalidInput
from engine.runtime.host import Overloaded, Unavailable
from schemas.inputs import Receipt
from schemas.outputs import Suppression
from schemas.records import NewRecord
from tests.channels.stage import T0, Stage, command

SECRET = b"a secret of sixteen bytes or more"
LINKS = Links("https://go.shop.test/", SECRET)

text = st.text(st.characters(exclude_categories=["Cs"]))
links = st.builds(Link, st.sampled_from(["o", "c", "u"]), text, text, text, text, text, text, text)


@given(links)
def test_a_token_says_what_was_signed_and_fits_into_a_url(link: Link) -> None:
    token = sign(SECRET, link)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert read(SECRET, token) == link


@given(links, st.data())
def test_a_tampered_token_is_refused(link: Link, data: st.DataObject) -> None:
    token = sign(SECRET, link)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_").filter(lambda character: character != token[place]))
    changed = token[:place] + other + token[place + 1 :]
    try:
        assert read(SECRET, changed) == link  # the last character has bits that mean nothing
        assert place == len(token) - 1
    except InvalidInput:
        pass
    with pytest.raises(InvalidInput):
        read(b"another secret, just as long", token)
    with pytest.raises(InvalidInput):
        read(SECRET, token[:-4])


@given(st.text())
def test_anything_else_is_no_token(token: str) -> None:
    with pytest.raises(InvalidInput):
        read(SECRET, token)
    with pytest.raises(InvalidInput):
        read(SECRET, "1" + token)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="EQUEENGAGE_LINK_SECRET"):
        Links("https://go.shop.test", b"")


@pytest.mark.parametrize(
    "url", ["", "go.shop.test", "//go.shop.test", "ftp://go.shop.test", "https://go.shop.test/?a=b"]
)
def test_what_no_link_can_begin_with_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="EQUEENGAGE_PUBLIC_URL"):
        Links(url, SECRET)


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "//evil.test",
        "https://",
        "ftp://x.test",
        "https://x.test/\r\nSet-Cookie: a",
        "https://[x",
        "mailto:a@b.c",
        " https://x.test",
    ],
)
def test_only_http_is_a_target(url: str) -> None:
    assert not is_http(url)


def test_every_http_link_leads_through_us_and_all_else_stays() -> None:
    source = """<!doctype html><html><head><link rel="x" href="https://cdn.test/a.css"></head><body>
<a class="b" href="https://shop.test/cart?a=1&amp;b=2" title="href=https://no.test">Cart</a>
<A HREF='http://shop.test/'>Home</A> <a href=https://shop.test/bare>bare</a>
<!--[if mso]><v:roundrect xmlns:v="x" href="https://shop.test/button"/><![endif]-->
<area shape="rect" href="https://shop.test/map">
<a href="mailto:a@shop.test">mail</a> <a href="#top">top</a> <a name="x">x</a> <a data-href="https://no.test">y</a>
<a href="https://go.shop.test/u/1abc">unsubscribe</a> <p>https://plain.test</p></body></html>"""
    message = command()
    tracked = LINKS.track(message, source)
    targets = {read(SECRET, token).url for token in re.findall(r"https://go.shop.test/c/([\w-]+)", tracked)}
    assert targets == {
        "https://shop.test/cart?a=1&b=2",
        "http://shop.test/",
        "https://shop.test/bare",
        "https://shop.test/button",
        "https://shop.test/map",
    }
    back = re.sub(
        r'"https://go.shop.test/c/([\w-]+)"', lambda m: html.escape(read(SECRET, m[1]).url, quote=False), tracked
    )
    plain = re.sub(r'<img src="https://go.shop.test/o/[\w-]+"[^>]*>', "", back)
    assert plain.replace('"', "").replace("'", "").lower() == source.replace('"', "").replace("'", "").lower()
    assert re.search(r"<img [^>]*></body></html>$", tracked)


def test_a_link_too_long_for_a_token_is_left_as_it_is() -> None:
    for url in ("https://x.test/" + "a" * URL_BYTES, "https://x.test/" + "ä" * (URL_BYTES // 2)):
        assert f'href="{url}"' in LINKS.track(command(), f'<a href="{url}">')
    longest = "https://x.test/".ljust(URL_BYTES, "a")
    [token] = re.findall(r"/c/([\w-]+)", LINKS.track(command(), f'<a href="{longest}">'))
    assert read(SECRET, token).url == longest


@given(st.text(st.sampled_from("<a href='\"=>/ht:p.x \n"), max_size=300))
def test_tracking_never_fails_and_changes_only_what_is_a_link(source: str) -> None:
    tracked = LINKS.track(command(), source)
    if "http" not in source:
        assert tracked.startswith(source)


def test_tracking_takes_linear_time_whatever_the_html() -> None:
    for piece in ("<a ", "<a '", '<a "', "<a href=", "<a href='http://x' ", "<", "<a b=c "):
        began = time.process_time()
        LINKS.track(command(), piece * (400_000 // len(piece)))
        assert time.process_time() - began < 2.0, piece


class BrokenLog:
    """A log that takes nothing."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def append(self, records: Sequence[NewRecord]) -> None:
        if self.error is None:
            await asyncio.Event().wait()
        else:
            raise self.error


@pytest.fixture
async def server(stage: Stage) -> AsyncIterator[TestServer]:
    app = web.Application()
    app.add_routes(link_routes(stage.host.log, SECRET, stage.metrics, stage.clock))
    server = TestServer(app)
    await server.start_server()
    yield server
    await server.close()


async def test_a_click_redirects_and_is_a_receipt(stage: Stage, server: TestServer) -> None:
    links = Links(str(server.make_url("")), SECRET)
    async with ClientSession() as session:
        url = links.click(command(), "https://shop.test/cart?ä=1")
        answer = await session.get(url, allow_redirects=False)
        assert answer.status == 302
        assert answer.headers["Location"] == "https://shop.test/cart?%C3%A4=1"
        await session.head(url, allow_redirects=False)
    [record] = stage.records("events")
    assert record.key == b"shop:u1"
    assert msgspec.json.decode(record.value or b"", type=Receipt) == Receipt(
        "r1:1", "clicked", T0, "email", "https://shop.test/cart?ä=1"
    )
    assert dict(record.headers)["tenant"] == b"shop"


async def test_the_pixel_is_an_open(stage: Stage, server: TestServer) -> None:
    links = Links(str(server.make_url("")), SECRET)
    async with ClientSession() as session:
        answer = await session.get(links.open(command()))
        assert (await answer.read())[:6] == b"GIF89a"
        assert answer.content_type == "image/gif"
        assert "no-store" in answer.headers["Cache-Control"]
    assert stage.receipts() == [("r1:1", "opened")]


async def test_a_click_link_can_not_be_made_to_lead_elsewhere(stage: Stage, server: TestServer) -> None:
    links = Links(str(server.make_url("")), SECRET)
    async with ClientSession() as session:
        for url in (
            links.click(command(), "https://shop.test")[:-2] + "xx",
            str(server.make_url("/c/https://evil.test")),
            links.open(command()).replace("/o/", "/c/"),  # a token of another kind
            links.click(command(), "javascript:alert(1)"),
        ):
            answer = await session.get(url, allow_redirects=False)
            assert answer.status == 404
    assert stage.receipts() == []


async def test_looking_at_the_unsubscribe_page_changes_nothing(stage: Stage, server: TestServer) -> None:
    url = Links(str(server.make_url("")), SECRET).unsubscribe(command(), '<i>"x"@shop.test')
    async with ClientSession() as session:
        answer = await session.get(url)
        page = await answer.text()
    assert answer.status == 200
    assert '<form method="post">' in page
    assert "<i>" not in page
    assert stage.receipts() == []
    assert list(stage.records("suppressions")) == []


async def test_unsubscribing_acts_at_once_and_twice_is_like_once(stage: Stage, server: TestServer) -> None:
    url = Links(str(server.make_url("")), SECRET).unsubscribe(command(topic="news"), "u1@example.com")
    async with ClientSession() as session:
        for _ in range(2):  # as RFC 8058 says it is done
            answer = await session.post(url, data={"List-Unsubscribe": "One-Click"})
            assert answer.status == 200
    [record] = stage.records("suppressions")
    assert record.key == b"shop:email:news:u1@example.com"
    assert msgspec.json.decode(record.value or b"", type=Suppression).scope == "news"
    assert await stage.host.suppressions.scope("shop", "email", "u1@example.com", "news") == "news"
    assert await stage.host.suppressions.scope("shop", "email", "u1@example.com", "offers") is None
    assert set(stage.receipts()) == {("r1:1", "unsubscribed")}


@pytest.mark.parametrize(("error", "status"), [(Overloaded(3.0), 429), (Unavailable("broker down"), 503), (None, 503)])
async def test_readers_get_their_page_when_the_log_is_in_trouble_but_unsubscribing_tells_the_truth(
    stage: Stage, error: Exception | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.channels.link_routes.RECEIPT_SECONDS", 0.05)
    monkeypatch.setattr("agents.channels.link_routes.UNSUBSCRIBE_SECONDS", 0.05)
    app = web.Application()
    app.add_routes(link_routes(BrokenLog(error), SECRET, stage.metrics, stage.clock))  # type: ignore[arg-type]
    async with TestServer(app) as server, ClientSession() as session:
        links = Links(str(server.make_url("")), SECRET)
        answer = await session.get(links.click(command(), "https://shop.test"), allow_redirects=False)
        assert answer.status == 302
        answer = await session.get(links.open(command()))
        assert answer.status == 200
        answer = await session.post(links.unsubscribe(command(), "u1@example.com"))
        assert answer.status == status
        assert int(answer.headers["Retry-After"]) >= 1
    assert b'equeengage_link_receipts_lost_total{kind="click"} 1.0' in stage.metrics.render()[0]
