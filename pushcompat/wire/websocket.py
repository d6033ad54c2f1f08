"""WebSocket (RFC 6455): the handshake, our frames, and client frames.

We only send final unmasked text frames, and encode them here, once for all subscribers. Parsing of client
frames, and the closing handshake, are left to the sans-I/O protocol of the ``websockets`` library.

Clients rarely send, and a protocol object per connection would need more memory than the rest of the connection. So an
``Input`` is created when bytes arrive, and discarded as soon as it is ``quiet``. Most clients send only pongs:
``is_pong``.

Messages from clients have no meaning. Small frames, of which a kilobyte can hold the most, are skipped before the
library sees them, and only the latest ping is answered, as §5.5.3 allows: a kilobyte of them costs 5 to 60 µs instead
of 350 µs in the library.
"""

from __future__ import annotations

import codecs
import logging
import re
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha1

from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol, State

from ..errors import BadRequest, CloseCode
from ..message import Message
from . import envelope
from .damage import HTTP_VERSION, INVALID_KEY, NO_KEY, REPEATED_KEY, VERSION, damaged
from .encoding import WEBSOCKET
from .request import Request

PING = b"\x89\x00"
_NONCE = re.compile(rb"[A-Za-z0-9+/]{22}==")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3

_logger = logging.getLogger("pushcompat.websocket")
_logger.setLevel(logging.CRITICAL)  # a client's protocol errors are answered, not logged
_utf8 = codecs.getincrementaldecoder("utf-8")
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

# First bytes (FIN and opcode) of frames that may be skipped. Within a fragmented message only control frames may.
_TEXT, _PING, _PONG = 0x81, 0x89, 0x8A
_SKIPPED = frozenset((_TEXT, 0x82, _PING, _PONG))
_SKIPPED_BETWEEN_FRAGMENTS = frozenset((_PING, _PONG))
_SMALL_BYTES = 125  # the longest payload whose length is in the second byte (§5.2)
_EMPTY_CONTROLS = re.compile(rb"(?:[\x89\x8a]\x80.{4})+", re.DOTALL)


def handshake(request: Request) -> bytes:
    """The 101 that accepts the request. Raises BadRequest, UpgradeRequired."""
    key = request.websocket_key
    if request.method != "GET":
        raise BadRequest("a WebSocket handshake must be a GET request")
    if request.fields.version != "1.1":
        raise damaged(HTTP_VERSION)
    if request.fields.headers.get(b"sec-websocket-version") != b"13":
        raise damaged(VERSION)
    if not _NONCE.fullmatch(key):
        raise damaged(REPEATED_KEY if b"," in key else INVALID_KEY if key else NO_KEY)
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % b64encode(sha1(key + _GUID).digest())
    )


def pong_frame(payload: bytes) -> bytes:
    return b"\x8a%c%b" % (len(payload), payload)


def text_frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 0x10000:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)


class JsonFrames:
    transport = WEBSOCKET
    single_response = False
    keep_alive = False
    reads_input = True
    pings_early = False
    end = b""  # a Close, which ``Input`` makes

    def __init__(self, heartbeat_s: float | None = None) -> None:
        self.heartbeat_s = heartbeat_s

    def head(self, request: Request, extra: bytes) -> bytes:
        return handshake(request)

    def open(self, cursor: str, heartbeat_s: float, lifetime_s: float | None, retry_ms: int) -> bytes:
        return _opened(cursor, heartbeat_s, lifetime_s)

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        return b"".join([text_frame(envelope.envelope(m, epoch)) for m in messages])

    def ping(self, cursor: str) -> bytes:
        return _ping(cursor)

    def reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None, retry_ms: int | None = None) -> bytes:
        return text_frame(envelope.reset(cursor, channels, spread_ms))

    def rotate(self, cursor: str, retry_ms: int) -> bytes:
        return text_frame(envelope.rotate(cursor, retry_ms))

    def expired(self, cursor: str) -> bytes:
        return text_frame(envelope.expired(cursor))


@lru_cache(64)  # in a storm of reconnections most clients have the same position
def _opened(cursor: str, heartbeat_s: float, lifetime_s: float | None) -> bytes:
    return text_frame(envelope.opened(cursor, heartbeat_s, lifetime_s))


@lru_cache(64)
def _ping(cursor: str) -> bytes:
    return PING + text_frame(envelope.ping(cursor))


class TextFrames:
    """Payloads as published, and nothing else: for the client of 2009."""

    transport = WEBSOCKET
    single_response = False
    keep_alive = False
    reads_input = True
    pings_early = False
    end = b""  # a Close, which ``Input`` makes

    def __init__(self, heartbeat_s: float | None = None) -> None:
        self.heartbeat_s = heartbeat_s

    def head(self, request: Request, extra: bytes) -> bytes:
        return handshake(request)

    def open(self, cursor: str, heartbeat_s: float, lifetime_s: float | None, retry_ms: int) -> bytes:
        return b""

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        return b"".join([text_frame(m.data) for m in messages])

    def ping(self, cursor: str) -> bytes:
        return PING

    def reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None, retry_ms: int | None = None) -> bytes:
        return text_frame(b"UPDATED")

    def rotate(self, cursor: str, retry_ms: int) -> bytes:
        return b""

    def expired(self, cursor: str) -> bytes:
        return b""


