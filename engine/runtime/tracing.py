"""How one piece of work is followed from the HTTP request to the provider's call: W3C `traceparent`.

A request brings a traceparent or gets a new one; it travels as a header of the event, is handed on by the fold to the
commands and receipts it causes, and goes out with the provider's call. The ids stand in every log line written on the
way. Without an OpenTelemetry SDK ids are only passed on; where one is configured, each `span` is a real one.
"""

import random
import re
import secrets
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas.records import Headers

HEADER: Final = "traceparent"
SERVER, CONSUMER, CLIENT = SpanKind.SERVER, SpanKind.CONSUMER, SpanKind.CLIENT

_W3C = TraceContextTextMapPropagator()
_VALID = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_LENGTH = 55  # of version 00, "00-" + 32 + "-" + 16 + "-" + 2, the only one there is


@contextmanager
def span(
    name: str, parent: Mapping[str, str] | Headers | None = None, kind: SpanKind = SpanKind.INTERNAL
) -> Iterator[str]:
    """Do a piece of work as a span of the parent's trace; yield the traceparent to hand on.

    `parent` is the headers of an HTTP request or of a record. Without a valid traceparent in them a new trace is
    begun; without `parent` the span belongs to the current one, if there is one.
    """
    context = None if parent is None else _W3C.extract(_carrier(parent), context=Context())
    started = trace.get_tracer("equeengage").start_span(name, context=context, kind=kind)
    if not started.get_span_context().is_valid:
        started = NonRecordingSpan(_new_context())
    with trace.use_span(started, end_on_exit=True):
        yield current() or ""


def is_recorded() -> bool:
    """Whether an OpenTelemetry SDK is configured. Without one a span is only ids, and `continued` gives them cheaper."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def continued(given: str | None) -> str:
    """The traceparent to hand on outside any span: the one that was given, or one that begins a trace.

    1 us where `span` takes 10 or more: an ingress without an SDK does this for each request. The ids are random and no
    secret, as OpenTelemetry's own are.
    """
    if given is not None and _VALID.fullmatch(given):
        return given
    return f"00-{random.getrandbits(128) or 1:032x}-{random.getrandbits(64) or 1:016x}-00"


def current() -> str | None:
    """The traceparent of the work under way, or None outside any span."""
    headers: dict[str, str] = {}
    add_to(headers)
    return headers.get(HEADER)


def add_to(headers: MutableMapping[str, str]) -> None:
    """Put `traceparent` (and `tracestate`, if any) of the work under way into the headers of an HTTP request."""
    _W3C.inject(headers)


def record_header(traceparent: str) -> tuple[str, bytes]:
    """The traceparent as a header of a record."""
    return (HEADER, traceparent.encode("ascii"))


def carried(headers: Headers) -> tuple[str, bytes] | None:
    """The header that a record caused by this one must carry on, or None. Cheap: it is called for each record."""
    for header in headers:
        if header[0] == HEADER:
            return header if len(header[1]) == _LENGTH else None
    return None


def log_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the work under way, in hex, for a log line; empty outside any span."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}


def _carrier(parent: Mapping[str, str] | Headers) -> dict[str, str]:
    if isinstance(parent, Mapping):
        return {name: parent[name] for name in (HEADER, "tracestate") if name in parent}
    header = carried(parent)
    return {HEADER: header[1].decode("ascii", "replace")} if header else {}


def _new_context() -> SpanContext:
    """Fresh ids, not sampled: nobody here records, so downstream must not be told that somebody does."""
    return SpanContext(
        trace_id=secrets.randbits(128) or 1,
        span_id=secrets.randbits(64) or 1,  # 0 is "no id" in the standard
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.DEFAULT),
    )
