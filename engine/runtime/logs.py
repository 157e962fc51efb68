"""What a log line looks like, and what never gets into one.

One line, one JSON object: `timestamp`, `level`, `event`, `logger`, what the caller gave, what was bound for this piece
of work (`bound(tenant=...)`) and the trace's ids. On a terminal the same lines are written for people. What libraries
log through the standard library passes through the same processors, from warning on.

Secrets are taken out by name of key and by shape (the password in a URL, an Authorization value), whoever logs them,
tracebacks included. That is a net, not a licence: don't log them.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Final, TextIO

import structlog
from structlog.contextvars import bound_contextvars as bound
from structlog.typing import EventDict, Processor, WrappedLogger

from engine.runtime import tracing

__all__ = ["bound", "configure", "redact"]

OURS: Final = ("agents", "engine", "equeengage")  # What logs at the level that was set; all others from warning on.
REDACTED: Final = "[redacted]"
_DEPTH: Final = 6  # Deeper nested values are cut off: nobody reads them, and redaction must end.

_SECRET_KEY = re.compile(
    r"authorization|write[_-]?key|password|passwd|secret|token|cookie|api[_-]?key|private[_-]?key|credential",
    re.IGNORECASE,
)
# Up to the last @ before the path; in other schemes than http up to the last @ at all, as an operator who put an
# unescaped slash into the password of his SMTP server is sent an error that quotes it.
_URL_USER = re.compile(
    r"\b(https?://)[^\s/?#\"']*@|\b(?!https?://)([A-Za-z][A-Za-z0-9+.-]*://)[^\s\"']*@", re.IGNORECASE
)
_AUTHORIZATION = re.compile(r"\b(Basic|Bearer)\s+[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE)


def configure(level: str = "info", stream: TextIO | None = None, console: bool | None = None) -> None:
    """Log to `stream` (default: stderr) from now on, once per process; calling it again replaces what was set.

    `console` chooses between lines for people and JSON; by default a terminal gets the former.
    """
    stream = sys.stderr if stream is None else stream
    console = stream.isatty() if console is None else console
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                redact,
                structlog.dev.ConsoleRenderer(colors=console) if console else structlog.processors.JSONRenderer(),
            ],
        )
    )
    handler.addFilter(_Seldom())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # A logger made at import must follow a later `configure`.
    )


class _Seldom(logging.Filter):
    """What a library says again and again is let through once in ten seconds, with how often it was held back.

    While a broker is down, aiokafka says a hundred times a second that it is.
    """

    EVERY_SECONDS = 10.0
    REMEMBERED = 1000  # texts, before their values are put in

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # logger and text -> when last, how often since

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] in OURS:
            return True
        said = (record.name, str(record.msg))
        last, held_back = self._said.get(said, (-self.EVERY_SECONDS, 0))
        if record.created - last < self.EVERY_SECONDS:
            self._said[said] = (last, held_back + 1)
            return False
        if len(self._said) >= self.REMEMBERED:
            self._said.clear()
        self._said[said] = (record.created, 0)
        if held_back:
            record.msg = f"{record.msg} (and {held_back} times since it was last written)"
        return True


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A processor: replace secrets in all values, however deep."""
    return {key: REDACTED if _SECRET_KEY.search(key) else _clean(value, _DEPTH) for key, value in event.items()}


def _clean(value: object, depth: int) -> object:
    if isinstance(value, str):
        return _AUTHORIZATION.sub(rf"\1 {REDACTED}", _URL_USER.sub(_without_user, value))
    if isinstance(value, bytes):
        return _clean(value.decode("utf-8", "replace"), depth)
    if isinstance(value, Mapping | list | tuple | set | frozenset) and depth == 0:
        return "..."
    if isinstance(value, Mapping):
        return {
            str(key): REDACTED if _SECRET_KEY.search(str(key)) else _clean(item, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth - 1) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _clean(str(value), depth)


def _without_user(url: re.Match[str]) -> str:
    return f"{url[1] or url[2]}{REDACTED}@"


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event.update(tracing.log_ids())
    return event
