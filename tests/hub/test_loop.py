"""The turn: how much of what is ready is done in it, and that one connection's bug costs no other."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pushcompat.hub import loop as module
from pushcompat.hub.connection import Connection, State
from pushcompat.hub.context import Context
from pushcompat.hub.loop import Loop
from pushcompat.hub.reasons import CloseReason
from pushcompat.limits import Limits
from pushcompat.metrics import Metrics

from ..machine import interpreted_only

pytestmark = interpreted_only

STATES = set(State) - {State.CLOSED}
READ = STATES - {State.HANDSHAKING}


class Publishing:
    ready = False

    def __init__(self) -> None:
        self.commits = 0
        self.queue = ["a publish"]

    def commit(self) -> None:
        self.commits += 1


class Fanout:
    busy = active = False


class Admission:
    ready = False


class Turns:
    """A loop whose parts only note what they are called with. The clock says ``time_s``."""

    def __init__(self, **limits: int) -> None:
        self.context = Context(Limits(**limits), Metrics())  # type: ignore[arg-type]
        self.sockets = self.context.sockets
        self.publishing: Any = Publishing()
        self.admission: Any = Admission()
        self.fanout: Any = Fanout()
        self.received: list[Connection] = []
        self.served: list[Connection] = []
        self.handshakes: list[Connection] = []
        self.resumed: list[Connection] = []
        self.ended: list[str] = []
        self.sockets.on_end(lambda connection, reason: self.ended.append(reason))
        self.loop = Loop(
            self.context,
            dict.fromkeys(READ, self.receive),
            dict.fromkeys(STATES, self.on_timer),
            self.resumed.append,
            self.proceed,
            self.publishing,
            self.admission,
            self.fanout,
        )
        self._clients: list[socket.socket] = []

    def receive(self, connection: Connection, data: bytes) -> None:
        self.received.append(connection)
        if data == b"bug":
            raise ZeroDivisionError

    def proceed(self, connection: Connection) -> None:
        self.handshakes.append(connection)
        if len(self.handshakes) == 1:
            raise ZeroDivisionError

    def on_timer(self, connection: Connection) -> None:
        self.served.append(connection)
        if len(self.served) == 1:
            raise ZeroDivisionError

    def connect(self, count: int, sent: bytes = b"") -> list[Connection]:
        connections = []
        for _ in range(count):
            ours, client = socket.socketpair()
            ours.setblocking(False)
            client.send(sent)
            self._clients.append(client)
            connections.append(Connection(ours, self.context.timers.now))
            self.sockets.watch(connections[-1])
        return connections

    def is_due(self, connections: list[Connection]) -> None:
        now = self.context.timers.now + 1
        for connection in connections:
            self.context.timers.set(connection, now)
        self.loop._due.extend(self.context.timers.advance(now))

    def close(self) -> None:
        self.sockets.close_all()
        for client in self._clients:
            client.close()


@pytest.fixture
def make_turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Turns]]:
    """Turns that are limited by count alone, so that a slow machine does as much in one as a fast one."""
    monkeypatch.setattr(module, "_TURN_S", 60.0)
    monkeypatch.setattr(module, "_HANDSHAKES_S", 60.0)
    made: list[Turns] = []

    def make(**limits: int) -> Turns:
        made.append(Turns(**limits))
        return made[-1]

    yield make
    for turns in made:
        turns.close()


@pytest.fixture
def turns(make_turns: Callable[..., Turns]) -> Turns:
    return make_turns()


MakeTurns = Callable[..., Turns]


@pytest.mark.parametrize("missing", sorted(STATES))
@pytest.mark.parametrize("table", [0, 1])
def test_every_state_must_have_its_row_in_both_tables(turns: Turns, missing: State, table: int) -> None:
    tables: list[dict[State, Any]] = [dict.fromkeys(READ, print), dict.fromkeys(STATES, print)]
    tables[table].pop(missing, None)
    if (table, missing) == (0, State.HANDSHAKING):
        tables[table][missing] = print  # a row that nothing would use
    with pytest.raises(AssertionError, match="every state"):
        Loop(turns.context, tables[0], tables[1], print, print, turns.publishing, turns.admission, turns.fanout)


def test_a_turn_reads_as_many_sockets_as_it_may_and_the_rest_in_the_next_ones(make_turns: MakeTurns) -> None:
    turns = make_turns(max_visits=128)
    crowd = turns.connect(200, b"x")
    assert turns.loop.turn()
    assert len(turns.received) == 128
    while turns.loop.turn():
        pass
    assert sorted(map(id, turns.received)) == sorted(map(id, crowd))


def test_during_a_pass_a_turn_reads_a_quarter_of_that(make_turns: MakeTurns) -> None:
    turns = make_turns(max_visits=256)
    turns.connect(200, b"x")
    turns.fanout.busy = True
    assert turns.loop.turn()
    assert len(turns.received) == 64


def test_publishes_are_stored_before_more_is_read_and_before_they_are_sent(turns: Turns) -> None:
    turns.connect(100, b"x")
    turns.loop.turn()
    assert turns.publishing.commits >= 3  # first, and after each slice of 64


def test_a_turn_that_took_too_long_leaves_the_rest_to_the_next_one(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    time_s = itertools.count(0, 100)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(time_s))
    readers, due, pipelined = turns.connect(200, b"x"), turns.connect(5), turns.connect(5)
    turns.served.append(readers[0])  # no bug today
    turns.is_due(due)
    turns.context.pipelined.extend(pipelined)
    assert turns.loop.turn()
    assert (len(turns.received), len(turns.served), len(turns.resumed)) == (64, 1 + 1, 1)
    while turns.loop.turn():
        pass
    assert (len(turns.received), turns.served[1:], turns.resumed) == (200, due, pipelined)


def test_no_more_deadlines_are_served_in_one_turn_than_visits_are_made(make_turns: MakeTurns) -> None:
    turns = make_turns(max_visits=10)
    due = turns.connect(25)
    turns.is_due(due)
    assert [turns.loop.turn() and len(turns.served) for _ in range(3)] == [10, 20, False]
    assert len(turns.served) == 25


def test_a_deadline_that_was_put_off_or_whose_connection_is_closed_is_not_served(turns: Turns) -> None:
    put_off, closed, due = turns.connect(3)
    turns.served.append(due)
    turns.is_due([put_off, closed, due])
    turns.context.timers.set(put_off, turns.context.timers.now + 5)
    turns.sockets.abort(closed, CloseReason.CLIENT_CLOSED)
    turns.loop.turn()
    assert turns.served == [due, due]


def test_a_pipelined_request_waits_for_the_response_before_it(turns: Turns) -> None:
    ready, behind, polling = turns.connect(3)
    behind.unsent = memoryview(b"response")
    polling.move(State.POLLING)
    turns.context.pipelined.extend([ready, behind, polling])
    turns.loop.turn()
    assert turns.resumed == [ready]
    behind.unsent = None


@pytest.mark.parametrize("where", ["reading", "a timer", "resuming"])
def test_a_bug_costs_the_connection_that_it_happened_to_and_no_other(
    turns: Turns, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    (bad,) = turns.connect(1, b"bug" if where == "reading" else b"")
    (good,) = turns.connect(1, b"x")
    if where == "a timer":
        turns.is_due([bad, good])
    elif where == "resuming":
        turns.loop._resume = lambda connection: turns.receive(connection, b"bug")
        turns.context.pipelined.append(bad)
    while turns.loop.turn():
        pass
    assert (bad.state, good.state) == (State.CLOSED, State.READING_HEAD)
    assert turns.ended == [CloseReason.INTERNAL_ERROR]
    assert "BUG: unhandled exception, connection closed (state READING_HEAD)" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert good in turns.received


# TLS handshakes


def waiting(turns: Turns, count: int) -> list[Connection]:
    connections = turns.connect(count)
    for connection in connections:
        connection.state = State.HANDSHAKING
    turns.sockets.handshaking.extend(connections)
    return connections


def test_handshakes_take_their_share_of_a_turn_and_the_rest_wait_for_the_next_ones(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes 0.5 ms here, so it is their time that counts: 2 ms, and the one that goes beyond."""
    connections = waiting(turns, 12)
    monkeypatch.setattr(module, "_HANDSHAKES_S", 0.002)
    monkeypatch.setattr(module.time, "monotonic", lambda: 0.0005 * len(turns.handshakes))
    for expected in (5, 10):
        assert turns.loop.turn()
        assert turns.handshakes == connections[:expected]
    turns.loop.turn()
    assert turns.handshakes == connections


def test_a_turn_whose_time_is_used_up_makes_one_handshake(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = waiting(turns, 3)
    monkeypatch.setattr(module, "_TURN_S", -1.0)
    assert turns.loop.turn()
    assert turns.handshakes == connections[:1]


def test_a_bug_in_one_handshake_closes_that_connection_only(turns: Turns) -> None:
    waiting(turns, 2)
    turns.loop.turn()
    assert [connection.state for connection in turns.handshakes] == [State.CLOSED, State.HANDSHAKING]
    assert turns.ended == [CloseReason.INTERNAL_ERROR]


def test_the_handshake_of_a_connection_that_is_closed_is_not_continued(turns: Turns) -> None:
    (connection,) = waiting(turns, 1)
    turns.sockets.abort(connection, CloseReason.SERVER_CLOSED)
    turns.loop.turn()
    assert turns.handshakes == []


def test_a_socket_that_is_ready_for_its_handshake_is_not_read(turns: Turns) -> None:
    (connection,) = turns.connect(1, b"\x16")
    connection.state = State.HANDSHAKING
    turns.loop.turn()
    assert (turns.received, turns.handshakes) == ([], [connection])
