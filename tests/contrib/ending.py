from __future__ import annotations

from pushcompat import Publisher
from pushcompat.client import later


def forget(publisher: Publisher) -> None:
    """The process of the tests does not wait, at its end, for a push server that is away."""
    for queues in later._queues.values():
        for queue in publisher._queues.values():
            if queue in queues:
                queues.remove(queue)
