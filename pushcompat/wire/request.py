"""An HTTP/1.x request: its head and its body, from bytes (RFC 9110, RFC 9112).

httptools (llhttp) does the parsing. Two rules prevent request smuggling:

- The head is fed alone, up to its blank line, so it is parsed in one call or rejected.
- A body with a length is cut out by that length. Only a chunked body goes through a parser, one of its own: its
  trailers are not the request's headers. The parser does not report where a body ended, but a body ends with a
  line, so it is fed line by line, and the bytes after the end are left for the next request.

The cost of a head is bounded before it is parsed: ``MAX_FIELD_LINES`` header fields, ``MAX_PARAMETERS`` parameters.

A client sends the same header fields with each request: they are parsed once and shared (``Fields``). Two fields that
differ each time, Sec-WebSocket-Key and Idempotency-Key, are cut out before the fields are looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools

from ..errors import BadRequest, HeadTooLarge, HttpVersion, NotImplementedMethod, PayloadTooLarge
from .forwarded import Reports

HEAD_END = b"\r\n\r\n"
MAX_FIELD_LINES = 100  # Apache's limit; browsers send about 20
MAX_PARAMETERS = 64

_PROXY_PROTOCOL = (b"PROXY ", b"\0\r\nQUIT\n")  # of both versions; the second one's after its blank lines
_CACHED_TARGET_BYTES = 256
_CACHED_FIELDS_BYTES = 1024
_USUAL_LINE = re.compile(rb"(GET|POST) (/[!-~]*) HTTP/1\.1")
_HOST = re.compile(rb"(\[[\w.:%~-]+\]|[\w.~%!$&'()*+;=-]*)(:[0-9]*)?")  # RFC 3986 §3.2, without a user and commas
_ABSOLUTE = re.compile(rb"(?i:https?|wss?)://([^/?]*)")
_WEBSOCKET_KEY = re.compile(rb"Sec-WebSocket-Key: ([A-Za-z0-9+/]{22}==)\r\n")
_IDEMPOTENCY_KEY = re.compile(rb"[Ii]dempotency-[Kk]ey: ([!-~]+)\r\n")

Params = Mapping[str, str]


class Fields:
    """A request's header fields, parsed; shared by all requests with the same fields.

    ``headers`` have lower-case names; the values of a repeated name are joined by commas.
    """

    __slots__ = (
        "chunked", "content_length", "expects_continue", "handshake_remains", "headers", "keep_alive",
        "names_websocket", "reports_client", "version", "wants_upgrade",
    )  # fmt: skip

    version: str
    keep_alive: bool
    chunked: bool
    content_length: int | None
    wants_upgrade: bool  # to WebSocket
    names_websocket: bool  # in Upgrade
    handshake_remains: bool  # at least a part of a WebSocket handshake is left
    expects_continue: bool
    reports_client: bool  # a proxy has added the client's address

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools calls this for each field."""
        name, value = name.lower(), value.rstrip()  # httptools leaves trailing white space
        earlier = self.headers.get(name)
        self.headers[name] = value if earlier is None else earlier + b", " + value

    def check(self) -> None:
        """Sets the attributes from the fields, once the version is known. Raises RequestError."""
        headers = self.headers
        if self.version not in ("1.0", "1.1"):
            raise HttpVersion("use HTTP/1.1 or HTTP/1.0")
        if self.version == "1.1" and (b"host" not in headers or b"," in headers[b"host"]):
            raise BadRequest("exactly one Host header is required")
        if b"host" in headers and not _HOST.fullmatch(headers[b"host"]):
            raise BadRequest("invalid Host header; use HOST or HOST:PORT, in ASCII")
        self.chunked = b"transfer-encoding" in headers
        if self.chunked and headers[b"transfer-encoding"].lower() != b"chunked":
            raise BadRequest("unsupported Transfer-Encoding; only chunked is supported")
        length = headers.get(b"content-length")
        if length is not None and not length.isdigit():
            raise BadRequest("invalid Content-Length")
        self.content_length = None if length is None else int(length)
        options = _tokens(headers.get(b"connection", b""))  # not the parser's: it ignores them if there is no body
        self.names_websocket = b"websocket" in _tokens(headers.get(b"upgrade", b""))
        self.wants_upgrade = self.names_websocket and b"upgrade" in options
        self.handshake_remains = self.names_websocket or b"sec-websocket-version" in headers
        self.keep_alive = b"close" not in options and (self.version == "1.1" or b"keep-alive" in options)
        if self.version == "1.0" and self.chunked:
            # An intermediary older than HTTP/1.1 may have framed it differently (RFC 9112 §6.1).
            self.keep_alive = False
        self.reports_client = b"x-forwarded-for" in headers or b"forwarded" in headers
        self.expects_continue = self.version == "1.1" and headers.get(b"expect", b"").lower() == b"100-continue"


