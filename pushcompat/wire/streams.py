"""The encodings of streams. Each is created once, so that all connections share its bytes."""

from __future__ import annotations

from . import eventsource, websocket
from .encoding import EVENTSOURCE, StreamEncoding

_ENCODINGS: dict[tuple[str, str, str, float | None, bool], StreamEncoding] = {}


def stream_encoding(
    transport: str, text_format: str, version: str, heartbeat_s: float | None = None, controls: bool = True
) -> StreamEncoding:
    """``version`` is the request's HTTP version, ``1.0`` or ``1.1``. ``heartbeat_s``: a whole number, so that there are
    few encodings. ``controls``: event streams have control events.
    """
    key = transport, text_format, version, heartbeat_s, controls
    encoding = _ENCODINGS.get(key)
    if encoding is None:
        encoding = _ENCODINGS[key] = _make(*key)
    return encoding


def _make(transport: str, text_format: str, version: str, heartbeat_s: float | None, controls: bool) -> StreamEncoding:
    if transport != EVENTSOURCE:
        frames = websocket.JsonFrames if text_format == "json" else websocket.TextFrames
        return frames(heartbeat_s)
    kind = eventsource.JsonEvents if text_format == "json" else eventsource.TextEvents
    events = kind(heartbeat_s, controls)
    return events if version == "1.0" else eventsource.Chunked(events)  # HTTP/1.0 has no chunks
