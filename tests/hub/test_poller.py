"""Both pollers, the one for Linux and the one for everywhere else, keep the same promises."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from pushcompat.hub.connection import Connection
from pushcompat.hub.poller import HANGUP, READ, WRITE, EpollPoller, Poller, SelectorPoller

POLLERS = [SelectorPoller, *([EpollPoller] if hasattr(select, "epoll") else [])]


@pytest.fixture(params=POLLERS)
def poller(request: pytest.FixtureRequest) -> Iterator[Poller[Connection]]:
    made = request.param()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield Connection(ours, 0), theirs


def test_what_has_arrived_before_a_socket_is_watched_is_reported(
    poller: Poller[Connection], pair: tuple[Connection, socket.socket]
) -> None:
    connection, theirs = pair
    theirs.send(b"x")
    poller.watch(connection, READ)
    ((reported, events),) = poller.ready()
    assert reported is connection
    assert events & READ


def test_who_is_watched_anew_is_reported_anew(
    poller: Poller[Connection], pair: tuple[Connection, socket.socket]
) -> None:
    connection, theirs = pair
    poller.watch(connection, READ)
    assert poller.ready() == []
    poller.watch(connection, WRITE)
    assert poller.ready()[0][1] & WRITE
    theirs.send(b"x")
    poller.watch(connection, READ)
    assert poller.ready()[0][1] & READ


def test_a_forgotten_socket_is_not_reported_and_can_be_watched_again(
    poller: Poller[Connection], pair: tuple[Connection, socket.socket]
) -> None:
    connection, theirs = pair
    poller.watch(connection, READ)
    poller.forget(connection)
    theirs.send(b"x")
    assert (poller.ready(), poller.watched()) == ([], [])
    poller.watch(connection, READ)
    assert poller.watched() == [connection]
    assert len(poller.ready()) == 1


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="epoll is Linux's")
def test_an_end_that_came_with_the_last_bytes_is_told_with_them(pair: tuple[Connection, socket.socket]) -> None:
    connection, theirs = pair
    poller: EpollPoller[Connection] = EpollPoller()
    theirs.send(b"x")
    theirs.shutdown(socket.SHUT_WR)
    poller.watch(connection, READ)
    assert poller.ready()[0][1] & HANGUP  # nothing else would be: an edge is told once
    assert poller.ready() == []
    poller.close()
