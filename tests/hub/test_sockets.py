"""What is said to a socket arrives whole and in order, whatever the kernel takes at a time."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pushcompat.hub.connection import Connection, State
from pushcompat.hub.poller import READ, WRITE
from pushcompat.hub.reasons import CloseReason
from pushcompat.hub.sockets import Sockets
from pushcompat.hub.timers import TimerWheel
from pushcompat.limits import Limits

MUCH = b"x" * 1_000_000  # more than the kernel takes


class Pair:
    """A connection of ours, and its client."""

    def __init__(self, **limits: int) -> None:
        self.ended: list[str] = []
        self.timers: TimerWheel[Connection] = TimerWheel(0)
        self.sockets = Sockets(self.timers, Limits(**limits))  # type: ignore[arg-type]
        self.sockets.on_end(lambda connection, reason: self.ended.append(reason))
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.client.setblocking(False)
        self.connection = Connection(ours, 0)
        self.sockets.watch(self.connection)

    def flush(self) -> bool:
        """Goes on with what the kernel did not take; whether that is all."""
        self.sockets._flush(self.connection)
        return self.connection.unsent is None

    def ready(self) -> list[tuple[Connection, int]]:
        return self.sockets._poller.ready()

    def read(self) -> bytes:
        """All that has come. Raises EOFError at the end of the stream, if nothing came before it."""
        received = b""
        try:
            while data := self.client.recv(1 << 20):
                received += data
        except BlockingIOError:
            return received
        if not received:
            raise EOFError
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
    pair.sockets.close_all()
    pair.client.close()


def test_later_writes_wait_and_are_then_sent(pair: Pair) -> None:
    pair.sockets.write_later(pair.connection, b"hello")
    assert pair.read() == b""
    pair.sockets.flush_writes()
    assert pair.read() == b"hello"
    pair.sockets.flush_writes()
    assert pair.read() == b""


def test_writes_keep_their_order(pair: Pair) -> None:
    pair.sockets.write_later(pair.connection, b"one ")
    pair.sockets.write(pair.connection, b"two ")
    pair.sockets.write_later(pair.connection, b"three")
    pair.sockets.flush_writes()
    assert pair.read() == b"one two three"


def test_a_later_write_follows_unsent_bytes(pair: Pair) -> None:
    pair.sockets.write(pair.connection, MUCH)
    pair.sockets.write_later(pair.connection, b"end")
    received = b""
    while not pair.flush():
        received += pair.read()
    assert received + pair.read() == MUCH + b"end"


def test_unsent_bytes_are_sent_when_the_kernel_accepts_them(pair: Pair) -> None:
    pair.sockets.write_later(pair.connection, MUCH)
    pair.sockets.flush_writes()
    received = pair.read()
    ((connection, events),) = pair.ready()
    assert (connection, events & WRITE) == (pair.connection, WRITE)
    while not pair.flush():
        received += pair.read()
    assert received + pair.read() == MUCH


def test_last_bytes_that_are_sent_later_are_followed_by_the_end(pair: Pair) -> None:
    pair.sockets.write_later(pair.connection, b"bye")
    pair.sockets.close(pair.connection, CloseReason.RESPONSE_SENT)
    assert (pair.read(), pair.ended) == (b"", [CloseReason.RESPONSE_SENT])
    pair.sockets.flush_writes()
    assert pair.read() == b"bye"
    assert pair.at_end()


@pytest.mark.parametrize("unsent", [b"", b"bye", MUCH])
def test_a_connection_that_closes_has_a_deadline_whatever_is_unsent(pair: Pair, unsent: bytes) -> None:
    pair.timers.now = 100
    if unsent:
        pair.sockets.write_later(pair.connection, unsent)
    pair.sockets.close(pair.connection, CloseReason.RESPONSE_SENT)
    assert pair.connection.deadline == 100 + int(Limits().close_s)
    pair.timers.now = 103
    pair.sockets.flush_writes()
    assert pair.connection.deadline == (103 if unsent == b"bye" else 100) + int(Limits().close_s)


def test_a_paused_client_is_not_read_until_it_is_resumed(pair: Pair) -> None:
    pair.client.send(b"more")
    pair.sockets.pause(pair.connection)
    assert pair.ready() == []
    assert pair.sockets.read() == []
    pair.sockets.resume(pair.connection)
    assert pair.sockets.read() == [(pair.connection, b"more")]


def test_a_client_that_is_gone_gets_nothing_more(pair: Pair) -> None:
    pair.sockets.write_later(pair.connection, b"hello")
    pair.sockets.abort(pair.connection, CloseReason.CLIENT_CLOSED)
    pair.sockets.flush_writes()
    assert pair.connection.state is State.CLOSED
    assert pair.at_end()


def test_a_read_that_filled_its_buffer_is_followed_by_another(pair: Pair) -> None:
    pair.client.send(b"x" * 10_000)
    sizes = []
    while received := pair.sockets.read():
        sizes += [len(data) for _, data in received]
    assert sum(sizes) == 10_000
    assert len(sizes) > 1


def test_a_client_that_is_reported_while_it_is_to_be_read_again_is_read_once(pair: Pair) -> None:
    """Otherwise its end would be seen in the same slice, before its last bytes are handled."""
    pair.client.send(b"x" * 4096)
    ((_, first),) = pair.sockets.read()
    assert (len(first), pair.sockets.readable) == (4096, True)
    pair.client.send(b"last")
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.sockets.read() == [(pair.connection, b"last")]
    assert pair.connection.state is State.READING_HEAD
    assert pair.sockets.read() == []
    assert pair.ended == [CloseReason.CLIENT_CLOSED]


def test_a_paused_client_is_not_read_though_its_last_read_filled_the_buffer(pair: Pair) -> None:
    pair.client.send(b"x" * 10_000)
    ((_, data),) = pair.sockets.read()
    pair.sockets.pause(pair.connection)
    assert pair.sockets.readable
    assert (pair.sockets.read(), pair.sockets.readable) == ([], False)
    pair.sockets.resume(pair.connection)
    received = len(data)
    while got := pair.sockets.read():
        received += len(got[0][1])
    assert received == 10_000


def test_a_client_that_is_closed_is_not_read_though_it_was_reported(pair: Pair) -> None:
    pair.client.send(b"x" * 10_000)
    pair.sockets.read()
    pair.sockets.abort(pair.connection, CloseReason.CLIENT_CLOSED)
    assert pair.sockets.read() == []


def test_the_end_that_came_with_the_last_bytes_is_seen_after_them(pair: Pair) -> None:
    pair.client.send(b"last")
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.sockets.read() == [(pair.connection, b"last")]
    assert pair.sockets.readable
    assert pair.sockets.read() == []
    assert pair.ended == [CloseReason.CLIENT_CLOSED]


def test_a_stream_is_read_no_faster_than_its_limit_a_second(pair: Pair) -> None:
    pair.connection.move(State.STREAMING)
    pair.client.send(b"x" * 10_000)
    limit = Limits().stream_input_bytes

    def read_all() -> int:
        size = 0
        while received := pair.sockets.read():
            size += sum(len(data) for _, data in received)
        return size

    assert read_all() == limit
    pair.sockets.tick()
    assert read_all() == limit


class Crowd:
    """Clients that do not read, and one buffer for all of them, or one each."""

    def __init__(self, count: int, budget: int) -> None:
        self.timers: TimerWheel[Connection] = TimerWheel(0)
        self.sockets = Sockets(self.timers, Limits(unsent_budget_bytes=budget))
        self.ended: list[tuple[Connection, str]] = []
        self.sockets.on_end(lambda connection, reason: self.ended.append((connection, reason)))
        self.clients: list[socket.socket] = []
        self.connections: list[Connection] = []
        for _ in range(count):
            ours, client = socket.socketpair()
            ours.setblocking(False)
            connection = Connection(ours, 0)
            connection.move(State.STREAMING)
            self.sockets.watch(connection)
            self.clients.append(client)
            self.connections.append(connection)

    def close(self) -> None:
        self.sockets.close_all()
        for client in self.clients:
            client.close()


def test_unsent_bytes_that_many_share_count_once() -> None:
    crowd = Crowd(20, 3 * len(MUCH))
    crowd.sockets.broadcast(crowd.connections, MUCH)
    assert crowd.sockets.unsent_bytes == len(MUCH)
    assert crowd.ended == []
    for connection in crowd.connections:
        crowd.sockets.abort(connection, CloseReason.CLIENT_CLOSED)
    assert crowd.sockets.unsent_bytes == 0
    crowd.close()


def test_over_the_budget_those_who_took_nothing_for_the_longest_are_closed() -> None:
    crowd = Crowd(10, 5 * len(MUCH))
    slowest_first = crowd.connections[::-1]
    for tick, connection in enumerate(slowest_first, 1):
        crowd.timers.now = tick
        crowd.sockets.write(connection, MUCH + bytes([tick]))
    assert 0 < crowd.sockets.unsent_bytes <= 5 * len(MUCH)
    assert {reason for _, reason in crowd.ended} == {CloseReason.UNSENT_BUDGET}
    assert [connection for connection, _ in crowd.ended] == slowest_first[: len(crowd.ended)]
    crowd.close()


def test_over_half_of_the_budget_sends_are_smaller() -> None:
    crowd = Crowd(2, 3 * len(MUCH))
    assert crowd.sockets.send_bytes == Limits().send_bytes
    for connection in crowd.connections:
        crowd.sockets.write(connection, MUCH + bytes([crowd.connections.index(connection)]))
    assert crowd.sockets.send_bytes < Limits().send_bytes
    crowd.close()


def test_a_client_that_takes_something_has_more_time(pair: Pair) -> None:
    pair.sockets.write(pair.connection, MUCH)
    assert pair.sockets.is_reading(pair.connection)
    pair.timers.now = int(Limits().write_s) + 1
    assert not pair.sockets.is_reading(pair.connection)
    pair.read()
    pair.flush()
    assert pair.sockets.is_reading(pair.connection)


def test_read_and_write_are_watched_in_turn(pair: Pair) -> None:
    pair.client.send(b"x")
    assert pair.ready()[0][1] & READ