def _tokens(value: bytes) -> list[bytes]:
    """A comma-separated list (RFC 9110 §5.6.1) in lower case."""
    return [token.strip() for token in value.lower().split(b",")]


class Request:
    """One request: its head, and its body once that is complete.

    ``path`` is percent-decoded; ``params`` are those of the query; the last of a repeated name is used.
    ``idempotency_key`` and ``websocket_key`` are the fields of these names, empty if missing. ``proxied``: it came
    from a trusted proxy, whose forwarding header fields count.
    """

    __slots__ = (
        "_chunks", "body", "complete", "fields", "idempotency_key", "method", "params", "path", "proxied", "target",
        "websocket_key",
    )  # fmt: skip

    def __init__(self, fields: Fields, method: str, target: bytes) -> None:
        self.fields = fields
        self.method = method
        self.target = target
        self.path, self.params = parse_target(target)
        self.idempotency_key = fields.headers.get(b"idempotency-key", b"")
        self.websocket_key = fields.headers.get(b"sec-websocket-key", b"")
        self.body: bytes | bytearray = b""
        self.complete = False  # the end of the body was seen
        self.proxied = False
        self._chunks: Any = None  # the parser of a chunked body

    def header(self, name: bytes) -> str:
        return self.fields.headers.get(name, b"").decode("latin-1")

    @property
    def host(self) -> str:
        """That of a target in absolute form, else that of the Host field (RFC 9112 §3.2.2)."""
        found = _ABSOLUTE.match(self.target)
        return self.header(b"host") if found is None else found[1].decode("latin-1")

    @property
    def reports(self) -> Reports:
        header = self.header
        return Reports(
            header(b"forwarded"), header(b"x-forwarded-for"), header(b"x-forwarded-host"), header(b"x-forwarded-proto")
        )

    @property
    def keep_alive(self) -> bool:
        return self.fields.keep_alive

    @property
    def expects_continue(self) -> bool:
        return self.fields.expects_continue

    @property
    def has_body(self) -> bool:
        return self.fields.chunked or bool(self.fields.content_length)

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on the connection: keep-alive, and the body was read completely."""
        return self.fields.keep_alive and (self.complete or not self.has_body)

    def feed(self, data: bytes) -> bytes:
        """Takes more of the body; returns the bytes after its end. Raises BadRequest if it is malformed."""
        if self.fields.chunked:
            return self._feed_chunks(data)
        missing = (self.fields.content_length or 0) - len(self.body)
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

    def check_length(self, limit_bytes: int) -> None:
        """Raises PayloadTooLarge if the body exceeds the limit, or will."""
        if (self.fields.content_length or 0) > limit_bytes or len(self.body) > limit_bytes:
            raise PayloadTooLarge(f"the body exceeds the limit of {limit_bytes} bytes; publish a reference instead")

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
            self._chunks = None  # breaks the reference cycle
        return data[end:]


_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class _Chunks:
    """Callbacks of httptools for a chunked body."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def on_body(self, body: bytes) -> None:
        self._request.add_to_body(body)

    def on_message_complete(self) -> None:
        self._request.complete = True


class _Head(Fields):
    """Callbacks of httptools for a whole head."""

    __slots__ = ("target",)

    def __init__(self) -> None:
        super().__init__()
        self.target = b""

    def on_url(self, url: bytes) -> None:
        self.target += url


def not_http(data: bytes) -> BadRequest:
    """The refusal of bytes that begin no request."""
    if data.startswith(_PROXY_PROTOCOL):
        return BadRequest(
            "the PROXY protocol is not supported; switch it off in the load balancer, for example send-proxy"
        )
    return BadRequest("this is not HTTP/1.1; for TLS, connect to the proxy that terminates it")


