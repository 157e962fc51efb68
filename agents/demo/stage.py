"""What the demo is made of: a mailbox with its page, a server with the example journeys played faster, and the shop."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from aiohttp import web
from pydantic import SecretStr

from agents.demo.customers import PACES, Customer, make_customer, number_of
from agents.demo.mailbox import Mail, Mailbox, receiving
from agents.demo.mailbox_page import make_page
from agents.demo.shop import Shop
from agents.server import Say, Server, running
from engine.durations import describe
from engine.journey import Journey
from engine.runtime.embedded.host import Loop
from engine.runtime.host import Batch, PartitionHost
from engine.runtime.settings import Settings
from engine.tempo import sped_up
from schemas.journal import read_entries
from schemas.outputs import JournalEntry

EXAMPLES = Path(__file__).parents[2] / "journeys"
SENDER = "Tern & Tide <hello@ternandtide.example.com>"
JOURNAL_RECORDS = 500  # looked at together
RESERVED = 100  # customers' numbers taken at once, so that a crash wastes few and repeats none


@dataclass
class Stage:
    """A demo that runs."""

    server: Server
    mailbox: Mailbox
    mailbox_url: str
    shop: Shop


@contextlib.asynccontextmanager
async def staged(
    data: Path,
    say: Say,
    find: Callable[[str], Customer | None],
    *,
    port: int = 0,
    mailbox_port: int = 0,
    on_mail: Callable[[Mail], None] = lambda mail: None,
    on_entry: Callable[[JournalEntry], None] = lambda entry: None,
) -> AsyncIterator[Stage]:
    """Run everything as long as the context lasts. `find` tells whose address it is; the other two hear what happens."""
    mailbox = Mailbox(data / "mailbox", on_mail)
    async with receiving(mailbox) as smtp_port:
        settings = Settings(
            data=data,
            journeys=EXAMPLES,
            port=port,
            host="127.0.0.1",
            write_keys={},
            public_url="",
            link_secret=SecretStr(""),
            smtp_url=SecretStr(f"smtp://127.0.0.1:{smtp_port}?starttls=never"),
            email_from=SENDER,
            endpoints={},
        )
        following = {"journal": _follower(on_entry)}
        async with (
            running(settings, say, hurry=hurried, loops=following) as server,
            _page(mailbox, server.url, mailbox_port) as mailbox_url,
        ):
            key = server.settings.write_keys["default"][0].get_secret_value()
            shop = Shop(key, server.url, mailbox, find)
            mailbox.on_mail = _both(on_mail, shop.read)
            try:
                yield Stage(server, mailbox, mailbox_url, shop)
            finally:
                mailbox.on_mail = on_mail
                await shop.close()


def hurried(journey: Journey) -> Journey:
    """Return an example journey at the pace of the demo."""
    return sped_up(journey, PACES[journey.name])


def paces() -> dict[str, str]:
    """Say for each journey how fast it is played."""
    return {name: f"a day passes in {describe(timedelta(days=1) / pace)}" for name, pace in PACES.items()}


def reserve_numbers(data: Path, count: int = RESERVED) -> int:
    """Return the first of `count` customers' numbers that nobody has had, also after a crash."""
    path = data / "customers"
    first = int(path.read_text("ascii")) if path.exists() else 1
    unfinished = path.with_suffix(".part")
    data.mkdir(parents=True, exist_ok=True)
    unfinished.write_text(str(first + count), "ascii")
    unfinished.replace(path)
    return first


def find_drawn(seed: int) -> Callable[[str], Customer | None]:
    """Return how the customer of an address is found, where customers are drawn by number and seed."""

    def find(address: str) -> Customer | None:
        number = number_of(address)
        customer = None if number is None else make_customer(number, seed)
        return customer if customer is not None and customer.address == address else None

    return find


def _both(first: Callable[[Mail], None], second: Callable[[Mail], None]) -> Callable[[Mail], None]:
    def tell(mail: Mail) -> None:
        first(mail)
        second(mail)

    return tell


def _follower(on_entry: Callable[[JournalEntry], None]) -> Loop:
    """Return a loop that reads the journal from where it was left, and tells what it says."""

    async def follow(partition: PartitionHost) -> None:
        while True:
            records = await partition.poll(JOURNAL_RECORDS, 1.0)
            for record in records:
                for entry in read_entries(record.value):
                    on_entry(entry)
            if records:
                await partition.commit(Batch(through=records[-1].offset))

    return follow


@contextlib.asynccontextmanager
async def _page(mailbox: Mailbox, server_url: str, port: int) -> AsyncIterator[str]:
    runner = web.AppRunner(make_page(mailbox, server_url), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
