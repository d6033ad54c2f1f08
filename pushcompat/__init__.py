"""Push server for web pages: WebSocket, Server-Sent Events and long-polling on one log.

An application publishes with ``from pushcompat import publish``. That imports only the standard library; the
server's dependencies are imported by the server.
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
