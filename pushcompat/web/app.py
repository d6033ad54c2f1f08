"""The Tornado application: the landing page, health, metrics and static files.

A request's body is read only if the handler accepts one. Otherwise the head alone is answered, before any of the body
is read, and the connection is closed.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any

from tornado.escape import json_encode
from tornado.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
    format_timestamp,
)
from tornado.routing import URLSpec
from tornado.web import (
    Application,
    HTTPError,
    RedirectHandler,
    RequestHandler,
    StaticFileHandler,
    url,
)

from ..assets import STATIC, TEMPLATES
from ..logs import log
from .module import module

NO_STORE = ("Cache-Control", "no-store, no-transform")
# What pages may load and do: nothing, but for what ``policy`` adds. Responses that are no pages get it too, in case a
# browser shows one as a page.
_NOTHING = ("default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'")
_ALWAYS = {
    "Server": "pushcompat",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "; ".join(_NOTHING),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # not no-referrer: with it, browsers send a form with "Origin: null"
}
_PROBLEM = {NO_STORE[0]: NO_STORE[1], "Content-Type": "application/problem+json"}
BODY_BYTES = 16 * 1024  # the longest body that any page accepts
_DETAILS = {
    400: "invalid Content-Length",
    404: "not found; channels are under /channels, see / for other endpoints",
    405: "method not allowed; see the Allow header",
    411: "HTTP/1.0 has no Transfer-Encoding: send a Content-Length",  # RFC 9112 §6.1
}
_CLIENT = ("pushcompat.js", "pushcompat.d.ts", "pushcompat.d.mts")  # for pages of any origin
# Not from the system's table of types, which differs between machines.
_CONTENT_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".mts": "text/plain; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def policy(*kinds: str) -> str:
    """The Content-Security-Policy of a page that needs these kinds of its own origin (``script-src``, say)."""
    own = {kind: f"{kind} 'self'" for kind in kinds}
    kept = [rule for rule in _NOTHING if rule.split()[0] not in own]
    return "; ".join([*kept, *own.values()])


@dataclass(frozen=True, slots=True)
class Views:
    """What the pages show; the callables are called at each request."""

    version: str
    prefix: str
    metrics: Callable[[], Awaitable[bytes]]
    not_ready: Callable[[], str | None]  # why the server is not ready for new subscribers; None: it is ready
    demo: bool = False


class Handler(RequestHandler):
    methods = "GET, HEAD"
    admin = False  # refused where administration has a listener of its own, and the connection came by another one
    body_bytes = 0  # the longest body that is accepted, with POST

    @classmethod
    def refusal(cls, request: HTTPServerRequest) -> int | None:
        """The status with which a request is rejected by its head, before its body is read; None: it is accepted."""
        if cls.admin and not request.connection.context.admin:  # type: ignore[union-attr]
            return 403
        if "Transfer-Encoding" not in request.headers and request.headers.get("Content-Length", "0") == "0":
            return None
        return cls.body_refusal(request)

    @classmethod
    def body_refusal(cls, request: HTTPServerRequest) -> int | None:
        """The same, for a request with a body."""
        if request.method not in cls.methods.split(", "):
            return 405
        length = request.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()):
            return 400
        if request.method != "POST" or int(length) > cls.body_bytes or not cls.body_bytes:
            return 413
        return 411 if "Transfer-Encoding" in request.headers and request.version == "HTTP/1.0" else None

    @classmethod
    def detail(cls, status: int) -> str:
        """The error text: what the client must change."""
        if status == 403 and cls.admin:
            return "this is on the server's admin address (--admin-listen)"
        if status == 413:
            return f"send at most {cls.body_bytes} bytes of body, with POST" if cls.body_bytes else "send no body"
        return _DETAILS.get(status, f"{HTTPStatus(status).phrase}: see the server's log")

    def set_default_headers(self) -> None:
        for name, value in _ALWAYS.items():
            self.set_header(name, value)

    def write_error(self, status_code: int, **kwargs: object) -> None:
        if status_code == 405:
            self.set_header("Allow", self.methods)
        self.problem(status_code, self.detail(status_code))

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Bugs only: Tornado's would log the URL, which may have a token, and as many refusals as anybody causes."""
        if not isinstance(value, HTTPError):
            log.error("BUG: unhandled exception in a page", exc_info=value)

    @property
    def reported_host(self) -> str:
        """The host that clients use, as a trusted proxy reports it; empty without one."""
        return getattr(getattr(self.request.connection, "context", None), "host", "")

    @property
    def client_address(self) -> str | None:
        """The client's address, for the log. None: it is unknown."""
        return self.request.remote_ip or None

    def problem(self, status: int, detail: str) -> None:
        """Answers with a problem document (RFC 9457), as the hub does."""
        self.set_status(status)
        for name, value in _PROBLEM.items():
            self.set_header(name, value)
        self.finish(_document(status, detail))


