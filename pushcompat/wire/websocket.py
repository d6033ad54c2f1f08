"""WebSocket (RFC 6455): the handshake, our frames, and what a client sends.

What we send is one kind of frame, an unmasked final text frame, and is made here because it is made once for thousands.
What a client sends, and everything about closing, is left to the sans-IO protocol of the ``websockets`` library.

Clients rarely send, and a protocol object per connection would cost more than everything else about it. So input that
is exactly whole, unfragmented frames goes through an ``Input`` that is thrown away; anything else goes through one that
stays until it is ``quiet``. Both read alike. What most clients send is pongs only, and these need no reading.
"""

from __future__ import annotations

import codecs
import logging
import re
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha1

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import SERVER, Protocol, State

from ..errors import BadRequest, UnknownVersion
from ..message import Message
from . import envelope
from .encoding import WEBSOCKET
from .request import Request

PING = b"\x89\x00"
_NONCE = re.compile(rb"[A-Za-z0-9+/]{22}==")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3

_logger = logging.getLogger("pushcompat.websocket")
_logger.setLevel(logging.CRITICAL)  # a client's protocol errors are answered, not logged
_utf8 = codecs.getincrementaldecoder("utf-8")
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


def handshake(request: Request) -> bytes:
    """The 101 that accepts the request. Raises BadRequest, UnknownVersion."""
    key = request.websocket_key
    if request.method != "GET" or request.fields.version != "1.1":
        raise BadRequest("a WebSocket handshake is a GET over HTTP/1.1")
    if request.fields.headers.get(b"sec-websocket-version") != b"13":
        raise UnknownVersion("a WebSocket handshake says Sec-WebSocket-Version: 13")
    if not _NONCE.fullmatch(key):
        raise BadRequest("a WebSocket handshake has a Sec-WebSocket-Key of 16 bytes in base64")
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % b64encode(sha1(key + _GUID).digest())
    )


def text_frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 0x10000:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)


class JsonFrames:
    transport = WEBSOCKET
    once = False
    keep_alive = False
    reads_input = True
    pings_early = False
    end = b""  # a Close, which ``Input`` makes

    def head(self, request: Request, extra: bytes) -> bytes:
        return handshake(request)

    def opening(self, cursor: str, heartbeat_s: float, lifetime_s: float | None, retry_ms: int) -> bytes:
        return _opened(cursor, heartbeat_s, lifetime_s)

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        return b"".join([text_frame(envelope.envelope(m, epoch)) for m in messages])

    def ping(self, cursor: str) -> bytes:
        return _ping(cursor)

    def reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None) -> bytes:
        return text_frame(envelope.reset(cursor, channels, spread_ms))

    def rotate(self, cursor: str, retry_ms: int) -> bytes:
        return text_frame(envelope.rotate(cursor, retry_ms))


@lru_cache(64)  # in a storm of reconnections nearly everybody stands at the same place
def _opened(cursor: str, heartbeat_s: float, lifetime_s: float | None) -> bytes:
    return text_frame(envelope.opened(cursor, heartbeat_s, lifetime_s))


@lru_cache(64)
def _ping(cursor: str) -> bytes:
    return PING + text_frame(envelope.ping(cursor))


class TextFrames:
    """Payloads as they were published, and nothing else: what the 2009 client understands."""

    transport = WEBSOCKET
    once = False
    keep_alive = False
    reads_input = True
    pings_early = False
    end = b""  # a Close, which ``Input`` makes

    def head(self, request: Request, extra: bytes) -> bytes:
        return handshake(request)

    def opening(self, cursor: str, heartbeat_s: float, lifetime_s: float | None, retry_ms: int) -> bytes:
        return b""

    def messages(self, messages: Sequence[Message], epoch: str, head: int) -> bytes:
        return b"".join([text_frame(m.data) for m in messages])

    def ping(self, cursor: str) -> bytes:
        return PING

    def reset(self, cursor: str, channels: Sequence[str], spread_ms: int | None) -> bytes:
        return text_frame(b"UPDATED")

    def rotate(self, cursor: str, retry_ms: int) -> bytes:
        return b""


class Input:
    """Reads what one client sends: data in; frames, and the bytes to answer with, out.

    A text message must be UTF-8 (§8.1), which the library leaves to its caller; a message that is not fails the
    connection with 1007, at the first frame that makes it certain.
    """

    __slots__ = ("_decoder", "_fragmented", "_protocol", "_unread")

    def __init__(self, max_bytes: int) -> None:
        self._protocol = Protocol(SERVER, max_size=max_bytes, logger=_logger)
        self._decoder: codecs.IncrementalDecoder | None = None  # of the text message that is under way
        self._fragmented = False  # a message is under way
        self._unread = 0  # bytes that have not become a frame yet

    def receive(self, data: bytes) -> list[Frame]:
        """The data frames in ``data``, checked. Control frames are answered by themselves; see ``replies``."""
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
                break  # §7.1.7: what comes behind a failure is not read
            self._fragmented = not frame.fin
            received.append(frame)
        return received

    def close(self, code: int, reason: str = "") -> None:
        """Starts the closing handshake, unless it has started."""
        if not self.closing:
            self._protocol.send_close(code, reason)

    def replies(self) -> bytes:
        """What there is to send: pongs, and our half of a closing handshake."""
        return b"".join(self._protocol.data_to_send())

    @property
    def closing(self) -> bool:
        return self._protocol.state > State.OPEN

    @property
    def finished(self) -> bool:
        """Both halves of the closing handshake are done, or the client broke the protocol: end the connection."""
        return self._protocol.eof_sent

    @property
    def quiet(self) -> bool:
        """Nothing is under way: no part of a frame, no fragmented message, no closing handshake."""
        return not (self._unread or self._fragmented or self.closing)

    @property
    def close_code(self) -> int | None:
        """The code that the client closed with, or the one that its breach of the protocol earned it."""
        protocol = self._protocol
        if protocol.close_rcvd is not None:
            return protocol.close_rcvd.code
        return None if protocol.close_sent is None else protocol.close_sent.code

    def _is_text_so_far(self, frame: Frame) -> bool:
        """Whether the message that the frame belongs to may still be what it says it is."""
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
    """The least that a client's frame with so much payload takes. (One whose size is written longer than it need be
    leaves a remainder, and ``Input`` is never quiet again, which is safe.)"""
    return size + (6 if size < 126 else 8 if size < 0x10000 else 14)


def is_pong(data: bytes) -> bool:
    """Whether ``data`` is exactly what a client answers our PING with."""
    return len(data) == 6 and data.startswith(b"\x8a\x80")


def is_whole_frames(data: bytes) -> bool:
    """Whether ``data`` is exactly one or more whole, unfragmented, masked frames."""
    at, end = 0, len(data)
    while at < end:
        if end - at < 6 or data[at] & 0x80 == 0 or data[at] & 0x0F == 0:
            return False
        size, header = data[at + 1] & 0x7F, 6
        if size == 126:
            size, header = int.from_bytes(data[at + 2 : at + 4], "big"), 8
        elif size == 127:
            size, header = int.from_bytes(data[at + 2 : at + 10], "big"), 14
        at += header + size
    return at == end
