"""Push updates to every page on every network: WebSocket, Server-Sent Events and long-poll behind one log.

An application publishes with ``from pushcompat import publish``. That needs the standard library only; what the server
needs is imported by the server.
"""

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
