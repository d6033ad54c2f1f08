"""Which sockets are ready: with epoll if available, otherwise with ``selectors``.

epoll is used edge-triggered: a socket is reported once when it becomes ready, not as long as it is ready, so the kernel
need not check each socket again after it was read (bench: a twentieth of a long-poll's cycle). Consequences, which
apply to the other poller too:

- ``watch`` reports a socket that is already ready, so watching it again loses nothing.
- A socket that was not drained must be read again, without waiting for a report.

The pollers differ in how they notify the event loop:

    LoopPoller      the sockets are in the event loop's own epoll, and start the hub's turn from within its ``select``:
                    one system call and no asyncio callback between a request and its turn (bench: publish-1)
    EpollPoller     a separate epoll, whose descriptor the event loop watches; for other event loops
    SelectorPoller  the same without epoll
"""

from __future__ import annotations

import select
import selectors
import socket
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from tornado.ioloop import IOLoop

from .selector import MAX_EVENTS, LoopSelector

READ, WRITE, HANGUP = 1, 4, 0x2000  # epoll's own bits: EPOLLIN, EPOLLOUT, EPOLLRDHUP


class Watched(Protocol):
    socket: socket.socket


T = TypeVar("T", bound=Watched)
Ready = list[tuple[T, int]]


class Poller(Protocol[T]):
    def __len__(self) -> int:
        """The number of watched sockets."""

    def start(self, on_ready: Callable[[], None]) -> None:
        """Makes the running event loop call ``on_ready`` when sockets are ready."""

    def watch(self, watched: T, events: int) -> None:
        """Watches for READ or for WRITE, instead of the previous event."""

    def forget(self, watched: T) -> None: ...

    def ready(self) -> Ready[T]:
        """Some of those that are ready, without waiting; each once."""

    def watched(self) -> list[T]: ...

    def close(self) -> None: ...


def merged(ready: Ready[T]) -> Ready[T]:
    """Each once, with all of its events: a socket that was reported again before it was read."""
    events: dict[T, int] = {}
    for watched, event in ready:
        events[watched] = events.get(watched, 0) | event
    return list(events.items())


class EpollPoller(Generic[T]):
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, T] = {}
        self._started = False

    def __len__(self) -> int:
        return len(self._watched)

    def start(self, on_ready: Callable[[], None]) -> None:
        IOLoop.current().add_handler(self._epoll.fileno(), lambda _fd, _events: on_ready(), IOLoop.READ)
        self._started = True

    def watch(self, watched: T, events: int) -> None:
        fd = watched.socket.fileno()
        events |= select.EPOLLET | select.EPOLLRDHUP
        if fd in self._watched:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
            self._watched[fd] = watched

    def forget(self, watched: T) -> None:
        fd = watched.socket.fileno()
        del self._watched[fd]
        self._epoll.unregister(fd)

    def ready(self) -> Ready[T]:
        watched = self._watched
        return [(watched[fd], events) for fd, events in self._epoll.poll(0, MAX_EVENTS)]

    def watched(self) -> list[T]:
        return list(self._watched.values())

    def close(self) -> None:
        if self._started:
            IOLoop.current().remove_handler(self._epoll.fileno())
        self._epoll.close()


class LoopPoller(EpollPoller[T]):
    def __init__(self, selector: LoopSelector) -> None:
        self._selector = selector
        self._epoll = selector.epoll
        self._watched = selector.guests

    def start(self, on_ready: Callable[[], None]) -> None:
        self._selector.on_ready = on_ready

    def ready(self) -> Ready[T]:
        selector = self._selector
        ready, selector.ready = selector.ready, []
        selects, selector.selects = selector.selects, 0
        return ready if selects < 2 else merged(ready)

    def close(self) -> None:
        self._selector.on_ready = None


class SelectorPoller(Generic[T]):
    """Raises an error if the platform's selector has no file descriptor."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._started = False

    def __len__(self) -> int:
        return len(self._selector.get_map())

    def _fileno(self) -> int:
        return int(self._selector.fileno())  # type: ignore[attr-defined, unused-ignore]

    def start(self, on_ready: Callable[[], None]) -> None:
        IOLoop.current().add_handler(self._fileno(), lambda _fd, _events: on_ready(), IOLoop.READ)
        self._started = True

    def watch(self, watched: T, events: int) -> None:
        wanted = selectors.EVENT_READ if events == READ else selectors.EVENT_WRITE
        if watched.socket in self._selector.get_map():
            self._selector.modify(watched.socket, wanted, watched)
        else:
            self._selector.register(watched.socket, wanted, watched)

    def forget(self, watched: T) -> None:
        self._selector.unregister(watched.socket)

    def ready(self) -> Ready[T]:
        return [
            (key.data, WRITE if events & selectors.EVENT_WRITE else READ) for key, events in self._selector.select(0)
        ]

    def watched(self) -> list[T]:
        return [key.data for key in self._selector.get_map().values()]

    def close(self) -> None:
        if self._started:
            IOLoop.current().remove_handler(self._fileno())
        self._selector.close()


def make_poller(selector: LoopSelector | None) -> Poller[Any]:
    """The best available poller. ``selector``: the running event loop's, if it is a ``LoopSelector``."""
    if selector is not None and selector.epoll is not None:
        return LoopPoller(selector)
    return EpollPoller() if hasattr(select, "epoll") else SelectorPoller()
