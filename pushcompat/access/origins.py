"""Checks which origins may use this server, and creates their CORS header lines (Fetch §3.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import Forbidden
from ..wire.names import shown
from ..wire.request import Request
from .proxies import Proxies

ALLOW = "GET, HEAD, POST, OPTIONS"
_ALWAYS_ALLOWED = ("Authorization", "Cache-Control", "Content-Type", "Idempotency-Key", "Last-Event-ID")
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110 §5.1
_MAX_ASKED = 32

_EXPOSED = b"Access-Control-Expose-Headers: Retry-After\r\n"
_CREDENTIALS = b"Access-Control-Allow-Credentials: true\r\n"  # htmx 2 always sends requests with credentials
_ANY = b"Access-Control-Allow-Origin: *\r\n" + _EXPOSED
_OTHERS = b"Vary: Origin\r\n"
_OPAQUE = "null"
_UNNAMED = ("*", _OPAQUE)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_LOOPBACK = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")


class Origins:
    """``allowed``: origins as browsers send them, or ``*``. ``loopback``: only this machine can reach the server, so
    pages of this machine (a development server on another port) may use it too. ``proxies``: may have changed Host.
    """

    def __init__(self, allowed: Sequence[str], loopback: bool, proxies: Proxies | None = None) -> None:
        self._allowed = frozenset(allowed)
        self._any = "*" in allowed
        self._lists = bool(self._allowed - {"*"})  # so the response depends on the origin
        self._loopback = loopback
        self._proxies = proxies or Proxies()

    @property
    def open(self) -> bool:
        """Pages of other origins may use this server."""
        return bool(self._allowed) or self._loopback

    def check(self, request: Request) -> str:
        """Rejects pages of other origins: they could read what only this network may read. Raises Forbidden.

        Returns the page's origin if only ``names`` admits it, otherwise nothing.
        """
        if b"origin" not in request.fields.headers:
            return ""
        origin = request.header(b"origin")
        if not origin or is_same_origin(origin, request.host):
            return ""
        if self.names(origin):
            return origin
        is_own = self._is_own(request, origin)
        if is_own and request.proxied:
            return ""
        advice = f"start the server with --cors-origin {origin[:100]}"
        if is_own:
            advice += ", or name the proxy that has changed Host with --trusted-proxies"
        raise Forbidden(f"origin {shown(origin)} is not allowed; {advice}")

    def credentialed(self, request: Request) -> bool:
        """Whether what a browser adds to a request by itself counts, such as cookies: not if a page has sent it that is
        admitted because all are. CORS says so to browsers; to a WebSocket CORS does not apply.
        """
        if b"origin" not in request.fields.headers:
            return True
        origin = request.header(b"origin")
        if not origin or is_same_origin(origin, request.host) or self._is_listed(origin):
            return True
        return request.proxied and self._is_own(request, origin)

    def cors(self, request: Request) -> bytes:
        """The header lines that allow the page to read the response."""
        if b"origin" not in request.fields.headers:
            return _OTHERS if self._lists else b""
        return self.cors_of(request.header(b"origin")) if self.open else b""

    def cors_of(self, origin: str) -> bytes:
        """The same, for a page of this origin."""
        if self._is_listed(origin):
            line = b"Access-Control-Allow-Origin: %b\r\n" % origin.encode("latin-1")
            return line + _CREDENTIALS + _EXPOSED + _OTHERS
        if self._any:
            return _ANY + _OTHERS if self._lists else _ANY
        if origin == _OPAQUE and origin in self._allowed:
            return b"Access-Control-Allow-Origin: null\r\n" + _EXPOSED + _OTHERS
        return _OTHERS if self._lists else b""

    def _is_own(self, request: Request, origin: str) -> bool:
        """Whether the page is of this server, as the browser and the proxy say."""
        if request.header(b"sec-fetch-site") == "same-origin":
            return True
        return is_same_origin(origin, self._proxies.client(request.reports).host)

    def names(self, origin: str) -> bool:
        """Whether pages of this origin may use the server, wherever it is."""
        return self._any or origin in self._allowed or self._is_listed(origin)

    def _is_listed(self, origin: str) -> bool:
        """Whether this very origin is allowed. ``null`` is none: any page can have it, in a frame with ``sandbox``."""
        return (origin in self._allowed and origin not in _UNNAMED) or (
            self._loopback and _LOOPBACK.fullmatch(origin) is not None
        )


def may_read_credentialed(cors: bytes) -> bool:
    """Whether these header lines allow a page to read what was answered to its cookies."""
    return _CREDENTIALS in cors


def preflight(request: Request) -> list[tuple[str, str]]:
    """The header fields of the response to a preflight, besides the CORS lines. All requested header fields are
    allowed: some libraries send their own, which the server ignores.
    """
    asked = request.header(b"access-control-request-headers").split(",")[:_MAX_ASKED]
    names = {name.lower(): name for name in _ALWAYS_ALLOWED}
    for name in map(str.strip, asked):
        if _FIELD_NAME.fullmatch(name):
            names.setdefault(name.lower(), name)
    return [
        ("Access-Control-Allow-Methods", ALLOW),
        ("Access-Control-Allow-Headers", ", ".join(names.values())),
        ("Access-Control-Max-Age", "86400"),
    ]


def is_same_origin(origin: str, host: str) -> bool:
    """Whether the page is of the server that clients call ``host``, which may name the scheme's default port."""
    scheme, _, authority = origin.partition("://")
    return bool(authority) and authority == host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, " "))
