"""Which sockets are ready: epoll where there is one, else whatever ``selectors`` has.

epoll is used edge-triggered: a socket is reported when something new happens to it, not for as long as it is ready,
which saves the kernel a second look at every socket that was read (bench: a twentieth of a long-poll's cycle). What
follows from that, and holds for the other poller too:

- ``watch`` reports a socket at once when it is ready at that time, so that watching anew loses nothing.
- A read that filled its buffer may have left something behind, and a read that came with ``HANGUP`` has left the end of
  the stream behind: both must be followed by another read, without waiting for a report.
"""

from __future__ import annotations

import select
import selectors
from typing import Protocol

from .connection import Connection

READ, WRITE, HANGUP = 1, 4, 0x2000  # epoll's own bits: EPOLLIN, EPOLLOUT, EPOLLRDHUP


class Poller(Protocol):
    def fileno(self) -> int:
        """What the IOLoop watches."""

    def watch(self, connection: Connection, events: int) -> None:
        """Watches for READ or for WRITE, in place of what it was watched for."""

    def forget(self, connection: Connection) -> None: ...

    def ready(self, most: int) -> list[tuple[Connection, int]]:
        """Some of those that are ready, without waiting."""

    def connections(self) -> list[Connection]: ...

    def close(self) -> None: ...


class EpollPoller:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}

    def fileno(self) -> int:
        return self._epoll.fileno()

    def watch(self, connection: Connection, events: int) -> None:
        fd = connection.socket.fileno()
        events |= select.EPOLLET | select.EPOLLRDHUP
        if fd in self._connections:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
            self._connections[fd] = connection

    def forget(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        del self._connections[fd]
        self._epoll.unregister(fd)

    def ready(self, most: int) -> list[tuple[Connection, int]]:
        connections = self._connections
        return [(connections[fd], events) for fd, events in self._epoll.poll(0, most)]

    def connections(self) -> list[Connection]:
        return list(self._connections.values())

    def close(self) -> None:
        self._epoll.close()


class SelectorPoller:
    """For platforms without epoll. Raises where the platform's selector has no file descriptor of its own."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def fileno(self) -> int:
        return int(self._selector.fileno())  # type: ignore[attr-defined, unused-ignore]

    def watch(self, connection: Connection, events: int) -> None:
        wanted = selectors.EVENT_READ if events == READ else selectors.EVENT_WRITE
        if connection.socket in self._selector.get_map():
            self._selector.modify(connection.socket, wanted, connection)
        else:
            self._selector.register(connection.socket, wanted, connection)

    def forget(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)

    def ready(self, most: int) -> list[tuple[Connection, int]]:
        return [
            (key.data, WRITE if events & selectors.EVENT_WRITE else READ) for key, events in self._selector.select(0)
        ]

    def connections(self) -> list[Connection]:
        return [key.data for key in self._selector.get_map().values()]

    def close(self) -> None:
        self._selector.close()


def make_poller() -> Poller:
    return EpollPoller() if hasattr(select, "epoll") else SelectorPoller()
