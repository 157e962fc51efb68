"""The web page on which the demo's mails are read.

Mails are written by strangers as far as a browser is concerned: what is shown of them is escaped, and their html is only
ever shown in a sandboxed frame that runs no scripts and has no origin. Links open in a new tab. Remote images are loaded,
as most people's mail programs do, so opening a mail here counts as opened.
"""

import re
from datetime import datetime
from email.message import EmailMessage
from email.utils import parseaddr
from html import escape
from pathlib import Path
from urllib.parse import urlencode

from aiohttp import web

from agents.demo.mailbox import Mail, Mailbox, html_of, text_of

SHOWN = 200  # rows of the list; older mails are in the folder
STATIC = Path(__file__).parent / "static"

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-src 'self'"
)
MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline' https:; "
    "img-src http: https: data:; font-src https: data:"
)


def make_page(mailbox: Mailbox, server_url: str = "") -> web.Application:
    """Return the mailbox's web application. `server_url` is linked for the curious."""
    page = _Page(mailbox, server_url)
    app = web.Application()
    app.add_routes(
        [
            web.get("/", page.index),
            web.get("/list", page.list),
            web.get(r"/mails/{number:\d{1,12}}", page.mail),
            web.get(r"/mails/{number:\d{1,12}}/html", page.html),
            web.get(r"/mails/{number:\d{1,12}}/source", page.source),
            web.get("/mailbox.css", page.stylesheet),
            web.get("/mailbox.js", page.script),
        ]
    )
    return app


class _Page:
    def __init__(self, mailbox: Mailbox, server_url: str) -> None:
        self.mailbox = mailbox
        self.server_url = server_url
        self.frame = (STATIC / "mailbox.html").read_text("utf-8")
        self.css = (STATIC / "mailbox.css").read_text("utf-8")
        self.js = (STATIC / "mailbox.js").read_text("utf-8")

    async def index(self, request: web.Request) -> web.Response:
        return self._page(request, None, _welcome(self.server_url, empty=not self.mailbox.mails))

    async def list(self, request: web.Request) -> web.Response:
        """Only the rows, for the page to look for new ones."""
        selected = request.query.get("selected", "")
        number = int(selected) if selected.isdecimal() and len(selected) < 13 else None
        return _html(self._rows(number, request.query.get("q", "")))

    async def mail(self, request: web.Request) -> web.Response:
        mail, message = self._find(request)
        return self._page(request, mail, _reading(mail, message))

    async def html(self, request: web.Request) -> web.Response:
        _, message = self._find(request)
        body = html_of(message) or f"<pre>{escape(text_of(message))}</pre>"
        return _html('<base target="_blank">' + body, MAIL_POLICY)

    async def source(self, request: web.Request) -> web.Response:
        _, message = self._find(request)
        return web.Response(text=message.as_string(), headers=_headers("sandbox"))

    async def stylesheet(self, request: web.Request) -> web.Response:
        return web.Response(text=self.css, content_type="text/css", headers=_headers(PAGE_POLICY))

    async def script(self, request: web.Request) -> web.Response:
        return web.Response(text=self.js, content_type="text/javascript", headers=_headers(PAGE_POLICY))

    def _find(self, request: web.Request) -> tuple[Mail, EmailMessage]:
        number = int(request.match_info["number"])
        mail, message = self.mailbox.find(number), self.mailbox.open(number)
        if mail is None or message is None:
            raise web.HTTPNotFound(text=f"There is no mail {number} here; the newest 1,000 are kept.\n")
        return mail, message

    def _page(self, request: web.Request, selected: Mail | None, content: str) -> web.Response:
        number = None if selected is None else selected.number
        query = request.query.get("q", "")
        values = {
            "title": "Mailbox" if selected is None else escape(selected.subject),
            "reading": "" if selected is None else " reading",
            "query": escape(query),
            "selected": "" if number is None else str(number),
            "rows": self._rows(number, query),
            "content": content,
        }
        # In one pass, so that a mail which happens to say {{rows}} is shown as it is.
        return _html(re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], self.frame))

    def _rows(self, selected: int | None, query: str) -> str:
        wanted = query.casefold().strip()
        found = [
            mail
            for mail in self.mailbox.mails
            if wanted in f"{mail.recipient} {mail.subject} {mail.preview}".casefold()
        ]
        shown = found[: -SHOWN - 1 : -1]  # newest first
        if not shown:
            return f'<p class="none">{"Nothing found." if wanted else "No mail yet."}</p>'
        count = f"{len(found)} of {len(self.mailbox.mails)}" if wanted else f"{len(found)}"
        rows = "".join(_row(mail, mail.number == selected, query) for mail in shown)
        return f'<p class="count">{count} mails, newest first</p>{rows}'


