"""HTTP/1.x: a request's head and body in, response heads and problem documents out (RFC 9110, RFC 9112, RFC 9457).

httptools (llhttp) does the parsing. Two rules of its use keep requests on one connection apart:

- The head is fed alone, up to its blank line, so a head is parsed in one go or refused.
- A body with a length is cut out by that length. Only a chunked body goes through a parser, one of its own: its
  trailers are not the request's headers. The parser does not tell where a body ended, but a body ends with a line, so
  it is fed line by line, and what lies behind the end is left for the next request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools
import msgspec

from ..errors import BadRequest, HttpVersion, NotImplementedMethod, PayloadTooLarge, Refused

HEAD_END = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# Proxies must not cache responses, compress them (which holds back events in webpack-dev-server and Next.js) or, nginx,
# buffer them.
_ALWAYS = b"Cache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\n"
_CACHED_TARGET_BYTES = 256
_CACHED_FIELDS_BYTES = 1024
_WEBSOCKET_KEY = re.compile(rb"Sec-WebSocket-Key: ([A-Za-z0-9+/]{22}==)\r\n")  # what no two handshakes share
_USUAL_LINE = re.compile(rb"(GET|POST) (/[!-~]*) HTTP/1\.1")

Params = Mapping[str, str]


class Request:
    """One request: its head, and its body once that is complete.

    ``path`` is percent-decoded, ``params`` are the query's (the last of a repeated name counts), ``headers`` have
    lower-case names and their values joined by commas where a name comes twice. ``findings`` is for what was found out
    from the header fields alone: requests that have the same fields share it.
    """

    __slots__ = (
        "_chunks", "body", "chunked", "complete", "content_length", "findings", "headers",
        "keep_alive", "method", "params", "path", "target", "version", "wants_upgrade",
    )  # fmt: skip

    method: str
    path: str
    params: Params
    version: str
    keep_alive: bool
    chunked: bool
    content_length: int | None
    wants_upgrade: bool

    def __init__(self, headers: dict[bytes, bytes], findings: dict[str, str]) -> None:
        self.headers = headers
        self.findings = findings
        self.target = b""
        self.body: bytes | bytearray = b""
        self.complete = False  # the body's end was seen
        self._chunks: Any = None  # what parses a chunked body

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    def again(self, method: bytes, target: bytes) -> Request:
        """Another request with the same header fields."""
        request = Request(self.headers, self.findings)
        request.version, request.keep_alive = self.version, self.keep_alive
        request.chunked, request.content_length = self.chunked, self.content_length
        request.wants_upgrade = self.wants_upgrade
        request.method, request.target = method.decode(), target
        request.path, request.params = parse_target(target)
        return request

    @property
    def expects_continue(self) -> bool:
        return self.version == "1.1" and self.headers.get(b"expect", b"").lower() == b"100-continue"

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)

    @property
    def can_be_followed(self) -> bool:
        """Whether another request may come behind this one: nothing of a body is still to come."""
        return self.keep_alive and (self.complete or not self.has_body)

    def feed(self, data: bytes) -> bytes:
        """Takes more of the body; returns what lies behind its end. Raises BadRequest where it is malformed."""
        if self.chunked:
            return self._feed_chunks(data)
        missing = (self.content_length or 0) - len(self.body)
        self.complete = len(data) >= missing
        self.add_to_body(data[:missing])
        return data[missing:]

    def add_to_body(self, data: bytes) -> None:
        if not self.body:
            self.body = data  # nearly always the whole of it
        elif isinstance(self.body, bytes):
            self.body = bytearray(self.body + data)
        else:
            self.body += data

    def _feed_chunks(self, data: bytes) -> bytes:
        if self._chunks is None:
            self._chunks = httptools.HttpRequestParser(_Chunks(self))
            self._chunks.feed_data(_CHUNKED_HEAD)
        end = 0
        while end < len(data) and not self.complete:
            start, end = end, data.find(b"\n", end) + 1 or len(data)
            try:
                self._chunks.feed_data(data[start:end])
            except httptools.HttpParserError as error:
                raise BadRequest(f"the chunked body is malformed: {error}") from None
        if self.complete:
            self._chunks = None  # the two know each other, and would wait for the garbage collector
        return data[end:]

    # What httptools calls.

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name, value = name.lower(), value.rstrip()  # httptools leaves blanks behind the value
        earlier = self.headers.get(name)
        self.headers[name] = value if earlier is None else earlier + b", " + value


_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class _Chunks:
    """What httptools calls for a chunked body."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def on_body(self, body: bytes) -> None:
        self._request.add_to_body(body)

    def on_message_complete(self) -> None:
        self._request.complete = True


NOT_HTTP = "this is not HTTP/1.1; over TLS, speak to the proxy that ends it"


def may_be_http(data: bytes) -> bool:
    """Whether a request may begin like this; a TLS handshake, for one, does not."""
    return data[:1].isalpha()


def parse_head(head: bytes) -> Request:
    """The request whose head these bytes are, blank line included. Raises Refused."""
    line, _, fields = head.partition(b"\r\n")
    usual = _USUAL_LINE.fullmatch(line)
    if usual is None or len(fields) > _CACHED_FIELDS_BYTES:
        return _parse_head(head)
    key = _WEBSOCKET_KEY.search(fields)
    if key is None:
        return _parse_known_fields(fields).again(*usual.groups())
    known = _parse_known_fields(fields[: key.start()] + fields[key.end() :])
    if b"sec-websocket-key" in known.headers:
        return _parse_head(head)  # it came twice
    request = known.again(*usual.groups())
    request.headers = {**known.headers, b"sec-websocket-key": key[1]}
    return request


