"""Long-poll: every response is one JSON document, ``{"cursor": …, "messages": […], "reset"?: […], "retry"?: ms}``.

The document includes its response head, so that both are sent with one ``send``. Heads depend on the Origin (CORS) and
on whether the connection stays open, so there is one encoding for each such pair: the encodings are few and shared.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..message import Message, format_cursor
from . import http
from .encoding import LONGPOLL
from .envelope import envelope


class PollEncoding:
    transport = LONGPOLL
    single_response = True
    reads_input = False
    end = b""

    def __init__(self, extra: bytes, keep_alive: bool) -> None:
        self.extra = extra
        self.keep_alive = keep_alive

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        return self._answer(format_cursor(epoch, head), messages=b",".join([envelope(m, epoch) for m in messages]))

    def ping(self, cursor: str) -> bytes:
        return self._answer(cursor)

    def reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None, retry_ms: int | None = None) -> bytes:
        more = b',"reset":' + msgspec.json.encode(channels)
        if spread_ms is not None:
            more += b',"spread":%d' % spread_ms
        if retry_ms is not None:
            more += b',"retry":%d' % retry_ms
        return self._answer(cursor, more=more)

    def rotate(self, cursor: str, retry_ms: int) -> bytes:
        return self._answer(cursor, more=b',"retry":%d' % retry_ms)

    def _answer(self, cursor: str, *, messages: bytes = b"", more: bytes = b"") -> bytes:
        body = b'{"cursor":"%b","messages":[%b]%b}\n' % (cursor.encode(), messages, more)
        return http.document(body, keep_alive=self.keep_alive, extra=self.extra)
