"""How the shop's customers live: what they do reaches the server through Segment's own client, unmodified.

They read their mail as people do: a little later, and only those who would. To open a mail is to load its pixel, to click
is to follow its link, to leave is the one-click unsubscribe of RFC 8058.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import aiohttp
from segment.analytics.client import Client

from agents.demo.customers import Act, Customer, template_of
from agents.demo.mailbox import Mail, Mailbox, html_of, links_in

READING_SECONDS = 0.4  # from a mail's arrival to the click
MOST_PROBLEMS = 20  # kept, to be shown
PATIENCE = aiohttp.ClientTimeout(total=10)


class Shop:
    """Plays customers against a server. `problems` holds what went wrong, newest last."""

    def __init__(
        self, write_key: str, server_url: str, mailbox: Mailbox, find: Callable[[str], Customer | None]
    ) -> None:
        self.mailbox = mailbox
        self.find = find
        self.problems: deque[str] = deque(maxlen=MOST_PROBLEMS)
        self.reactions = 0
        self._client = Client(write_key, host=server_url, on_error=self._on_error, upload_interval=0.1, max_retries=5)
        self._session = aiohttp.ClientSession(timeout=PATIENCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def play(self, customer: Customer) -> None:
        """Let a customer do all they do by themselves; returns when they have."""
        began = time.monotonic()
        for act in customer.acts:
            await asyncio.sleep(max(0.0, began + act.after_seconds - time.monotonic()))
            self._do(customer, act)

    def read(self, mail: Mail) -> None:
        """A mail has arrived: its reader opens it, clicks, unsubscribes, or leaves it alone."""
        customer = self.find(mail.recipient)
        template = template_of(mail.subject)
        if customer is None or template not in (*customer.opens, *customer.clicks, *customer.unsubscribes):
            return
        task = asyncio.create_task(self._react(customer, template, mail.number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Send what the client still holds, and stop reading mails."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()
        await asyncio.to_thread(self._client.join)

    async def flush(self) -> None:
        """Return when the client has sent everything so far."""
        await asyncio.to_thread(self._client.flush)

    def _do(self, customer: Customer, act: Act) -> None:
        match act.kind:
            case "identify":
                queued, _ = self._client.identify(customer.user, act.properties)
            case "page":
                queued, _ = self._client.page(customer.user, name=act.name, properties=act.properties)
            case "track":
                queued, _ = self._client.track(customer.user, act.name, act.properties)
        if not queued:
            self.problems.append("the client's queue is full: the server takes events too slowly")

    async def _react(self, customer: Customer, template: str, number: int) -> None:
        await asyncio.sleep(READING_SECONDS)
        message = self.mailbox.open(number)
        if message is None:
            return
        self.reactions += 1
        if template in customer.opens:
            pixel = re.search(r'<img\b[^>]*?\bsrc="([^"]+)"', html_of(message) or "")
            await self._call("GET", pixel and pixel[1].replace("&amp;", "&"), f"the pixel of {template}")
        if template in customer.clicks:
            links = links_in(message)
            await self._call("GET", links[0] if links else None, f"the link of {template}")
        if template in customer.unsubscribes:
            link = re.search(r"<(https?://[^>]+)>", str(message["List-Unsubscribe"] or ""))
            await self._call(
                "POST", link and link[1], f"unsubscribing from {template}", {"List-Unsubscribe": "One-Click"}
            )

    async def _call(self, method: str, url: str | None, what: str, form: dict[str, str] | None = None) -> None:
        if not url:
            self.problems.append(f"{what} is missing in the mail")
            return
        try:
            # The link leads to the shop's pages, which do not exist: the answer that sends us there is enough.
            async with self._session.request(method, url, data=form, allow_redirects=False) as response:
                if response.status >= 400:
                    self.problems.append(f"{what} was answered with {response.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.problems.append(f"{what}: {error or type(error).__name__}")

    def _on_error(self, error: Exception, batch: list[Any]) -> None:
        self.problems.append(f"{len(batch)} events were not taken: {error}")
