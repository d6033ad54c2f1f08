"""Log lines on stderr, one per event, for people (text) or for machines (json).

    2026-11-23T12:00:00.123Z INFO subscribe channels=a,b transport=websocket client=k3x
    {"time":"2026-11-23T12:00:00.123Z","level":"INFO","event":"subscribe","channels":["a","b"],…}

What clients send cannot inject lines or terminal escapes: unprintable characters are escaped. Tokens and keys are
removed from all text that looks like a query, a header or a credential. This is done here and not by the callers, so
that it cannot be forgotten.

Logging never blocks: the event loop appends to a bounded queue, and a thread formats and writes. If stderr is not read,
the thread waits and the queue fills; further lines are dropped and counted, and the count is logged when there is room
again. The thread collects lines for ``_COLLECT_S``, so that a line costs 1 to 2 µs in all.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TextIO
from urllib.parse import unquote_plus

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

log = logging.getLogger("pushcompat")


class Event(StrEnum):
    """The names of events. docs/operations.md documents their fields."""

    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    PUBLISH = "publish"
    REFUSED = "refused"
    LOG_LOST = "log_lost"
    LOG_DAMAGED = "log_damaged"
    LOG_RENEWED = "log_renewed"
    LOG_TRIMMED = "log_trimmed"
    LOG_TROUBLE = "log_trouble"
    LOG_WORKS = "log_works"
    PRESENCE_TROUBLE = "presence_trouble"
    PRESENCE_WORKS = "presence_works"
    AUTHORIZE_FAILED = "authorize_failed"
    AUTHORIZE_WORKS = "authorize_works"
    WEBHOOK = "webhook"
    WEBHOOK_FAILED = "webhook_failed"
    WEBHOOK_WORKS = "webhook_works"
    KEY_ADDED = "key_added"
    KEY_REVOKED = "key_revoked"
    REVOKED = "revoked"
    HOOK = "hook"
    HOOK_REFUSED = "hook_refused"
    HOOK_UNUSABLE = "hook_unusable"
    ACCEPT_PAUSED = "accept_paused"
    CERTIFICATE_LOADED = "certificate_loaded"
    CERTIFICATE_FAILED = "certificate_failed"
    HANDSHAKE_FAILED = "handshake_failed"
    DESCRIPTORS = "descriptors"
    RELOAD = "reload"
    VARIABLE_IGNORED = "variable_ignored"
    SECRET_VISIBLE = "secret_visible"
    LISTENING = "listening"
    STOPPING = "stopping"
    WORKER_STARTED = "worker_started"
    WORKER_ENDED = "worker_ended"
    WORKER_FAILED = "worker_failed"
    WORKER_STUCK = "worker_stuck"
    PARENT_ENDED = "parent_ended"
    LINES_DROPPED = "lines_dropped"


_SECRET_NAMES = frozenset({"token", "access_token", "id_token", "publish_key", "publish-key", "authorization"})
# Each starts at a boundary and never backtracks: a client may send 16 KiB of anything
_PARAMETER = re.compile(r"""(?<![^\s?&;=#"'])([^\s?&;=#"']++)=""")
_VALUE = re.compile(r"[^\s&#]*")
_CREDENTIAL = re.compile(
    r"\b(authorization\W{1,4}(?:bearer\s+|basic\s+)?+|bearer\s+|basic\s+)(?!(?-i:KEY)(?![\w.~+/=-]))[\w.~+/=-]+",
    re.IGNORECASE,
)  # KEY alone is the placeholder of our own error messages
_REDACTED = "[redacted]"
_BARE = re.compile(r"[!#-<>-\[\]-~]+")  # needs no quotes: printable ASCII without space, quote, = and backslash
_PLAIN = re.compile(r"[!#-9;<>-\[\]-~]+")  # and cannot hold a secret, because it has no colon: half the cost of a line

_MAX_QUEUED = 10_000  # lines
_LINES_PER_S = 100  # of an event that anybody can cause
_COLLECT_S = 0.05
_WRITE_BYTES = select.PIPE_BUF  # in one write: longer ones may be interleaved with another worker's lines
_EXIT_S = 1.0  # how long the process waits at exit for the last lines to be read

Fields = Mapping[str, object]
Entry = tuple[float, int, str, Fields] | str  # time, level, event, fields; or a finished line
Write = Callable[[Entry], None]

_level = logging.WARNING
_write: Write | None = None  # None: not configured; the standard library's logging gets events


def configure(
    format: str = "text", level: str = "info", stream: TextIO | None = None, worker: int | None = None
) -> None:
    """Sends this process's log to stderr: its own events from ``level`` on, and warnings of libraries.

    With a ``stream``, lines are written to it immediately. ``worker``: the number of the worker that this process is.
    """
    global _level, _write
    lines = Lines(format, worker)
    _write = _stderr(lines) if stream is None else _Stream(lines, stream).write
    _level = logging.getLevelName(level.upper())
    root = logging.getLogger()
    root.handlers[:] = [_Handler(lines, _write)]
    root.setLevel(max(logging.WARNING, _level))
    log.setLevel(_level)
    logging.raiseExceptions = False  # a closed stderr must not cause another error for every line


def event(name: str, level: int = logging.INFO, /, **fields: object) -> None:
    """Logs one event, without the fields that are None. If computing fields is expensive, check ``enabled`` first."""
    if level < _level:
        return
    if _write is None:
        log.log(level, "%s %s", name, fields)
    else:
        _write((time.time(), level, name, fields))


class Limited:
    """An event that anybody can cause: at most ``_LINES_PER_S`` lines a second, or it would fill the disk. The next
    line after these has the number of those that are missing, as ``unlogged``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._second = self._lines = self._unlogged = 0

    def event(self, now: int, /, **fields: object) -> None:
        """``now``: in seconds, of any clock. Level info; check ``enabled`` first if computing fields is expensive."""
        if now != self._second:
            self._second, self._lines = now, 0
        self._lines += 1
        if self._lines > _LINES_PER_S:
            self._unlogged += 1
            return
        event(self._name, **fields, unlogged=self._unlogged or None)
        self._unlogged = 0


def enabled(level: int = logging.INFO) -> bool:
    return level >= _level


def close() -> None:
    """Writes the queued lines, if they are read. Call it before the process exits."""
    writer = getattr(_write, "__self__", None)
    if isinstance(writer, _Thread):
        writer.close()


def _stderr(lines: Lines) -> Write:
    try:
        return _Thread(lines, sys.stderr.fileno()).write
    except (AttributeError, OSError):  # stderr is missing, or not a file
        return _Stream(lines, sys.stderr or io.StringIO()).write


class _Stream:
    def __init__(self, lines: Lines, stream: TextIO) -> None:
        self._lines = lines
        self._stream = stream

    def write(self, entry: Entry) -> None:
        try:
            self._stream.write(self._lines.line(entry) + "\n")
        except ValueError:
            pass  # the stream is closed


class _Thread:
    """The queue, and the thread that empties it. With one producer and one consumer a deque needs no lock."""

    def __init__(self, lines: Lines, descriptor: int) -> None:
        self._lines = lines
        self._descriptor = descriptor
        self._queue: deque[Entry] = deque()
        self._dropped = 0  # since the start; counted by the event loop alone
        self._dropped_logged = 0
        self._news = threading.Event()
        self._hurry = threading.Event()  # a warning, or the exit: write without collecting
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, entry: Entry) -> None:
        if len(self._queue) >= _MAX_QUEUED:
            self._dropped += 1
            return
        self._queue.append(entry)
        if not self._news.is_set():
            self._news.set()
        if isinstance(entry, str) or entry[1] >= logging.WARNING:
            self._hurry.set()

    def close(self) -> None:
        self._closing = True
        self._hurry.set()
        self._news.set()
        self._thread.join(_EXIT_S)

    def _run(self) -> None:
        while not (self._closing and not self._queue):
            self._news.wait()
            self._hurry.wait(_COLLECT_S)
            self._hurry.clear()
            self._news.clear()
            self._empty()

    def _empty(self) -> None:
        together = bytearray()
        while self._queue:
            line = self._encoded(self._queue.popleft())
            if together and len(together) + len(line) > _WRITE_BYTES:
                self._send(together)
                together = bytearray(self._missing())
            together += line
        self._send(together)
        self._send(self._missing())

    def _missing(self) -> bytes:
        """A line with the number of dropped lines, once stderr is read again."""
        count = self._dropped - self._dropped_logged
        if not count:
            return b""
        self._dropped_logged += count
        return self._encoded((time.time(), logging.WARNING, Event.LINES_DROPPED, {"count": count}))

    def _encoded(self, entry: Entry) -> bytes:
        return f"{self._lines.line(entry)}\n".encode(errors="backslashreplace")

    def _send(self, data: bytes | bytearray) -> None:
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            pass  # stderr is closed


class _Handler(logging.Handler):
    """Handles records of the standard library's logging: warnings of libraries, and exceptions."""

    def __init__(self, lines: Lines, write: Write) -> None:
        super().__init__()
        self.setFormatter(lines)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(self.format(record))


def redact(text: str) -> str:
    """The text without the values of tokens and keys, in a query (escaped names too) or after Bearer."""
    if "=" in text:
        text = _redact_parameters(text)
    if " " in text or ":" in text:
        text = _CREDENTIAL.sub(rf"\1{_REDACTED}", text)
    return text


def _redact_parameters(text: str) -> str:
    kept, position = [], 0
    for match in _PARAMETER.finditer(text):
        if match.start() < position or unquote_plus(match[1]).lower() not in _SECRET_NAMES:
            continue
        kept += [text[position : match.end()], _REDACTED]
        position = _VALUE.match(text, match.end()).end()  # type: ignore[union-attr]  # matches at least nothing
    return "".join([*kept, text[position:]])


class Lines(logging.Formatter):
    """Formats events, and the records of the standard library's logging."""

    def __init__(self, format: str, worker: int | None = None) -> None:
        super().__init__()
        self._is_json = format == "json"
        self._event = self._json_event if self._is_json else _text_event
        self._worker = worker

    def line(self, entry: Entry) -> str:
        if isinstance(entry, str):
            return entry
        if self._worker is None:
            return self._event(*entry)
        created, level, name, fields = entry
        return self._event(created, level, name, {**fields, "worker": self._worker})

    def format(self, record: logging.LogRecord) -> str:
        traceback = redact(self.formatException(record.exc_info)) if record.exc_info else ""
        if self._is_json:
            line: dict[str, object] = {"logger": record.name, "message": record.getMessage()}
            if traceback:
                line["exception"] = traceback
            if self._worker is not None:
                line["worker"] = self._worker
            return _json_line(record.created, record.levelname, line)
        worker = "" if self._worker is None else f" worker={self._worker}"
        lines = [f"{_timestamp(record.created)} {record.levelname} {record.name}: {_message(record)}{worker}"]
        # Indented, so that no line of a traceback looks like an event
        lines += [f"    {escaped(line)}" for line in traceback.splitlines()]
        return "\n".join(lines)

    def _json_event(self, created: float, level: int, name: str, fields: Fields) -> str:
        fields = {key: value for key, value in fields.items() if value is not None and key not in _OWN_FIELDS}
        return _json_line(created, logging.getLevelName(level), {"event": str(name), **fields})


_OWN_FIELDS = ("time", "level", "event")


def _text_event(created: float, level: int, name: str, fields: Fields) -> str:
    text = f"{_timestamp(created)} {logging.getLevelName(level)} {name}"
    for key, value in fields.items():
        if value is not None:
            text += f" {key}={_text_value(value)}"
    return text


def _message(record: logging.LogRecord) -> str:
    return escaped(redact(record.getMessage()))


def _json_line(created: float, level: str, fields: Fields) -> str:
    line = {"time": _timestamp(created), "level": level, **fields}
    return json.dumps({name: _json_value(value) for name, value in line.items()}, separators=(",", ":"))


_last = -1, ""  # the millisecond that was formatted last, and its text


def _timestamp(seconds: float) -> str:
    global _last
    millisecond = int(seconds * 1000)
    last, text = _last
    if millisecond != last:
        if millisecond // 1000 != last // 1000:
            text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(millisecond // 1000))
        text = f"{text[:20]}{millisecond % 1000:03d}Z"
        _last = millisecond, text
    return text


def _text_value(value: object) -> str:
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]  # nearly always there is one channel
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        return "true" if value else "false"
    elif isinstance(value, _NUMBER):
        return str(round(value, 3))
    elif isinstance(value, _MANY):
        text = ",".join(map(str, value))
    else:
        text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    text = redact(text)
    return text if _BARE.fullmatch(text) else f'"{escaped(text, quote=True)}"'


_NUMBER = (int, float)
_MANY = (tuple, list, set, frozenset)


def _json_value(value: object) -> Any:
    if isinstance(value, _MANY):
        return [_json_value(item) for item in value]
    return value if isinstance(value, bool | int | float) else redact(str(value))


def escaped(text: str, quote: bool = False) -> str:
    """Escapes all unprintable characters, as JSON does (line ends, terminal codes, text direction)."""
    if text.isprintable() and not quote:
        return text
    inner = json.dumps(text, ensure_ascii=not text.isprintable())[1:-1]
    return inner if quote else inner.replace('\\"', '"')
