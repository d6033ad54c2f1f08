"""What is said to a socket arrives whole and in order, whatever the kernel takes at a time."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pushcompat.hub.clock import Wheel
from pushcompat.hub.connection import Connection, State
from pushcompat.hub.poller import WRITE
from pushcompat.hub.sockets import Sockets

MUCH = b"x" * 1_000_000  # more than the kernel takes


class Pair:
    """A connection of ours, and its client."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.sockets = Sockets(Wheel(0), 1.0, lambda connection, reason: self.ended.append(reason))
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.client.setblocking(False)
        self.connection = Connection(ours, 0)
        self.sockets.watch(self.connection)

    def uncork(self) -> list[Connection]:
        return list(self.sockets.uncork())

    def read(self) -> bytes:
        """All that has come; b"" also at the end of the stream."""
        received = b""
        try:
            while data := self.client.recv(1 << 20):
                received += data
        except BlockingIOError:
            pass
        return received

    def at_end(self) -> bool:
        try:
            return self.client.recv(1) == b""
        except BlockingIOError:
            return False


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.sockets.close()
    pair.client.close()


def test_what_is_corked_waits_and_then_goes_out(pair: Pair) -> None:
    pair.sockets.cork(pair.connection, b"hello")
    assert pair.read() == b""
    assert pair.uncork() == [pair.connection]
    assert pair.read() == b"hello"
    assert pair.uncork() == []


def test_what_is_said_meanwhile_comes_behind_it(pair: Pair) -> None:
    pair.sockets.cork(pair.connection, b"one ")
    pair.sockets.offer(pair.connection, b"two ")
    pair.sockets.cork(pair.connection, b"three")
    assert pair.uncork() == [pair.connection]
    assert pair.read() == b"one two three"


def test_it_comes_behind_what_was_unsent_before(pair: Pair) -> None:
    pair.sockets.offer(pair.connection, MUCH)
    pair.sockets.cork(pair.connection, b"end")
    received = b""
    while not pair.sockets.flush(pair.connection):
        received += pair.read()
    assert received + pair.read() == MUCH + b"end"


def test_what_the_kernel_does_not_take_goes_out_when_it_can(pair: Pair) -> None:
    pair.sockets.cork(pair.connection, MUCH)
    assert pair.uncork() == []
    received = pair.read()
    assert pair.sockets.ready(10) == [(pair.connection, WRITE)]
    while not pair.sockets.flush(pair.connection):
        received += pair.read()
    assert received + pair.read() == MUCH


def test_last_words_that_are_corked_are_followed_by_the_end(pair: Pair) -> None:
    pair.sockets.cork(pair.connection, b"bye")
    pair.sockets.end(pair.connection, "answered")
    assert (pair.read(), pair.ended) == (b"", ["answered"])
    pair.uncork()
    assert pair.read() == b"bye"
    assert pair.at_end()


def test_a_client_that_said_its_last_is_read_again_after_what_was_corked(pair: Pair) -> None:
    pair.client.shutdown(socket.SHUT_WR)
    pair.sockets.pause(pair.connection)
    pair.sockets.cork(pair.connection, b"answer")
    assert pair.sockets.ready(10) == []
    pair.uncork()
    assert [connection for connection, _ in pair.sockets.ready(10)] == [pair.connection]


def test_a_client_that_is_lost_is_told_nothing_more(pair: Pair) -> None:
    pair.sockets.cork(pair.connection, b"hello")
    pair.sockets.lose(pair.connection, "gone")
    assert pair.uncork() == []
    assert pair.connection.state is State.GONE
