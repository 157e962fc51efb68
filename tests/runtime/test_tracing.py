"""That one trace goes from the HTTP request through the log to the provider's call."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from engine.runtime import tracing
from schemas.records import Headers

INCOMING = f"00-{'4bf92f3577b34da6a3ce929d0e0e4736'}-{'00f067aa0ba902b7'}-01"
VALID = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_id(traceparent: str) -> str:
    return traceparent.split("-")[1]


def test_a_trace_goes_from_the_request_through_the_records_to_the_provider() -> None:
    with tracing.span("POST /v1/batch", CIMultiDict({"Traceparent": INCOMING}), tracing.SERVER) as traceparent:
        event_headers: Headers = (("tenant", b"shop"), tracing.record_header(traceparent))
    caused = tracing.carried(event_headers)
    assert caused is not None
    command_headers: Headers = (caused,)
    to_provider = {"content-type": "application/json"}
    with tracing.span("send email", command_headers, tracing.CLIENT):
        tracing.add_to(to_provider)
    assert trace_id(to_provider["traceparent"]) == trace_id(INCOMING)


def test_a_request_without_a_trace_begins_one() -> None:
    with tracing.span("POST /v1/track", {}) as first:
        assert VALID.fullmatch(first)
        assert tracing.log_ids() == {"trace_id": trace_id(first), "span_id": first.split("-")[2]}
        assert tracing.current() == first
    with tracing.span("POST /v1/track", {}) as second:
        assert trace_id(second) != trace_id(first)


def test_a_new_trace_does_not_claim_that_it_is_recorded() -> None:
    with tracing.span("POST /v1/track", {}) as traceparent:
        assert traceparent.endswith("-00")


def test_a_sampled_trace_stays_sampled() -> None:
    with tracing.span("POST /v1/track", {"traceparent": INCOMING}) as traceparent:
        assert traceparent.endswith("-01")


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "hello",
        INCOMING.upper(),
        INCOMING[:-1],
        INCOMING + "-more",
        INCOMING.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        INCOMING.replace("00f067aa0ba902b7", "0" * 16),
        "ff" + INCOMING[2:],
        "é" * 55,
    ],
)
def test_a_broken_traceparent_begins_a_new_trace(broken: str) -> None:
    with tracing.span("POST /v1/track", {"traceparent": broken}) as traceparent:
        assert VALID.fullmatch(traceparent)
        assert trace_id(traceparent) != trace_id(INCOMING)
    with tracing.span("send", (("traceparent", broken.encode()),)) as traceparent:
        assert VALID.fullmatch(traceparent)


@given(st.binary(max_size=80))
def test_whatever_a_producer_wrote_a_span_has_valid_ids(value: bytes) -> None:
    with tracing.span("send", (("traceparent", value),)) as traceparent:
        assert VALID.fullmatch(traceparent)


def test_a_vendors_state_is_handed_on() -> None:
    outgoing: dict[str, str] = {}
    with tracing.span("POST /v1/track", {"traceparent": INCOMING, "tracestate": "vendor=1"}):
        tracing.add_to(outgoing)
    assert outgoing == {"traceparent": INCOMING, "tracestate": "vendor=1"}


def test_work_inside_work_is_of_the_same_trace() -> None:
    with tracing.span("outer", {"traceparent": INCOMING}), tracing.span("inner") as inner:
        assert trace_id(inner) == trace_id(INCOMING)


def test_a_record_is_not_of_the_trace_that_happens_to_be_under_way() -> None:
    with tracing.span("outer", {"traceparent": INCOMING}), tracing.span("of a record", ()) as inner:
        assert trace_id(inner) != trace_id(INCOMING)


def test_outside_any_work_nothing_is_said() -> None:
    headers: dict[str, str] = {}
    tracing.add_to(headers)
    assert (tracing.current(), tracing.log_ids(), headers) == (None, {}, {})


def test_an_exception_passes_through_and_the_span_ends() -> None:
    with pytest.raises(KeyError), tracing.span("POST /v1/track", {}):
        raise KeyError("x")
    assert tracing.current() is None


def test_only_a_header_of_the_right_length_is_carried_on() -> None:
    header = tracing.record_header(INCOMING)
    assert tracing.carried((("tenant", b"shop"), header)) is header
    assert tracing.carried((("traceparent", b"x" * 4096),)) is None
    assert tracing.carried(()) is None


class Recorder:
    """Stands for a configured SDK: gives each span ids of its own and remembers what was started."""

    def __init__(self) -> None:
        self.started: list[tuple[str, trace.SpanKind, int]] = []

    def start_span(self, name: str, context: Context | None, kind: trace.SpanKind) -> trace.Span:
        parent = trace.get_current_span(context).get_span_context()
        self.started.append((name, kind, parent.trace_id))
        trace_id = parent.trace_id or 0xA
        return NonRecordingSpan(SpanContext(trace_id, len(self.started), False, TraceFlags(TraceFlags.SAMPLED)))


def test_with_an_sdk_each_piece_of_work_is_a_span_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(trace, "get_tracer", lambda _name: recorder)
    with tracing.span("POST /v1/batch", {}, tracing.SERVER) as request:
        pass
    with tracing.span("send email", (tracing.record_header(request),), tracing.CLIENT) as call:
        pass
    assert recorder.started == [("POST /v1/batch", tracing.SERVER, 0), ("send email", tracing.CLIENT, 0xA)]
    assert (request, call) == (f"00-{0xA:032x}-{1:016x}-01", f"00-{0xA:032x}-{2:016x}-01")


def test_without_an_sdk_a_request_is_continued_by_its_ids_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not tracing.is_recorded()
    assert tracing.continued(INCOMING) == INCOMING
    first, second = tracing.continued(None), tracing.continued(INCOMING.upper())
    assert VALID.fullmatch(first)
    assert VALID.fullmatch(second)
    assert first != second
    monkeypatch.setattr(trace, "get_tracer_provider", object)
    assert tracing.is_recorded()


@given(st.text(max_size=80))
def test_whatever_a_client_wrote_it_is_continued_with_valid_ids(value: str) -> None:
    assert VALID.fullmatch(tracing.continued(value))