def _document(status: int, detail: str) -> str:
    title = HTTPStatus(status).phrase
    return json_encode({"type": "about:blank", "title": title, "status": status, "detail": detail})


class _RefusedByHead(HTTPMessageDelegate):
    """Answers a request by its head. Tornado then closes the connection, because the body is unread."""

    def __init__(self, request: HTTPServerRequest, status: int, handler: type[Handler]) -> None:
        self._request = request
        self._status = status
        self._handler = handler

    def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> None:
        body = _document(self._status, self._handler.detail(self._status)).encode()
        headers["Connection"] = "close"  # otherwise Tornado sends Keep-Alive to HTTP/1.0 clients that requested it
        fields = HTTPHeaders({**_ALWAYS, **_PROBLEM, "Date": format_timestamp(time.time()), "Connection": "close"})
        fields["Content-Length"] = str(len(body))
        if self._status == 405:
            fields["Allow"] = self._handler.methods
        answer = ResponseStartLine("HTTP/1.1", self._status, HTTPStatus(self._status).phrase)
        connection = self._request.connection
        assert connection is not None
        connection.write_headers(answer, fields, body if self._request.method != "HEAD" else None)
        connection.finish()


class _Pages(Application):
    def get_handler_delegate(  # type: ignore[override]  # documented as any delegate, typed as the usual one
        self, request: HTTPServerRequest, target_class: type[Handler], *details: Any, **more: Any
    ) -> HTTPMessageDelegate:
        status = target_class.refusal(request)
        if status is not None:
            return _RefusedByHead(request, status, target_class)
        return super().get_handler_delegate(request, target_class, *details, **more)


class _Page(Handler):
    def initialize(self, views: Views) -> None:
        self.views = views

    def get(self) -> Awaitable[None] | None:
        raise NotImplementedError

    def head(self) -> Awaitable[None] | None:
        return self.get()  # Tornado leaves the body out


class Landing(_Page):
    def get(self) -> None:
        self.set_header("Content-Security-Policy", policy("style-src", "img-src"))
        administers = self.request.connection.context.admin  # type: ignore[union-attr]
        self.render("index.html", views=self.views, scheme=self.request.protocol, administers=administers)


class Health(_Page):
    """Liveness."""

    def get(self) -> None:
        self.set_header(*NO_STORE)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("ok\n")


class Ready(_Page):
    """Readiness for new subscribers: not while the server is stopping, or its log does not work."""

    def get(self) -> None:
        self.set_header(*NO_STORE)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        reason = self.views.not_ready()
        if reason is not None:
            self.set_status(503)
        self.finish(f"{reason or 'ready'}\n")


class Exposition(_Page):
    admin = True

    async def get(self) -> None:
        self.set_header(*NO_STORE)
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(await self.views.metrics())


class Missing(Handler):
    @classmethod
    def body_refusal(cls, request: HTTPServerRequest) -> int:
        return 404

    def prepare(self) -> None:
        raise HTTPError(404)


class Redirect(Handler, RedirectHandler):
    pass


class Static(Handler, StaticFileHandler):
    def get_content_type(self) -> str:
        return _CONTENT_TYPES.get(Path(self.path).suffix, "application/octet-stream")

    def set_extra_headers(self, path: str) -> None:
        if path in _CLIENT:
            _share(self)


class Module(Handler):
    """The client as an ES module."""

    def get(self) -> None:
        _share(self)
        self.set_header("Content-Type", _CONTENT_TYPES[".mjs"])
        self.finish(module())

    def head(self) -> None:
        self.get()  # Tornado leaves the body out


def _share(handler: Handler) -> None:
    """With pages of any origin."""
    handler.set_header("Access-Control-Allow-Origin", "*")
    handler.set_header("Cross-Origin-Resource-Policy", "cross-origin")


def make_application(views: Views, *more: URLSpec) -> Application:
    base = views.prefix
    pages = [("/", Landing), ("/healthz", Health), ("/readyz", Ready), ("/metrics", Exposition)]
    routes = [*(url(base + path, page, {"views": views}) for path, page in pages), *more]
    if base:
        routes.append(url(base, Redirect, {"url": f"{base}/"}))
    routes.append(url(rf"{base}/static/pushcompat\.mjs", Module))
    routes.append(url(rf"{base}/static/(.*)", Static, {"path": str(STATIC)}))
    return _Pages(
        routes, template_path=str(TEMPLATES), log_function=lambda handler: None, default_handler_class=Missing
    )
