"""The selector of an event loop that shares its epoll with the sockets of a hub (``poller``)."""

from __future__ import annotations

import math
import select
import selectors
from collections.abc import Callable
from typing import Any

MAX_EVENTS = 256


class LoopSelector(getattr(selectors, "EpollSelector", selectors.DefaultSelector)):  # type: ignore[misc]
    """An event loop's selector that also holds the sockets of one hub: ``SelectorEventLoop(LoopSelector())``."""

    def __init__(self) -> None:
        super().__init__()
        self.epoll: Any = getattr(self, "_selector", None)  # None on platforms without epoll
        self.guests: dict[int, Any] = {}  # the hub's, by descriptor
        self.ready: list[tuple[Any, int]] = []  # of the guests
        self.selects = 0  # that have added to it
        self.on_ready: Callable[[], None] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """The events of the event loop's own descriptors; those of the guests are added to ``ready``."""
        if self.on_ready is None:
            return super().select(timeout)  # type: ignore[no-any-return]
        wait = -1.0 if timeout is None else 0.0 if timeout <= 0 else math.ceil(timeout * 1e3) * 1e-3
        try:
            events = self.epoll.poll(wait, MAX_EVENTS)
        except InterruptedError:
            return []
        found = []
        guests, keys = self.guests, self.get_map()
        for fd, event in events:
            guest = guests.get(fd)
            if guest is not None:
                self.ready.append((guest, event))
            elif fd in keys:
                key = keys[fd]
                wanted = (selectors.EVENT_WRITE if event & ~select.EPOLLIN else 0) | (
                    selectors.EVENT_READ if event & ~select.EPOLLOUT else 0
                )
                if wanted & key.events:
                    found.append((key, wanted & key.events))
        if self.ready:
            self.selects += 1
            self.on_ready()
        return found
