from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushcompat import logs

from .harness import full_pipe


class Log:
    def __init__(self) -> None:
        self.stream = io.StringIO()

    def configure(self, format: str = "text", level: str = "info") -> Log:
        logs.configure(format, level, self.stream)
        return self

    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


@pytest.fixture
def log() -> Iterator[Log]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logs.log.level, logging.raiseExceptions
    configured = logs._level, logs._write
    yield Log()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    logs.log.setLevel(before[2])
    logging.raiseExceptions = before[3]
    logs._level, logs._write = configured


def test_an_event_is_a_line_of_time_level_name_and_fields(log: Log) -> None:
    log.configure()
    logs.event("subscribe", channels=("a", "b"), transport="websocket", seconds=1.23456, kept=True, client=None)
    (line,) = log.lines()
    time, _, rest = line.partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert rest == "INFO subscribe channels=a,b transport=websocket seconds=1.235 kept=true"


def test_as_json_an_event_is_an_object_with_the_same_fields(log: Log) -> None:
    log.configure("json")
    logs.event("subscribe", channels=("a", "b"), seconds=1.5, client=None)
    (document,) = log.documents()
    assert list(document) == ["time", "level", "event", "channels", "seconds"]
    assert document["level"] == "INFO"
    assert document["event"] == "subscribe"
    assert document["channels"] == ["a", "b"]
    assert document["seconds"] == 1.5


def test_below_the_level_nothing_is_said(log: Log) -> None:
    log.configure(level="warning")
    assert not logs.enabled()
    logs.event("subscribe", channels=("a",))
    logs.event("stalled", logging.WARNING, client="x")
    assert [line.split(" ", 1)[1] for line in log.lines()] == ["WARNING stalled client=x"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a b", '"a b"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("a\\b", r'"a\\b"'),
        ("one\ntwo\r", r'"one\ntwo\r"'),
        ("\x1b[31m", r'"\u001b[31m"'),
        ("\x9b\u2028\u202e", r'"\u009b\u2028\u202e"'),
        ("grün", '"grün"'),
        ("\ud800", r'"\ud800"'),
    ],
)
def test_a_value_that_could_be_mistaken_is_quoted_and_escaped(log: Log, value: str, shown: str) -> None:
    log.configure()
    logs.event("x", value=value)
    assert log.stream.getvalue().endswith(f" x value={shown}\n")


@given(st.text())
def test_no_text_makes_a_second_line_or_an_unprintable_one(text: str) -> None:
    for format in logs.FORMATS:
        record = logging.LogRecord("tornado.access", logging.WARNING, "", 0, "%s", (text,), None)
        event = logging.LogRecord("pushcompat", logging.INFO, "", 0, "x", (), None)
        event.fields = {"client": text}
        for line in (logs.Lines(format).format(record), logs.Lines(format).format(event)):
            assert line.isprintable()
            line.encode()


@pytest.mark.parametrize(
    "text",
    [
        "/channels/a?token=SECRET",
        "/channels/a?cursor=1&token=SECRET&wait=3",
        "/channels/a?access_token=SECRET#x",
        "/channels/a?tok%65n=SECRET",
        "/channels/a?TOKEN=SECRET",
        "/login?next=/x?token=SECRET",
        "token=SECRET;more",
        "Authorization: Bearer SECRET",
        "Authorization: SECRET",
        "authorization=SECRET",
        "{'Authorization': 'Bearer SECRET'}",
        '"authorization":"SECRET"',
        "Bearer SECRET",
        "basic SECRET==",
    ],
)
def test_secrets_are_taken_out_of_whatever_is_logged(log: Log, text: str) -> None:
    for format in logs.FORMATS:
        log.configure(format)
        logs.event("x", target=text, targets=[text])
        logging.getLogger("tornado.access").warning("404 GET %s (127.0.0.1) 0.5ms", text)
        try:
            raise ValueError(text)
        except ValueError:
            logging.getLogger("tornado.application").exception("failed")
    assert "SECRET" not in log.stream.getvalue()
    assert "[redacted]" in log.stream.getvalue()


@pytest.mark.parametrize("text", ["/channels/a?cursor=abc-1&key=k", "token", "a=b", "tokens=3", "basic"])
def test_text_without_secrets_is_left_alone(text: str) -> None:
    assert logs.redact(text) == text


