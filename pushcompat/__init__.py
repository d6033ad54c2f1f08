"""Push server for web pages: WebSocket, Server-Sent Events and long-polling on one log.

An application publishes with ``from pushcompat import publish``. That imports only the standard library; the
server's dependencies are imported by the server. And only then: the server must handle signals before it imports a
module that takes long, and this one is always imported first.
"""

TYPE_CHECKING = False  # true for type checkers; the standard library's, in ``typing``, takes 3 ms to import

if TYPE_CHECKING:
    from .client.publisher import (
        Published,
        PublishError,
        PublishRefused,
        PublishUnavailable,
        publish,
        publish_async,
        publish_batch,
        publish_batch_async,
    )

__all__ = [
    "PublishError",
    "PublishRefused",
    "PublishUnavailable",
    "Published",
    "publish",
    "publish_async",
    "publish_batch",
    "publish_batch_async",
]
__version__ = "0.1.0"

if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .client import publisher

        return globals().setdefault(name, getattr(publisher, name))

    def __dir__():
        return [*globals(), *__all__]
