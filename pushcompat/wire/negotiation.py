"""The parameters of a subscription: transport, format, hold, and the position to resume from."""

from __future__ import annotations

from ..errors import BadRequest
from ..message import EARLIEST, parse_cursor
from .damage import CONNECTION, UPGRADE, damaged
from .encoding import EVENTSOURCE, LONGPOLL, TRANSPORTS, WEBSOCKET
from .names import seconds, shown
from .request import Params, Request

FORMATS = ("text", "json")
_SHORTEST_HEARTBEAT_S = 2
_MOST_LAST_DIGITS = 9


def transport(request: Request) -> str:
    """The requested transport: by ``?transport=``, otherwise by the headers. Raises BadRequest, UpgradeRequired."""
    asked = request.params.get("transport", "")
    if asked and asked not in TRANSPORTS:
        raise BadRequest(f"transport={shown(asked)}: use one of {', '.join(TRANSPORTS)}, or leave it out")
    if asked in (EVENTSOURCE, LONGPOLL):
        return asked
    if request.fields.wants_upgrade:
        return WEBSOCKET
    if asked == WEBSOCKET or request.websocket_key or request.fields.handshake_remains:
        raise damaged(CONNECTION if request.fields.names_websocket else UPGRADE)
    if b"text/event-stream" in request.fields.headers.get(b"accept", b"").lower():
        return EVENTSOURCE
    return LONGPOLL


def text_format(params: Params, default: str) -> str:
    asked = params.get("format", "") or default
    if asked not in FORMATS:
        raise BadRequest(f"format={shown(asked)}: use text or json")
    return asked


def hold_s(params: Params, window_s: float) -> float:
    """How long a poll may be held: ``wait``, but at most the server's window."""
    wait = params.get("wait", "")
    return min(window_s, seconds("wait", wait)) if wait else window_s


def heartbeat_s(params: Params, longest_s: float) -> float | None:
    """The heartbeat that a client with a short read timeout requests: whole seconds, so that few encodings are enough.
    None: the server's, which is also the longest.
    """
    asked = params.get("heartbeat", "")
    if not asked:
        return None
    chosen = float(max(_SHORTEST_HEARTBEAT_S, int(min(seconds("heartbeat", asked), longest_s))))
    return chosen if chosen < longest_s else None


def controls(params: Params) -> bool:
    """Whether an event stream has control events. ``controls=0``: only their ids, which fire no event."""
    asked = params.get("controls", "") or "1"
    if asked not in ("0", "1"):
        raise BadRequest(f"controls={shown(asked)}: use 0 or 1")
    return asked == "1"


def newest(params: Params) -> int | None:
    """``last``: with ``cursor=earliest``, only so many of the retained messages, the newest. None: all."""
    asked = params.get("last", "")
    if not asked:
        return None
    if not (asked.isascii() and asked.isdecimal() and len(asked) <= _MOST_LAST_DIGITS):
        raise BadRequest(f"last={shown(asked)}: use a whole number of messages, of at most {_MOST_LAST_DIGITS} digits")
    return int(asked)


def requested_cursor(request: Request, epoch: str) -> str:
    """The cursor to resume from, as the client sent it; empty: from now.

    A client may send several: an EventSource's URL keeps its first one, and polyfills have their own parameter. The
    newest is used: the highest of this epoch, otherwise one of another epoch, otherwise ``earliest``, otherwise invalid
    text. (``earliest`` is answered with the retained messages, invalid text with ``reset``.)
    """
    params = request.params
    header = request.fields.headers.get(b"last-event-id")
    given = [params.get("cursor", ""), params.get("lastEventId", "")]
    if header is not None:
        given.append(header.decode("latin-1").strip())
    given = [text for text in given if text]
    if len(given) < 2:
        return given[0] if given else ""
    return max(given, key=lambda text: _newness(text, epoch))


def _newness(text: str, epoch: str) -> tuple[int, int]:
    cursor = parse_cursor(text)
    if cursor is None:
        return (1 if text == EARLIEST else 0), 0
    return (3, cursor[1]) if cursor[0] == epoch else (2, 0)