def test_the_placeholder_of_our_own_messages_is_no_secret() -> None:
    sentence = 'publishing needs the publish key: send "Authorization: Bearer KEY"'
    assert logs.redact(sentence) == sentence
    assert "SECRET" not in logs.redact("Authorization: Bearer KEY-SECRET")


@pytest.mark.parametrize("text", ["=" + "a" * 100_000, "a=" * 50_000, "authorization" * 8_000 + " ", "?token" * 20_000])
def test_redaction_takes_time_in_proportion_to_the_text(text: str) -> None:
    logs.redact(text)  # quadratic, it would take minutes


def test_a_traceback_can_not_pass_for_an_event(log: Log) -> None:
    log.configure()
    try:
        raise ValueError("2026-11-23T12:00:00.123Z INFO publish\n2026-11-23T12:00:00.123Z INFO publish")
    except ValueError:
        logging.getLogger("tornado.application").exception("Uncaught exception")
    lines = log.lines()
    assert lines[0].endswith(" ERROR tornado.application: Uncaught exception")
    assert len(lines) > 3
    assert all(line.startswith("    ") for line in lines[1:])


def test_as_json_a_traceback_is_a_field(log: Log) -> None:
    log.configure("json")
    try:
        raise ValueError("no")
    except ValueError:
        logs.log.exception("the log could not take %d", 3)
    (document,) = log.documents()
    assert document["message"] == "the log could not take 3"
    assert "ValueError: no" in document["exception"]


def test_only_warnings_of_libraries_are_logged(log: Log) -> None:
    log.configure(level="debug")
    logging.getLogger("tornado.access").info("200 GET / (127.0.0.1) 0.5ms")
    logging.getLogger("asyncio").debug("Using selector")
    logging.getLogger("tornado.access").warning("404 GET /x (127.0.0.1) 0.5ms")
    (line,) = log.lines()
    assert line.endswith(" WARNING tornado.access: 404 GET /x (127.0.0.1) 0.5ms")


def test_a_field_can_not_replace_time_level_or_event(log: Log) -> None:
    log.configure("json")
    logs.event("x", time="never", event="y", logger=1)
    (document,) = log.documents()
    assert document["event"] == "x"
    assert document["time"] != "never"


# The writer thread


class Pipe:
    """A standard error that is a pipe, and full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read_end, write_end = full_pipe()
        self._file = os.fdopen(write_end, "w")
        monkeypatch.setattr(sys, "stderr", self._file)

    def read_until(self, mark: bytes) -> bytes:
        data = b""
        while mark not in data:
            data += os.read(self.read_end, 65536)
        return data

    def close(self) -> None:
        os.close(self.read_end)
        self._file.close()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch, log: Log) -> Iterator[Pipe]:
    pipe = Pipe(monkeypatch)
    logs.configure()
    yield pipe
    logs.close()
    pipe.close()


def test_lines_beyond_the_queue_are_dropped_and_counted_once_somebody_reads(pipe: Pipe) -> None:
    for number in range(12_000):
        logs.event("x", number=number)
    shown = pipe.read_until(b"lines_dropped count=")
    logs.event("last")
    shown += pipe.read_until(b"INFO last\n")
    count = re.search(rb"WARNING lines_dropped count=(\d+)", shown)
    assert count
    assert shown.count(b" INFO x number=") + int(count[1]) == 12_000
    assert shown.count(b"lines_dropped") == 1


def test_the_end_waits_only_so_long_for_a_reader(pipe: Pipe) -> None:
    logs.event("x")
    logs.close()  # without the bound the test would not end
    assert b"INFO x" in pipe.read_until(b"INFO x\n")


def test_the_last_log_lines_are_written_before_the_exit(pipe: Pipe) -> None:
    os.read(pipe.read_end, 1 << 20)
    logs.event("x")
    try:
        raise ValueError("why")
    except ValueError:
        logs.log.exception("failed")
    logs.close()
    os.set_blocking(pipe.read_end, False)
    assert b"    ValueError: why\n" in os.read(pipe.read_end, 1 << 20)


def test_an_event_that_anybody_can_cause_has_a_hundred_lines_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, object]] = []
    monkeypatch.setattr(logs, "event", lambda name, **fields: lines.append(fields))
    refusals = logs.Limited("refused")
    for now in [5] * 250 + [6] * 2:
        refusals.event(now, detail="x")
    assert lines == [{"detail": "x", "unlogged": unlogged} for unlogged in [*[None] * 100, 150, None]]
