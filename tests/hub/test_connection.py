"""The table of a connection's states."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from pushcompat.hub import states as module
from pushcompat.hub.connection import TRANSITIONS, Connection, IllegalTransition, State

# HANDSHAKING, READING_HEAD, READING_BODY, ADMITTING, PUBLISHING, POLLING, STREAMING, CLOSING, CLOSED
T, H, B, A, P, L, S, G, C = State
EXPECTED = {
    T: {H, G, C},
    H: {B, A, P, L, S, G, C},
    B: {H, P, G, C},
    A: {H, G, C},
    P: {H, G, C},
    L: {H, G, C},
    S: {G, C},
    G: {C},
    C: set(),
}
FIELDS = [name for name in dir(Connection) if name[0] != "_" and not callable(getattr(Connection, name))]
ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"
ALLOWED = [(before, after) for before, states in TRANSITIONS.items() for after in states]
FORBIDDEN = [pair for pair in product(State, State) if pair not in ALLOWED]


def paths() -> dict[State, list[State]]:
    """The shortest way to each state from the first one, HANDSHAKING."""
    found: dict[State, list[State]] = {State.HANDSHAKING: []}
    edge = [State.HANDSHAKING]
    while edge:
        state = edge.pop(0)
        for after in sorted(TRANSITIONS[state], key=lambda s: s.name):
            if after not in found:
                found[after] = [*found[state], after]
                edge.append(after)
    return found


@pytest.fixture
def connection() -> Iterator[Connection]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(ours, 0, State.HANDSHAKING)


def bring(connection: Connection, state: State) -> None:
    for step in paths()[state]:
        connection.move(step)
    assert connection.state is state


def test_a_connection_without_tls_begins_by_waiting_for_a_request() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert Connection(ours, 0).state is State.READING_HEAD


def test_every_state_has_its_row_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(State)
    assert set(paths()) == set(State)


@pytest.mark.parametrize(("before", "after"), ALLOWED, ids=str)
def test_a_listed_transition_is_made(connection: Connection, before: State, after: State) -> None:
    bring(connection, before)
    connection.move(after)
    assert connection.state is after


@pytest.mark.parametrize(("before", "after"), FORBIDDEN, ids=str)
def test_an_unlisted_transition_raises_and_changes_nothing(connection: Connection, before: State, after: State) -> None:
    bring(connection, before)
    as_it_was = {name: getattr(connection, name) for name in FIELDS}
    with pytest.raises(IllegalTransition, match=f"{before.name} → {after.name}"):
        connection.move(after)
    assert {name: getattr(connection, name) for name in FIELDS} == as_it_was


def test_closed_is_final_and_everything_can_go() -> None:
    assert TRANSITIONS[State.CLOSED] == frozenset()
    assert all(State.CLOSED in states for before, states in TRANSITIONS.items() if before is not State.CLOSED)


def test_closing_leads_to_closed_alone() -> None:
    assert TRANSITIONS[State.CLOSING] == {State.CLOSED}


def test_a_stream_is_never_a_request_again() -> None:
    assert State.READING_HEAD not in TRANSITIONS[State.STREAMING]


def test_the_address_of_a_client_that_is_gone_is_none() -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, 0)
    assert connection.address is not None
    ours.close()
    theirs.close()
    assert connection.address is None


def test_the_table_is_this_one() -> None:
    assert EXPECTED == TRANSITIONS


@pytest.mark.parametrize("text", [module.__doc__, ARCHITECTURE.read_text()], ids=["states.py", "architecture.md"])
def test_the_drawing_is_the_tables(text: str) -> None:
    rows = re.findall(r"^ +([A-Z_]+) +->(.*)$", text, re.MULTILINE)
    assert {State[name]: {State[word] for word in states.split()} for name, states in rows} == TRANSITIONS
