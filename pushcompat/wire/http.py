"""HTTP/1.1 responses: heads, JSON documents and problem documents (RFC 9110, RFC 9112, RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus

import msgspec

from ..errors import RequestError

HEAD_END = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# Proxies must not cache responses, compress them (which holds back events in webpack-dev-server and Next.js) or, nginx,
# buffer them. Browsers must not take what somebody published for a page or a script.
_ALWAYS = b"Cache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\n"

Headers = Iterable[tuple[str, str]]


def head(status: HTTPStatus | int, headers: Headers, extra: bytes = b"") -> bytes:
    """A response head with its blank line. ``extra`` are complete header lines, for example CORS."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return b"%b%b%b%b%b\r\n" % (_STATUS_LINES[status], lines.encode("latin-1"), _date, _ALWAYS, extra)


_STATUS_LINES: Mapping[int, bytes] = {
    status: f"HTTP/1.1 {status} {status.phrase}\r\n".encode() for status in HTTPStatus
}


_date = b""


def set_date(time_s: float) -> None:
    """Sets the Date header of responses; call it about once a second."""
    global _date
    _date = f"Date: {formatdate(time_s, usegmt=True)}\r\n".encode()
    for keep_alive, connection in ((True, b"keep-alive"), (False, b"close")):
        _DOCUMENT[keep_alive] = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: %b\r\n%b%bContent-Length: "
            % (connection, _date, _ALWAYS)
        )


_DOCUMENT: dict[bool, bytes] = {}  # the head of a JSON document up to its length, by keep-alive


def document(body: bytes, *, keep_alive: bool, extra: bytes = b"") -> bytes:
    """A 200 with a JSON document, as nearly all responses are: a tenth of the cost of ``answer``."""
    return b"%b%d\r\n%b\r\n%b" % (_DOCUMENT[keep_alive], len(body), extra, body)


def published(
    epoch: str,
    sequence: int,
    subscribers: Mapping[str, int],
    *,
    keep_alive: bool,
    extra: bytes,
    replicas: int | None = None,
    repeated: Sequence[int] | None = None,
) -> bytes:
    """The response to a publish. ``repeated``: of a batch with ids. Channel names need no escaping in JSON."""
    counts = b",".join([b'"%b":{"subscribers":%d}' % (name.encode(), count) for name, count in subscribers.items()])
    more = b"" if replicas is None else b',"replicas":%d' % replicas
    if repeated is not None:
        more += b',"repeated":[%b]' % ",".join(map(str, repeated)).encode()
    body = b'{"id":"%b-%015d","channels":{%b}%b}\n' % (epoch.encode(), sequence, counts, more)
    return b"%b%d\r\n%b\r\n%b" % (_DOCUMENT[keep_alive], len(body), extra, body)


set_date(0.0)


def answer(
    status: HTTPStatus | int,
    body: bytes,
    content_type: str,
    *,
    keep_alive: bool,
    headers: Headers = (),
    extra: bytes = b"",
) -> bytes:
    """A whole response."""
    fields = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    fields.append(("Connection", "keep-alive" if keep_alive else "close"))
    return head(status, [*fields, *headers], extra) + body


def problem(refused: RequestError, *, keep_alive: bool, extra: bytes = b"") -> bytes:
    """The error as a problem document (RFC 9457)."""
    document = {
        "type": "about:blank",
        "title": refused.status.phrase,
        "status": int(refused.status),
        "detail": refused.detail,
    }
    return answer(
        refused.status,
        msgspec.json.encode(document),
        "application/problem+json",
        keep_alive=keep_alive,
        headers=refused.headers,
        extra=extra,
    )
