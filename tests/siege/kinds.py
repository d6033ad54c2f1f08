"""The kinds of hostile clients. Bytes only: what each sends when it has connected, and then again and again.

None of them speaks as a client should; each aims at something that the server keeps or does for a connection.
"""

from __future__ import annotations

import itertools
import re
import ssl
import struct
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ..harness import client_frame

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST

_CURSOR = re.compile(rb'"cursor":"([0-9a-z]+-[0-9]+)"')
_UNIQUE = itertools.count()
_UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_PINGS = client_frame(0x89, b"p" * 125) * 5
_FRAME = client_frame(0x81, b"f" * 60_000)[:1000]  # the beginning of one


def _nothing(_token: str, _received: bytes) -> bytes:
    return b""


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


_HELLO = _client_hello()


@dataclass(frozen=True)
class Kind:
    """``first(token)`` is sent at once, ``again(token, received)`` from then on, every ``pauses`` pauses. ``reads``:
    whether it reads, and what it has read since the last time is given to ``again``. ``cuts``: it resets the connection
    instead. ``token``: one of no key that the server has.
    """

    first: Callable[[str], bytes]
    again: Callable[[str, bytes], bytes] = _nothing
    pauses: float = 1.0
    reads: bool = False
    cuts: bool = False


def _get(target: str, more: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: siege\r\n{more}\r\n".encode()


def _never_reading(_token: str) -> bytes:
    return _get("/channels/flood?transport=eventsource&cursor=earliest")


def _drip(_token: str) -> bytes:
    return b"GET /channels/flood HTTP/1.1\r\nHost: siege\r\nX: "


def _websocket(_token: str) -> bytes:
    return _get("/channels/flood?transport=websocket", _UPGRADE)


def _endless_body(_token: str) -> bytes:
    return (
        b"POST /hooks/siege HTTP/1.1\r\nHost: siege\r\nX-GitHub-Event: push\r\nX-Hub-Signature-256: sha256=%b\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" % (b"0" * 64)
    )


def _unverified_body(_token: str) -> bytes:
    """A publish whose signature can be checked only at the end of its body."""
    return (
        b"POST /channels/flood HTTP/1.1\r\nHost: siege\r\nwebhook-id: x\r\nwebhook-timestamp: 1\r\n"
        b"webhook-signature: v1,x\r\nContent-Length: 60000\r\n\r\n"
    )


def _poll(_token: str, received: bytes = b"") -> bytes:
    found = _CURSOR.findall(received)
    return _get(f"/channels/flood?wait=0&cursor={found[-1].decode() if found else 'earliest'}")


def _wrong_token(token: str, _received: bytes = b"") -> bytes:
    """Each is another one, so none is remembered, and as expensive to verify as a valid one."""
    head, _, signature = token.split(".")
    claims = b64encode(f'{{"sub":"{next(_UNIQUE)}","exp":4102444800}}'.encode()).decode().rstrip("=")
    return _get(f"/channels/member.1?wait=0&cursor=earliest&token={head}.{claims}.{signature}")


def _hoard(_token: str) -> bytes:
    number = next(_UNIQUE)
    names = ",".join(f"hoard-{number}-{index}" for index in range(64))
    return _get(f"/channels/{names}?transport=eventsource")


def _pipelined(_token: str, _received: bytes = b"") -> bytes:
    return _get("/channels/quiet?wait=25&cursor=earliest") * 10


KINDS: dict[str, Kind] = {
    "silent": Kind(lambda token: b""),
    "never reading": Kind(_never_reading),
    "dripping heads": Kind(_drip, lambda token, received: b"x"),
    "endless bodies": Kind(_endless_body, lambda token, received: b"400\r\n" + b"b" * 0x400 + b"\r\n"),
    "unverified bodies": Kind(_unverified_body, lambda token, received: b"b" * 1024),
    "pinging": Kind(_websocket, lambda token, received: _PINGS),
    "endless messages": Kind(lambda token: _websocket(token) + _FRAME, lambda token, received: b"f" * 1000),
    "re-polling": Kind(_poll, _poll, 0.5, reads=True),
    "wrong tokens": Kind(_wrong_token, _wrong_token, reads=True),
    "half a TLS handshake": Kind(lambda token: _HELLO[:100]),
    "hoarding channels": Kind(_hoard, reads=True),
    "coming and going": Kind(_websocket, pauses=2, cuts=True),
    "pipelining": Kind(_pipelined, _pipelined),
}

# None of them has a finished TLS handshake: a client that has one is like those above.
TLS_KINDS: dict[str, Kind] = {
    "silent": KINDS["silent"],
    "half a ClientHello": Kind(lambda token: _HELLO[:100]),
    "a dripping ClientHello": Kind(lambda token: _HELLO[:100], lambda token, received: b"\0"),
    "half a handshake": Kind(lambda token: _HELLO),
    "half a handshake, cut": Kind(lambda token: _HELLO, cuts=True),
    "HTTP without TLS": Kind(_never_reading),
}
