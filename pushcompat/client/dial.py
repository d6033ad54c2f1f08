"""HTTP connections from a client to a server, every wait of which is bounded. Standard library only.

``http.client`` bounds each single read, so a server that sends a byte now and then can hold its caller for ever. Here
every wait asks ``patience`` for the seconds that are left, which a deadline or a watchdog answers.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import json
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

CONNECT_S = 5.0  # per address: a host with a dead IPv6 route must leave time for its IPv4 one
_SCHEMES = {"http": False, "ws": False, "http+unix": False, "https": True, "wss": True}

Patience = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is: ``http(s)://host[:port][/prefix]``, or ``http+unix://%2Fpath%2Fto.sock[/prefix]``."""

    url: str
    secure: bool
    host: str
    port: int
    prefix: str
    socket_path: str | None

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Raises ValueError with a sentence."""
        try:
            parts = urlsplit(url)
            secure, port = _SCHEMES[parts.scheme], parts.port
        except (KeyError, ValueError):
            raise ValueError(f"{url!r} is not a server's URL; write it like http://127.0.0.1:8888") from None
        if not parts.hostname or parts.query or parts.fragment or not url.isascii() or not url.isprintable():
            raise ValueError(f"{url!r} is not a server's URL; write it like http://127.0.0.1:8888/prefix")
        if "@" in parts.netloc:
            raise ValueError("a server's URL has no user or password in it; the key goes apart")
        socket_path = unquote(parts.netloc) if parts.scheme == "http+unix" else None
        host = "localhost" if socket_path else parts.hostname
        port = port or (443 if secure else 80)
        return cls(url.rstrip("/"), secure, host, port, parts.path.rstrip("/"), socket_path)

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether it can only be this machine."""
        if self.socket_path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Connection(http.client.HTTPConnection):
    """An HTTP/1.1 connection to the endpoint. It follows no redirect and asks no proxy: neither may see the key."""

    def __init__(self, endpoint: Endpoint, patience: Patience) -> None:
        super().__init__(endpoint.host, endpoint.port)
        self.default_port = 443 if endpoint.secure else 80
        self.endpoint = endpoint
        self.patience = patience

    def connect(self) -> None:
        self.sock: Any = BoundedSocket(dial(self.endpoint, self.patience), self.patience)


class BoundedSocket:
    """As much of a socket as is needed, waiting no longer than ``patience`` allows. Raises TimeoutError."""

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self.sock = sock
        self.patience = patience
        self.close = sock.close

    def sendall(self, data: bytes) -> None:
        self.sock.settimeout(_left(self.patience))
        self.sock.sendall(data)

    def recv(self, size: int) -> bytes:
        self.sock.settimeout(_left(self.patience))
        return self.sock.recv(size)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_BoundedReader(self.sock, self.patience))


class _BoundedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open until the answer is read
        self._patience = patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._patience))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def dial(endpoint: Endpoint, patience: Patience) -> socket.socket:
    """A connected socket, encrypted where the endpoint says so. Raises OSError."""
    if endpoint.socket_path:
        sock = socket.socket(socket.AF_UNIX)
        return _connected(sock, endpoint.socket_path, patience)
    sock = _dial_any(endpoint, patience)
    if not endpoint.secure:
        return sock
    try:
        sock.settimeout(_left(patience))
        return _tls().wrap_socket(sock, server_hostname=endpoint.host)
    except BaseException:
        sock.close()
        raise


def _dial_any(endpoint: Endpoint, patience: Patience) -> socket.socket:
    failure = OSError(f"no address for {endpoint.host}")
    for family, kind, protocol, _, address in socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM):
        try:
            sock = _connected(socket.socket(family, kind, protocol), address, patience)
        except OSError as error:
            failure = error
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    raise failure


def _connected(sock: socket.socket, address: Any, patience: Patience) -> socket.socket:
    try:
        sock.settimeout(min(CONNECT_S, _left(patience)))
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _left(patience: Patience) -> float:
    seconds = patience()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


# What an answer says


def problem_detail(status: int, body: bytes) -> str:
    """What an error answer says (RFC 9457), or its status where it says nothing."""
    try:
        document = json.loads(body)
        return str(document.get("detail") or document["title"])
    except (ValueError, AttributeError, KeyError):
        return f"answered {status} {http.client.responses.get(status, '')}".strip()


def retry_after_s(text: str) -> float | None:
    """A Retry-After: seconds, or a date (RFC 9110 §10.2.3). None where it says nothing."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