def _row(mail: Mail, selected: bool, query: str) -> str:
    address = parseaddr(mail.recipient)[1] or mail.recipient
    query = f"?{urlencode({'q': query})}" if query else ""
    return (
        f'<a class="row{" selected" if selected else ""}" href="/mails/{mail.number}{query}" data-number="{mail.number}">'
        f"{_avatar(address)}"
        f'<span class="who">{escape(address)}</span><time>{_clock(mail.received_at)}</time>'
        f'<span class="subject">{escape(mail.subject)}</span><span class="preview">{escape(mail.preview)}</span></a>'
    )


def _avatar(address: str) -> str:
    hue = sum(map(ord, address)) % 12  # twelve colours in the style sheet; only to tell people apart at a glance
    return f'<span class="avatar hue{hue}" aria-hidden="true">{escape(address[:1].upper() or "?")}</span>'


def _reading(mail: Mail, message: EmailMessage) -> str:
    rows = [
        ("From", str(message["From"] or "")),
        ("To", str(message["To"] or mail.recipient)),
        ("Received", _date(mail.received_at)),
    ]
    facts = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    if leave := re.search(r"<(https?://[^>\s]+)>", str(message["List-Unsubscribe"] or "")):
        link = f'<a class="link" href="{escape(leave[1])}" target="_blank" rel="noopener">Unsubscribe</a>'
        facts += f"<dt>List</dt><dd>{link}</dd>"
    return (
        f'<header class="mail"><a class="back" href="/">&larr; all mails</a><h1>{escape(mail.subject)}</h1>'
        f"<dl>{facts}</dl></header>"
        '<div class="tabs" role="tablist">'
        '<button role="tab" data-shows="as-html" aria-selected="true">Mail</button>'
        '<button role="tab" data-shows="as-text" aria-selected="false">Plain text</button>'
        f'<a href="/mails/{mail.number}/source" target="_blank" rel="noopener">Source</a></div>'
        f'<iframe id="as-html" title="The mail" src="/mails/{mail.number}/html" referrerpolicy="no-referrer"'
        ' sandbox="allow-popups allow-popups-to-escape-sandbox"></iframe>'
        f'<pre id="as-text" hidden>{escape(text_of(message))}</pre>'
    )


def _welcome(server_url: str, empty: bool) -> str:
    what = "The first mails arrive within a minute." if empty else "Choose a mail on the left."
    server = f"<p>They were sent by the server at <code>{escape(server_url)}</code>.</p>" if server_url else ""
    return (
        f'<div class="welcome"><div class="envelope" aria-hidden="true"></div><h1>{what}</h1>'
        f"<p>Every mail here was sent by a journey, over SMTP, to a customer of a made-up shop.</p>{server}"
        "<p>Open one and click its link: the journey goes on as it would for a customer.</p></div>"
    )


def _clock(at: int) -> str:
    return datetime.fromtimestamp(at / 1000).astimezone().strftime("%H:%M:%S")


def _date(at: int) -> str:
    return datetime.fromtimestamp(at / 1000).astimezone().strftime("%A, %d %B %Y, %H:%M:%S")


def _html(text: str, policy: str = PAGE_POLICY) -> web.Response:
    return web.Response(text=text, content_type="text/html", headers=_headers(policy))


def _headers(policy: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
