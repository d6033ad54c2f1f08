"""The Tornado application: the landing page, health, metrics and static files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from tornado.escape import json_encode
from tornado.routing import URLSpec
from tornado.web import Application, HTTPError, RedirectHandler, RequestHandler, StaticFileHandler, url

from ..assets import STATIC, TEMPLATES

NO_STORE = ("Cache-Control", "no-store, no-transform")
_DETAILS = {
    404: "there is nothing at this address; channels are under /channels, the landing page links what else there is",
    405: "this address is for other methods: Allow names them",
}


@dataclass(frozen=True, slots=True)
class Views:
    """What the pages show, asked for anew at each request."""

    version: str
    prefix: str
    metrics: Callable[[], bytes]
    draining: Callable[[], bool]
    demo: bool = False


class Handler(RequestHandler):
    methods = "GET, HEAD"

    def set_default_headers(self) -> None:
        self.set_header("Server", "pushcompat")
        self.set_header("X-Content-Type-Options", "nosniff")

    def write_error(self, status_code: int, **kwargs: object) -> None:
        if status_code == 405:
            self.set_header("Allow", self.methods)
        phrase = HTTPStatus(status_code).phrase
        self.problem(status_code, _DETAILS.get(status_code, f"{phrase}: see the server's log"))

    def problem(self, status: int, detail: str) -> None:
        """Answers with a problem document (RFC 9457), like those of the hub."""
        self.set_status(status)
        self.set_header(*NO_STORE)
        self.set_header("Content-Type", "application/problem+json")
        title = HTTPStatus(status).phrase
        self.finish(json_encode({"type": "about:blank", "title": title, "status": status, "detail": detail}))


class _Page(Handler):
    def initialize(self, views: Views) -> None:
        self.views = views

    def get(self) -> None:
        raise NotImplementedError

    def head(self) -> None:
        self.get()  # Tornado leaves the body out


class Landing(_Page):
    def get(self) -> None:
        self.set_header(
            "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:"
        )
        # Shown, not trusted: what the proxy that ends TLS says of the outside.
        forwarded = self.request.headers.get("X-Forwarded-Proto", "")
        scheme = forwarded if forwarded in ("http", "https") else self.request.protocol
        self.render("index.html", views=self.views, scheme=scheme)


class Health(_Page):
    """Whether the process runs."""

    def get(self) -> None:
        self.set_header(*NO_STORE)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("ok\n")


class Ready(_Page):
    """Whether new subscribers should come here: not while the server is on its way out."""

    def get(self) -> None:
        self.set_header(*NO_STORE)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        if self.views.draining():
            self.set_status(503)
        self.finish("draining\n" if self.views.draining() else "ready\n")


class Exposition(_Page):
    def get(self) -> None:
        self.set_header(*NO_STORE)
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(self.views.metrics())


class Missing(Handler):
    def prepare(self) -> None:
        raise HTTPError(404)


class Static(Handler, StaticFileHandler):
    def set_extra_headers(self, path: str) -> None:
        self.set_header("Access-Control-Allow-Origin", "*")  # else no page of another origin could import the module


def make_application(views: Views, *more: URLSpec) -> Application:
    base = views.prefix
    pages = [("/", Landing), ("/healthz", Health), ("/readyz", Ready), ("/metrics", Exposition)]
    routes = [*(url(base + path, page, {"views": views}) for path, page in pages), *more]
    if base:
        routes.append(url(base, RedirectHandler, {"url": f"{base}/"}))
    routes.append(url(rf"{base}/static/(.*)", Static, {"path": str(STATIC)}))
    return Application(
        routes, template_path=str(TEMPLATES), log_function=lambda handler: None, default_handler_class=Missing
    )