def _parse_head(head: bytes) -> Request:
    request = Request({}, {})
    parser: Any = httptools.HttpRequestParser(request)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserInvalidMethodError:
        if not may_be_http(head):
            raise BadRequest(NOT_HTTP) from None
        raise NotImplementedMethod("the method is none of HTTP's; use GET to subscribe, POST to publish") from None
    except httptools.HttpParserError as error:
        raise BadRequest(f"the request is not HTTP/1.1: {error}") from None
    request.method = parser.get_method().decode()
    request.version = parser.get_http_version()
    _check(request)
    request.path, request.params = parse_target(request.target)
    return request


# A client's header fields are the same each time, whatever it asks for: 5 µs less for each publish or new poll.
@lru_cache(256)
def _parse_known_fields(fields: bytes) -> Request:
    return _parse_head(b"GET / HTTP/1.1\r\n" + fields)


def _check(request: Request) -> None:
    headers = request.headers
    if request.version not in ("1.0", "1.1"):
        raise HttpVersion("speak HTTP/1.1 or HTTP/1.0")
    if request.version == "1.1" and (b"host" not in headers or b"," in headers[b"host"]):
        raise BadRequest("an HTTP/1.1 request carries exactly one Host header")
    request.chunked = b"transfer-encoding" in headers
    if request.chunked and headers[b"transfer-encoding"].lower() != b"chunked":
        raise BadRequest("the only Transfer-Encoding understood is chunked")
    length = headers.get(b"content-length")
    if length is not None and not length.isdigit():
        raise BadRequest("Content-Length is one whole number")
    request.content_length = None if length is None else int(length)
    options = headers.get(b"connection", b"").lower()  # not the parser's: it forgets them where there is no body
    request.wants_upgrade = b"upgrade" in options and headers.get(b"upgrade", b"").lower() == b"websocket"
    request.keep_alive = b"close" not in options and (request.version == "1.1" or b"keep-alive" in options)


def parse_target(target: bytes) -> tuple[str, Params]:
    """The percent-decoded path and the parameters of a request target in origin or absolute form."""
    if b"?" in target and len(target) <= _CACHED_TARGET_BYTES:
        return _parse_known_target(target)
    return _parse_target(target)


def _parse_target(target: bytes) -> tuple[str, Params]:
    if target[:1] != b"/":
        target = origin_form(target)
    path, _, query = target.partition(b"?")
    try:
        return _unquote(path), dict(_parameters(query)) if query else {}
    except UnicodeDecodeError:
        raise BadRequest("the path's percent-escapes are not UTF-8") from None


# In a storm of handshakes nearly every target is the same: 4 µs less for each.
_parse_known_target = lru_cache(512)(_parse_target)


def origin_form(target: bytes) -> bytes:
    """``http://host/path`` as ``/path`` (RFC 9112 §3.2.2: a server must accept the absolute form)."""
    scheme, found, rest = target.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        return target
    for index, byte in enumerate(rest):
        if byte in b"/?":
            return rest[index:] if byte == 0x2F else b"/" + rest[index:]
    return b"/"


def _parameters(query: bytes) -> Iterable[tuple[str, str]]:
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name:
            # Never refused: a cursor that can not be read must be answered with a reset.
            yield _unquote(name.replace(b"+", b" "), "replace"), _unquote(value.replace(b"+", b" "), "replace")


def _unquote(text: bytes, errors: str = "strict") -> str:
    return (unquote_to_bytes(text) if b"%" in text else text).decode("utf-8", errors)


# Out


Headers = Iterable[tuple[str, str]]


def head(status: HTTPStatus | int, headers: Headers, extra: bytes = b"") -> bytes:
    """A response head with its blank line. ``extra`` are header lines already made, CORS for one."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return b"%b%b%b%b%b\r\n" % (_STATUS_LINES[status], lines.encode("latin-1"), _date, _ALWAYS, extra)


_STATUS_LINES: Mapping[int, bytes] = {
    status: f"HTTP/1.1 {status} {status.phrase}\r\n".encode() for status in HTTPStatus
}


_date = b""


def set_date(time_s: float) -> None:
    """The Date of all answers from now on: for whoever has a clock to say, about once a second."""
    global _date
    _date = f"Date: {formatdate(time_s, usegmt=True)}\r\n".encode()


def document(body: bytes, *, keep_alive: bool, extra: bytes = b"") -> bytes:
    """A 200 with a JSON document: what nearly every answer is, made in a tenth of the time that ``answer`` takes."""
    return b"%b%b%bContent-Length: %d\r\n%b\r\n%b" % (_DOCUMENT[keep_alive], _date, _ALWAYS, len(body), extra, body)


_DOCUMENT = {
    keep_alive: b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: %b\r\n" % connection
    for keep_alive, connection in ((True, b"keep-alive"), (False, b"close"))
}


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


def problem(refused: Refused, *, keep_alive: bool, extra: bytes = b"") -> bytes:
    """The refusal as a problem document (RFC 9457)."""
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


def check_length(request: Request, limit_bytes: int) -> None:
    """Raises PayloadTooLarge where the body is, or is going to be, over the limit."""
    if (request.content_length or 0) > limit_bytes or len(request.body) > limit_bytes:
        raise PayloadTooLarge(f"the body may have at most {limit_bytes} bytes; publish a reference instead of the data")
