"""What a log line holds, and that no secret gets into one, whoever writes it."""

import io
import json
import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from engine.runtime import logs, tracing


class Lines(io.StringIO):
    """A stream that remembers what was logged."""

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def only(self) -> dict[str, Any]:
        (line,) = self.all()
        return line


@pytest.fixture
def lines() -> Iterator[Lines]:
    """JSON logging into memory; what was set before is put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs.OURS}
    stream = Lines()
    logs.configure("info", stream, console=False)
    yield stream
    logging.captureWarnings(False)
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def test_a_line_says_when_where_how_bad_and_what(lines: Lines) -> None:
    structlog.get_logger("engine.runtime.partition").info("partition stopped", topic="events", partition=3)
    line = lines.only()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "partition stopped",
        "level": "info",
        "logger": "engine.runtime.partition",
        "partition": 3,
        "topic": "events",
    }


def test_tenant_and_trace_are_on_every_line_of_a_piece_of_work(lines: Lines) -> None:
    log = structlog.get_logger("agents.ingress")
    request = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    with tracing.span("POST /v1/batch", request), logs.bound(tenant="shop"):
        log.info("accepted")
        logging.getLogger("agents.other").warning("through the standard library")
    log.info("after it")
    first, second, after = lines.all()
    for line in (first, second):
        assert (line["tenant"], line["trace_id"], line["span_id"]) == ("shop", "a" * 32, "b" * 16)
    assert not {"tenant", "trace_id"} & after.keys()


def test_libraries_are_heard_from_warning_on(lines: Lines) -> None:
    for name in ("aiokafka.consumer", "aiohttp.access", "faust.app", "mode.worker"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("lost %s", "the broker")
    assert [line["event"] for line in lines.all()] == ["lost the broker"] * 4


def test_what_a_library_repeats_is_written_now_and_then(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs._Seldom, "EVERY_SECONDS", 0.2)
    library, ours = logging.getLogger("aiokafka"), structlog.get_logger("engine.runtime")
    for number in range(50):
        library.error("Unable connect to node %s", number)
        ours.error("partition failed")
    library.error("another thing")
    time.sleep(0.25)  # the filter goes by the time that the standard library stamps on a record
    library.error("Unable connect to node %s", 50)
    assert [line["event"] for line in lines.all() if line["logger"] == "aiokafka"] == [
        "Unable connect to node 0",
        "another thing",
        "Unable connect to node 50 (and 49 times since it was last written)",
    ]
    assert len(lines.all()) == 53


def test_debug_is_of_ours_only(lines: Lines) -> None:
    logs.configure("debug", lines, console=False)
    structlog.get_logger("engine.runtime.timers").debug("tick")
    logging.getLogger("aiokafka").debug("fetch")
    assert [line["event"] for line in lines.all()] == ["tick"]


def test_the_level_holds_lines_back(lines: Lines) -> None:
    logs.configure("error", lines, console=False)
    structlog.get_logger("agents.server").warning("not wanted")
    assert lines.all() == []


def test_an_exception_is_one_line_with_its_traceback(lines: Lines) -> None:
    try:
        raise ConnectionError("cannot reach smtp://shop:hunter2@mail.example:587")
    except ConnectionError:
        structlog.get_logger("agents.channels").exception("delivery failed")
    line = lines.only()
    assert "ConnectionError: cannot reach smtp://[redacted]@mail.example:587" in line["exception"]
    assert "hunter2" not in lines.getvalue()


def test_warnings_are_lines_too(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("the old name goes away", UserWarning, stacklevel=1)
    assert "the old name goes away" in lines.only()["event"]


@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": "hunter2"},
        {"Authorization": "hunter2"},
        {"write_key": "hunter2"},
        {"writeKey": "hunter2"},
        {"password": "hunter2"},
        {"link_secret": "hunter2"},
        {"Set-Cookie": "hunter2"},
        {"api-key": b"hunter2"},
        {"headers": {"Proxy-Authorization": ["Basic", "hunter2"]}},
        {"settings": [{"kafka": {"password": "hunter2"}}]},
        {"url": "smtp://shop:hunter2@mail.example:587"},
        {"url": "smtp://shop:hunter2@x@mail.example:587"},
        {"url": "smtp://shop:a/hunter2@mail.example:587"},
        {"url": b"https://hunter2@example.com/hook"},
        {"urls": ("https://example.com", "https://a:hunter2@example.com/")},
        {"header": "Authorization: Bearer hunter2hunter2"},
        {"error": ValueError("refused Basic hunter2hunter2==")},
    ],
    ids=str,
)
def test_secrets_are_taken_out(lines: Lines, fields: dict[str, Any]) -> None:
    structlog.get_logger("agents").info("something", **fields)
    assert lines.only()["event"] == "something"
    assert "hunter2" not in lines.getvalue()
    assert "[redacted]" in lines.getvalue()


def test_a_secret_in_the_text_of_a_library_is_taken_out(lines: Lines) -> None:
    logging.getLogger("aiosmtplib").warning("cannot connect to %s", "smtp://shop:hunter2@mail.example")
    assert lines.only()["event"] == "cannot connect to smtp://[redacted]@mail.example"


@pytest.mark.parametrize(
    "url", ["https://example.com/u?email=ann@example.com", "https://example.com/@ann", "http://127.0.0.1:8080/readyz"]
)
def test_an_at_sign_that_is_no_userinfo_stays(lines: Lines, url: str) -> None:
    structlog.get_logger("agents").info("called", url=url)
    assert lines.only()["url"] == url


def test_a_value_nested_without_end_ends(lines: Lines) -> None:
    endless: list[Any] = []
    endless.append(endless)
    structlog.get_logger("agents").info("odd", value=endless)
    assert "..." in lines.getvalue()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_whatever_is_redacted_stays_loggable(fields: dict[str, Any]) -> None:
    assert logs.redact(None, "info", fields).keys() == fields.keys()
    json.dumps(logs.redact(None, "info", fields))


def test_on_a_terminal_people_can_read_it() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = Terminal()
    try:
        logs.configure("info", stream)
        structlog.get_logger("agents").info("ready", address="127.0.0.1:8080")
    finally:
        logging.captureWarnings(False)
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)
    assert "ready" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
