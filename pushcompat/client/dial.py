"""HTTP connections from a client to a server, with a deadline for every operation. Standard library only.

``http.client`` has a timeout for each single read, so a server that sends a byte now and then can block its caller
forever. Here every blocking call uses ``remaining_s()`` as its timeout, which comes from a deadline or a watchdog.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

from .responses import Response

CONNECT_S = 5.0  # per address: a host with a dead IPv6 route must leave time for its IPv4 one
MAX_WAIT_S = 86_400.0  # sockets and time.sleep raise OverflowError for values that are too large
_VISIBLE = r"[!-~]+"  # ASCII without spaces
_SCHEMES = {"http": False, "ws": False, "http+unix": False, "https": True, "wss": True}

Remaining = Callable[[], float]


class ConnectTimeout(TimeoutError):
    """No connection was established in time."""


class Endpoint:
    """The address of a server: ``http(s)://host[:port][/prefix]``, or ``http+unix://%2Fpath%2Fto.sock[/prefix]``."""

    def __init__(
        self,
        url: str,
        secure: bool,
        host: str,
        port: int,
        prefix: str,
        socket_path: str | None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url
        self.secure = secure
        self.host = host
        self.port = port
        self.prefix = prefix
        self.socket_path = socket_path
        self.ssl_context = ssl_context  # None: the default one

    @classmethod
    def parse(cls, url: str, ssl_context: ssl.SSLContext | None = None) -> Endpoint:
        """Raises ValueError with a message for the user."""
        try:
            parts = urlsplit(url)
            secure, port = _SCHEMES[parts.scheme], parts.port
            socket_path = unquote(parts.netloc) if parts.scheme == "http+unix" else None
            host = "localhost" if socket_path else parts.hostname or ""
            host.encode("idna")  # raises for labels that are empty or too long, as the look-up later would
        except (KeyError, ValueError):
            raise ValueError(f"{url!r} is not a valid server URL; example: http://127.0.0.1:8888") from None
        if not host or parts.query or parts.fragment or not re.fullmatch(_VISIBLE, url) or "\0" in (socket_path or ""):
            raise ValueError(f"{url!r} is not a valid server URL; example: http://127.0.0.1:8888/prefix")
        if "@" in parts.netloc:
            raise ValueError("the server URL must not contain credentials; pass the key separately")
        port = port or (443 if secure else 80)
        return cls(url.rstrip("/"), secure, host, port, parts.path.rstrip("/"), socket_path, ssl_context)

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether the address is certainly on this machine."""
        if self.socket_path or self.host == "localhost":
            return True
        import ipaddress  # 3 ms, and most publishers have a key

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Connection(http.client.HTTPConnection):
    """An HTTP/1.1 connection to the endpoint. It follows no redirects and uses no proxy: neither may get the key."""

    response_class = Response

    def __init__(self, endpoint: Endpoint, remaining_s: Remaining) -> None:
        super().__init__(endpoint.host, endpoint.port)
        self.default_port = 443 if endpoint.secure else 80
        self.endpoint = endpoint
        self.remaining_s = remaining_s

    def connect(self) -> None:
        self.sock: Any = BoundedSocket(dial(self.endpoint, self.remaining_s), self.remaining_s)


class BoundedSocket:
    """The necessary part of a socket, with ``remaining_s()`` as the timeout of each call. Raises TimeoutError."""

    def __init__(self, sock: socket.socket, remaining_s: Remaining) -> None:
        self.sock = sock
        self.remaining_s = remaining_s
        self.close = sock.close

    def sendall(self, data: bytes) -> None:
        self.sock.settimeout(_left(self.remaining_s))
        self.sock.sendall(data)

    def recv(self, size: int) -> bytes:
        self.sock.settimeout(_left(self.remaining_s))
        return self.sock.recv(size)

    def makefile(self, mode: str, begun: bytes = b"") -> io.BufferedReader:
        """``begun``: bytes that were received before, and are read first."""
        return io.BufferedReader(_BoundedReader(self.sock, self.remaining_s, begun))


class _BoundedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, remaining_s: Remaining, begun: bytes) -> None:
        self._sock = sock
        self._begun = memoryview(begun)
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open until the response is read
        self._remaining_s = remaining_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._begun:
            size = min(len(buffer), len(self._begun))
            buffer[:size] = self._begun[:size]
            self._begun = self._begun[size:]
            return size
        self._sock.settimeout(_left(self._remaining_s))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def dial(endpoint: Endpoint, remaining_s: Remaining) -> socket.socket:
    """A connected socket, encrypted if the endpoint is. Raises OSError."""
    if endpoint.socket_path:
        sock = socket.socket(socket.AF_UNIX)
        return _connected(sock, endpoint.socket_path, remaining_s)
    sock = _dial_any(endpoint, remaining_s)
    if not endpoint.secure:
        return sock
    try:
        sock.settimeout(_left(remaining_s))
        return (endpoint.ssl_context or default_tls()).wrap_socket(sock, server_hostname=endpoint.host)
    except BaseException:
        sock.close()
        raise


def _dial_any(endpoint: Endpoint, remaining_s: Remaining) -> socket.socket:
    failure = OSError(f"no address for {endpoint.host}")
    for family, kind, protocol, _, address in socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM):
        try:
            sock = _connected(socket.socket(family, kind, protocol), address, remaining_s)
        except OSError as error:
            failure = error
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    raise failure


def _connected(sock: socket.socket, address: Any, remaining_s: Remaining) -> socket.socket:
    try:
        sock.settimeout(min(CONNECT_S, _left(remaining_s)))
        sock.connect(address)
    except TimeoutError:
        sock.close()
        raise ConnectTimeout("no connection in time") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _left(remaining_s: Remaining) -> float:
    seconds = remaining_s()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return min(seconds, MAX_WAIT_S)


@cache
def default_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
