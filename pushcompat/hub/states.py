"""The states of a connection:

    READING_HEAD  waits for a request head, or for the rest of one. A long-poller between two polls is here too, and
                  keeps its subscription for a while, so that it counts as a subscriber and its next poll is cheap.
    READING_BODY  waits for the rest of the body of a publish
    PUBLISHING    waits for the log to store the publish, or for the list of channels
    POLLING       a long-poll is held
    STREAMING     a WebSocket or an event stream is open
    CLOSING       the last bytes go out, then the client's FIN or Close frame is awaited
    CLOSED        closed, or handed to Tornado

and the transitions between them (drawn from ``TRANSITIONS``, and compared with it by a test):

    READING_HEAD -> READING_BODY PUBLISHING POLLING STREAMING CLOSING CLOSED
    READING_BODY -> READING_HEAD PUBLISHING CLOSING CLOSED
    PUBLISHING   -> READING_HEAD CLOSING CLOSED
    POLLING      -> READING_HEAD CLOSING CLOSED
    STREAMING    -> CLOSING CLOSED
    CLOSING      -> CLOSED
    CLOSED       ->

A transition that is not in the table raises ``IllegalTransition`` and changes nothing: it is a bug of the hub.

It is a file of its own because the compiled build cannot make an IntEnum (setup.py).
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):  # of int for its hash: an Enum's own is a Python function, and states are looked up all the time
    READING_HEAD = 1
    READING_BODY = 2
    PUBLISHING = 3
    POLLING = 4
    STREAMING = 5
    CLOSING = 6
    CLOSED = 7


TRANSITIONS: dict[State, frozenset[State]] = {
    State.READING_HEAD: frozenset(
        {State.READING_BODY, State.PUBLISHING, State.POLLING, State.STREAMING, State.CLOSING, State.CLOSED}
    ),
    State.READING_BODY: frozenset({State.READING_HEAD, State.PUBLISHING, State.CLOSING, State.CLOSED}),
    State.PUBLISHING: frozenset({State.READING_HEAD, State.CLOSING, State.CLOSED}),
    State.POLLING: frozenset({State.READING_HEAD, State.CLOSING, State.CLOSED}),
    State.STREAMING: frozenset({State.CLOSING, State.CLOSED}),
    State.CLOSING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}


class IllegalTransition(RuntimeError):
    """The hub tried to move a connection to a state that cannot follow its own."""
