"""The Tornado application: the landing page, health, metrics and static files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tornado.web import Application, RequestHandler, StaticFileHandler, url

from ..assets import STATIC, TEMPLATES

_NO_STORE = ("Cache-Control", "no-store")


@dataclass(frozen=True, slots=True)
class Views:
    """What the pages show, asked for anew at each request."""

    version: str
    prefix: str
    metrics: Callable[[], bytes]
    draining: Callable[[], bool]


class _Page(RequestHandler):
    def initialize(self, views: Views) -> None:
        self.views = views

    def set_default_headers(self) -> None:
        self.set_header("Server", "pushcompat")
        self.set_header("X-Content-Type-Options", "nosniff")


class Landing(_Page):
    def get(self) -> None:
        self.set_header(
            "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:"
        )
        self.render("index.html", views=self.views)


class Health(_Page):
    """Whether the process runs."""

    def get(self) -> None:
        self.set_header(*_NO_STORE)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("ok\n")


class Ready(_Page):
    """Whether new subscribers should come here: not while the server is on its way out."""

    def get(self) -> None:
        self.set_header(*_NO_STORE)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        if self.views.draining():
            self.set_status(503)
        self.finish("draining\n" if self.views.draining() else "ready\n")


class Exposition(_Page):
    def get(self) -> None:
        self.set_header(*_NO_STORE)
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(self.views.metrics())


def make_application(views: Views) -> Application:
    base = views.prefix
    pages = [("/", Landing), ("/healthz", Health), ("/readyz", Ready), ("/metrics", Exposition)]
    routes = [url(base + path, page, {"views": views}) for path, page in pages]
    routes.append(url(rf"{base}/static/(.*)", StaticFileHandler, {"path": str(STATIC)}))
    return Application(routes, template_path=str(TEMPLATES), log_function=lambda handler: None)
