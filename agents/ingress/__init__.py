"""HTTP in: Segment's tracking API, CloudEvents, webhooks, and what operators ask of a process.

`make_app` is all that others need. It is one aiohttp application, to which other groups of routes (links in mails,
receipts of providers) may be added before it is started. Served by `agents.listening.answering`, the plainest and most
frequent requests are answered before they get to it (`agents/ingress/doorway.py`).
"""

from agents.ingress.application import make_app
from agents.ingress.submissions import TRACEPARENT

__all__ = ["TRACEPARENT", "make_app"]
