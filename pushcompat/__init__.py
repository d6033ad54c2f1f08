"""Push server for web pages: WebSocket, Server-Sent Events and long-polling on one log.

An application publishes with ``from pushcompat import publish``. That imports only the standard library; ``listen``
imports msgspec and websockets, and the server's other dependencies are imported by the server. And only then: the
server must handle signals before it imports a module that takes long, and this one is always imported first.
"""

TYPE_CHECKING = False  # true for type checkers; the standard library's, in ``typing``, takes 3 ms to import

if TYPE_CHECKING:
    from .client.async_publisher import AsyncPublisher, publish_async, publish_batch_async
    from .client.publisher import (
        Published,
        Publisher,
        PublishError,
        PublishRefused,
        PublishUnavailable,
        publish,
        publish_batch,
    )
    from .client.subscriber import ListenRefused, Message, Reset, TokenRefused, listen

__all__ = [
    "AsyncPublisher",
    "ListenRefused",
    "Message",
    "PublishError",
    "PublishRefused",
    "PublishUnavailable",
    "Published",
    "Publisher",
    "Reset",
    "TokenRefused",
    "listen",
    "publish",
    "publish_async",
    "publish_batch",
    "publish_batch_async",
]
__version__ = "0.1.0"

_SUBSCRIBER = ("ListenRefused", "Message", "Reset", "TokenRefused", "listen")

if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if "sync" in name.lower():  # asyncio takes as long to import as everything else
            from .client import async_publisher as module
        elif name in _SUBSCRIBER:
            from .client import subscriber as module
        else:
            from .client import publisher as module
        return globals().setdefault(name, getattr(module, name))

    def __dir__():
        return [*globals(), *__all__]