class _Protocol(Protocol):
    cur_size: int | None  # what ``current_size`` was called before websockets 16

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            # §5.4: control frames may come between fragments. The library treats a Close there as a protocol error.
            self.current_size = self.cur_size = None
        super().recv_frame(frame)


class Input:
    """Parses one client's input: data in, bytes to reply with out.

    A text message must be UTF-8 (§8.1), which the library leaves to its caller; invalid UTF-8 fails the connection with
    1007 as early as possible.
    """

    __slots__ = ("_decoder", "_fragmented", "_pong", "_protocol", "_rest", "_small_bytes", "_unread")

    def __init__(self, max_bytes: int) -> None:
        self._protocol = _Protocol(SERVER, max_size=max_bytes, logger=_logger)
        self._small_bytes = min(_SMALL_BYTES, max_bytes)
        self._rest = b""  # an incomplete small frame
        self._pong = b""
        self._decoder: codecs.IncrementalDecoder | None = None  # of the incomplete text message
        self._fragmented = False  # within a fragmented message
        self._unread = 0  # bytes of an incomplete frame in the library

    def receive(self, data: bytes) -> None:
        """Takes bytes of the client; ``replies`` returns the bytes to reply with."""
        if not self._unread and not self.closing:
            data = self._skip(self._rest + data)
        if data:
            self.read(data)

    def _skip(self, data: bytes) -> bytes:
        """Drops small frames without meaning, and returns the bytes for the library."""
        self._rest = b""
        kinds = _SKIPPED_BETWEEN_FRAGMENTS if self._fragmented else _SKIPPED
        at, end, ping = 0, len(data), -1
        while at < end:
            first = data[at]
            if first not in kinds:
                break
            size = data[at + 1] - 0x80 if at + 1 < end else 0  # below 0: not masked
            if not 0 <= size <= self._small_bytes:
                break
            stop = at + 6 + size
            if stop > end:
                self._rest, at = data[at:], end
                break
            if first == _TEXT:
                if size and not _is_utf8(_payload(data, at)):
                    break
            elif size == 0 and (empty := _EMPTY_CONTROLS.match(data, at)):
                stop = empty.end()
                latest = data[at:stop:6].rfind(_PING)
                ping = ping if latest < 0 else at + 6 * latest
            elif first == _PING:
                ping = at
            at = stop
        if ping >= 0:
            self._pong = pong_frame(_payload(data, ping))
        return data[at:]

    def read(self, data: bytes) -> list[Frame]:
        """Like ``receive``, but skips nothing; returns the data frames in ``data``, checked."""
        self._protocol.receive_data(data)
        self._unread += len(data)
        received = []
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame)
            self._unread -= _frame_bytes(len(frame.data))
            if frame.opcode not in _DATA:
                continue
            if not self._is_text_so_far(frame):
                self._protocol.fail(CloseCode.INVALID_DATA, "text must be UTF-8")
                break  # §7.1.7: input after a failure is not read
            self._fragmented = not frame.fin
            received.append(frame)
        return received

    def close(self, code: int, reason: str = "") -> None:
        """Starts the closing handshake, unless it has started."""
        if not self.closing:
            self._protocol.send_close(code, reason)

    def replies(self) -> bytes:
        """The bytes to send: the latest pong, and our half of a closing handshake."""
        pong, self._pong = self._pong, b""
        return b"".join([pong, *self._protocol.data_to_send()])

    @property
    def closing(self) -> bool:
        return self._protocol.state > State.OPEN

    @property
    def finished(self) -> bool:
        """Both halves of the closing handshake are done, or the client broke the protocol: end the connection."""
        return self._protocol.eof_sent

    @property
    def quiet(self) -> bool:
        """No incomplete frame, no fragmented message, no closing handshake."""
        return not (self._rest or self._unread or self._fragmented or self.closing)

    @property
    def close_code(self) -> int | None:
        """The close code received, or sent after a protocol error."""
        protocol = self._protocol
        if protocol.close_rcvd is not None:
            return protocol.close_rcvd.code
        return None if protocol.close_sent is None else protocol.close_sent.code

    def _is_text_so_far(self, frame: Frame) -> bool:
        """Whether the frame's message is still valid UTF-8, if it is a text message."""
        if frame.opcode is Opcode.TEXT:
            self._decoder = _utf8()
        if self._decoder is None:
            return True
        try:
            self._decoder.decode(bytes(frame.data), final=frame.fin)
        except UnicodeDecodeError:
            return False
        if frame.fin:
            self._decoder = None
        return True


def _frame_bytes(size: int) -> int:
    """The minimum size of a masked frame with a payload of ``size``. (One whose size is written longer than necessary
    leaves a remainder, and ``Input`` is never quiet again, which is safe.)"""
    return size + (6 if size < 126 else 8 if size < 0x10000 else 14)


def _payload(data: bytes, at: int) -> bytes:
    """The payload of the small frame at ``at``, without its mask (§5.3)."""
    size = data[at + 1] & 0x7F
    start = at + 6
    mask = (data[at + 2 : start] * (size // 4 + 1))[:size]
    payload = int.from_bytes(data[start : start + size], "big") ^ int.from_bytes(mask, "big")
    return payload.to_bytes(size, "big")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_pong(data: bytes) -> bool:
    """Whether ``data`` is exactly what a client answers our PING with."""
    return len(data) == 6 and data.startswith(b"\x8a\x80")