def may_be_http(data: bytes) -> bool:
    """Whether a request may begin with these bytes; a TLS handshake does not, for example."""
    return data[:1].isalpha()


def parse_head(head: bytes) -> Request:
    """Parses a request head, including its blank line. Raises RequestError."""
    line, _, text = head.partition(b"\r\n")
    usual = _USUAL_LINE.fullmatch(line)
    if usual is None or len(text) > _CACHED_FIELDS_BYTES:
        return _parse_head(head)
    text, keys = cut_keys(text)
    fields = known_fields(text)
    request = Request(fields, usual[1].decode(), usual[2])
    if keys is not None:
        if request.idempotency_key or request.websocket_key:
            return _parse_head(head)  # a repeated field
        request.websocket_key, request.idempotency_key = keys
    return request


def cut_keys(text: bytes) -> tuple[bytes, tuple[bytes, bytes] | None]:
    """The header fields without Sec-WebSocket-Key and Idempotency-Key; and these two, None if both are missing."""
    websocket = idempotency = None
    if b"ebSocket-Key: " in text:
        websocket = _WEBSOCKET_KEY.search(text)
        if websocket is not None:
            text = text[: websocket.start()] + text[websocket.end() :]
    if b"dempotency-" in text:
        idempotency = _IDEMPOTENCY_KEY.search(text)
        if idempotency is not None:
            text = text[: idempotency.start()] + text[idempotency.end() :]
    if websocket is None and idempotency is None:
        return text, None
    return text, (websocket[1] if websocket else b"", idempotency[1] if idempotency else b"")


def _parse_head(head: bytes) -> Request:
    if head.count(b"\n") - 2 > MAX_FIELD_LINES:
        raise HeadTooLarge(f"a request may have at most {MAX_FIELD_LINES} header fields")
    fields = _Head()
    parser: Any = httptools.HttpRequestParser(fields)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserInvalidMethodError:
        if not may_be_http(head) or head.startswith(_PROXY_PROTOCOL):
            raise not_http(head) from None
        raise NotImplementedMethod("unknown HTTP method; use GET to subscribe, POST to publish") from None
    except httptools.HttpParserError as error:
        raise BadRequest(f"the request is not HTTP/1.1: {error}") from None
    fields.version = parser.get_http_version()
    fields.check()
    return Request(fields, parser.get_method().decode(), fields.target)


# A client's header fields are the same in each request: saves 5 µs for each publish or new poll.
@lru_cache(256)
def known_fields(text: bytes) -> Fields:
    return _parse_head(b"GET / HTTP/1.1\r\n" + text).fields


def parse_target(target: bytes) -> tuple[str, Params]:
    """The percent-decoded path and the parameters of a request target in origin or absolute form."""
    if b"?" in target and len(target) <= _CACHED_TARGET_BYTES:
        return _parse_known_target(target)
    return _parse_target(target)


def _parse_target(target: bytes) -> tuple[str, Params]:
    if target[:1] != b"/":
        target = origin_form(target)
    path, _, query = target.partition(b"?")
    if query.count(b"&") >= MAX_PARAMETERS:
        raise BadRequest(f"a request may have at most {MAX_PARAMETERS} parameters")
    try:
        return _unquote(path), dict(_parameters(query)) if query else {}
    except UnicodeDecodeError:
        raise BadRequest("the path is not valid percent-encoded UTF-8") from None


# In a storm of handshakes nearly all targets are the same: saves 4 µs for each.
_parse_known_target = lru_cache(512)(_parse_target)


def origin_form(target: bytes) -> bytes:
    """``http://host/path`` as ``/path`` (RFC 9112 §3.2.2: a server must accept the absolute form)."""
    found = _ABSOLUTE.match(target)
    if found is None:
        return target
    rest = target[found.end() :]
    return rest if rest[:1] == b"/" else b"/" + rest


def _parameters(query: bytes) -> Iterable[tuple[str, str]]:
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name:
            # Never an error: an invalid cursor must be answered with a reset.
            yield _unquote(name.replace(b"+", b" "), "replace"), _unquote(value.replace(b"+", b" "), "replace")


def _unquote(text: bytes, errors: str = "strict") -> str:
    return (unquote_to_bytes(text) if b"%" in text else text).decode("utf-8", errors)
