"""Who may do what: pure functions over a request. Each returns what it found out, or raises Refused.

The same functions serve a request that came in by the door and one that came back from Tornado.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence

from .errors import BadRequest, Forbidden, Unauthorized, UpgradeRequired
from .wire.encoding import EVENTSOURCE, LONGPOLL, TRANSPORTS, WEBSOCKET
from .wire.http import Params, Request
from .wire.names import channel_names as channel_names
from .wire.names import seconds as seconds
from .wire.names import shown

FORMATS = ("text", "json")

# Parameters


def transport(request: Request) -> str:
    """Which transport is asked for: by ``?transport=``, else by the headers."""
    asked = request.params.get("transport", "")
    if asked and asked not in TRANSPORTS:
        raise BadRequest(f"transport={shown(asked)}: use one of {', '.join(TRANSPORTS)}, or leave it out")
    if asked in (EVENTSOURCE, LONGPOLL):
        return asked
    if request.wants_upgrade:
        return WEBSOCKET
    if asked == WEBSOCKET or b"sec-websocket-key" in request.headers:
        raise UpgradeRequired(
            "this WebSocket handshake arrived without its Upgrade header, which a proxy on the way must have taken; "
            "pass Upgrade and Connection on there, or subscribe with transport=eventsource or transport=longpoll"
        )
    if b"text/event-stream" in request.headers.get(b"accept", b"").lower():
        return EVENTSOURCE
    return LONGPOLL


def text_format(params: Params, default: str) -> str:
    asked = params.get("format", "") or default
    if asked not in FORMATS:
        raise BadRequest(f"format={shown(asked)}: use text or json")
    return asked


def start(request: Request) -> str:
    """The cursor to resume from, as the client gave it; empty: from now."""
    return (
        request.header(b"last-event-id").strip()
        or request.params.get("cursor", "")
        or request.params.get("lastEventId", "")
    )


# Keys


def bearer(request: Request) -> bytes:
    scheme, _, credentials = request.headers.get(b"authorization", b"").partition(b" ")
    return credentials.strip() if scheme.lower() == b"bearer" else b""


def check_publisher(request: Request, keys: Collection[bytes]) -> str:
    """The name under which the publisher's idempotency keys are kept."""
    given = bearer(request)
    if not given:
        raise Unauthorized("publishing needs the publish key: send “Authorization: Bearer KEY”")
    known = False
    for key in keys:  # all of them, whatever the first says: the time tells nothing
        known |= hmac.compare_digest(given, key)
    if not known:
        raise Unauthorized(
            "this is not the publish key of this server; it is in the state directory that the server named at start"
        )
    return "publisher"


# Origins


def check_origin(request: Request, allowed: Sequence[str]) -> None:
    """Lets a page of another origin in only where it was named: it could read what this network alone may."""
    if b"origin" not in request.headers:
        return
    origin = request.header(b"origin")
    if not origin or "*" in allowed or origin in allowed or _same_origin(request, origin):
        return
    raise Forbidden(f"pages of {shown(origin)} may not use this server; start it with --cors-origin {origin[:100]}")


def cors(request: Request, allowed: Sequence[str]) -> bytes:
    """The header lines that let the page read the answer."""
    if not allowed:
        return b""
    if "*" in allowed:
        return b"Access-Control-Allow-Origin: *\r\n" + _EXPOSED if b"origin" in request.headers else b""
    origin = request.header(b"origin")
    if origin in allowed:
        return b"Access-Control-Allow-Origin: %b\r\n%bVary: Origin\r\n" % (origin.encode("latin-1"), _EXPOSED)
    return b"Vary: Origin\r\n"


_EXPOSED = b"Access-Control-Expose-Headers: Retry-After\r\n"
PREFLIGHT = (
    ("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS"),
    (
        "Access-Control-Allow-Headers",
        "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID",
    ),
    ("Access-Control-Max-Age", "86400"),
)


def _same_origin(request: Request, origin: str) -> bool:
    host, forwarded, site = (request.header(name) for name in (b"host", b"x-forwarded-host", b"sec-fetch-site"))
    return is_same_origin(origin, host, forwarded, site)


def is_same_origin(origin: str, host: str, forwarded_host: str, fetch_site: str) -> bool:
    """Whether the page that sent ``origin`` is of this server. The others are the request's Host, X-Forwarded-Host (a
    proxy may have replaced Host) and Sec-Fetch-Site; empty where missing. A page can set none of them.
    """
    if fetch_site == "same-origin":
        return True
    authority = origin.partition("://")[2]
    return bool(authority) and authority in (host, forwarded_host)
