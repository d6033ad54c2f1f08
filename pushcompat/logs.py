"""Log lines on stderr, one per event, for people (text) or for machines (json).

    2026-11-23T12:00:00.123Z INFO subscribe channels=a,b transport=websocket client=k3x
    {"time":"2026-11-23T12:00:00.123Z","level":"INFO","event":"subscribe","channels":["a","b"],…}

What a client sent can neither start a line of its own nor move a terminal's cursor: whatever is not printable is
escaped. Tokens and keys are taken out of everything that looks like a query, a header or a credential, here and not
where the line is made, so that nobody can forget it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO
from urllib.parse import unquote_plus

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

log = logging.getLogger("pushcompat")

_SECRET_NAMES = frozenset({"token", "access_token", "id_token", "publish_key", "publish-key", "authorization"})
# Each starts at a boundary and never backtracks: a client may send 16 KiB of anything
_PARAMETER = re.compile(r"""(?<![^\s?&;=#"'])([^\s?&;=#"']++)=""")
_VALUE = re.compile(r"[^\s&#]*")
_CREDENTIAL = re.compile(
    r"\b(authorization\W{1,4}(?:bearer\s+|basic\s+)?|bearer\s+|basic\s+)[\w.~+/=-]+", re.IGNORECASE
)
_REDACTED = "[redacted]"
_BARE = re.compile(r"[!#-<>-\[\]-~]+")  # needs no quotes: printable ASCII without space, quote, = and backslash


def configure(format: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Sends this process's log to stderr: our own events from ``level`` on, and warnings of the libraries we use."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines(format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
    log.setLevel(level.upper())
    logging.raiseExceptions = False  # a closed stderr must not become an error of its own on every line


def event(name: str, /, level: int = logging.INFO, **fields: object) -> None:
    """Logs one event. Fields that are None are left out. Where making the fields costs, ask ``enabled`` first."""
    if not log.isEnabledFor(level):
        return
    # Not log.log(): finding the caller's file and line costs as much as the rest, and nobody prints it
    record = logging.LogRecord(log.name, level, "", 0, name, (), None)
    record.fields = {key: value for key, value in fields.items() if value is not None}
    log.handle(record)


def enabled(level: int = logging.INFO) -> bool:
    return log.isEnabledFor(level)


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
    def __init__(self, format: str) -> None:
        super().__init__()
        self._write: Callable[[logging.LogRecord], str] = {"text": self._text, "json": self._json}[format]

    def format(self, record: logging.LogRecord) -> str:
        return self._write(record)

    def _text(self, record: logging.LogRecord) -> str:
        head = f"{_timestamp(record.created)} {record.levelname} "
        fields = getattr(record, "fields", None)
        if fields is not None:
            return " ".join([head + record.msg, *(f"{name}={_text_value(value)}" for name, value in fields.items())])
        lines = [head + f"{record.name}: {escaped(redact(record.getMessage()))}"]
        # Indented, so that no line of a traceback can pass for an event
        lines += [f"    {escaped(line)}" for line in self._traceback(record).splitlines()]
        return "\n".join(lines)

    def _json(self, record: logging.LogRecord) -> str:
        line = {"time": _timestamp(record.created), "level": record.levelname}
        fields = getattr(record, "fields", None)
        if fields is not None:
            line = {**fields, **line, "event": record.msg}
            line = {name: line[name] for name in ("time", "level", "event", *fields)}
        else:
            line |= {"logger": record.name, "message": record.getMessage()}
        if traceback := self._traceback(record):
            line["exception"] = traceback
        return json.dumps({name: _json_value(value) for name, value in line.items()}, separators=(",", ":"))

    def _traceback(self, record: logging.LogRecord) -> str:
        return redact(self.formatException(record.exc_info)) if record.exc_info else ""


def _timestamp(seconds: float) -> str:
    milliseconds = int(seconds * 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(milliseconds // 1000))}.{milliseconds % 1000:03d}Z"


def _text_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(round(value, 3))
    text = redact(",".join(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else str(value))
    return text if _BARE.fullmatch(text) else f'"{escaped(text, quote=True)}"'


def _json_value(value: object) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return [_json_value(item) for item in value]
    return value if isinstance(value, bool | int | float) else redact(str(value))


def escaped(text: str, quote: bool = False) -> str:
    """Escapes as JSON does, every sign that is not printable (line ends, terminal codes, text direction)."""
    if text.isprintable() and not quote:
        return text
    inner = json.dumps(text, ensure_ascii=not text.isprintable())[1:-1]
    return inner if quote else inner.replace('\\"', '"')
