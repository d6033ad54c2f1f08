"""Which encoding a stream uses. Each is made once, so that all connections share what it encodes."""

from __future__ import annotations

from . import eventsource, websocket
from .encoding import EVENTSOURCE, WEBSOCKET, StreamEncoding

_ENCODINGS: dict[tuple[str, str], StreamEncoding] = {
    (WEBSOCKET, "json"): websocket.JsonFrames(),
    (WEBSOCKET, "text"): websocket.TextFrames(),
    (EVENTSOURCE, "json"): eventsource.Chunked(eventsource.JsonEvents()),
    (EVENTSOURCE, "text"): eventsource.Chunked(eventsource.TextEvents()),
}
_HTTP_1_0: dict[tuple[str, str], StreamEncoding] = {  # which has no chunks
    **_ENCODINGS,
    (EVENTSOURCE, "json"): eventsource.JsonEvents(),
    (EVENTSOURCE, "text"): eventsource.TextEvents(),
}


def stream_encoding(transport: str, text_format: str, version: str) -> StreamEncoding:
    """``version`` is the request's HTTP version, ``1.0`` or ``1.1``."""
    return (_HTTP_1_0 if version == "1.0" else _ENCODINGS)[transport, text_format]
