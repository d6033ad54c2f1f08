"""The states of a connection:

    HANDSHAKING   the TLS handshake is not complete; connections without TLS begin in the next state
    READING_HEAD  waits for a complete request head. A long-poll client between two polls is in this state too, and
                  keeps its subscription for a while, so that it counts as a subscriber and its next poll is cheap.
    READING_BODY  waits for the rest of the body of a publish
    ADMITTING     waits for the verdict on a subscriber: its token is verified, or the application asked
    PUBLISHING    waits for the log to store the publish, or for the list of channels
    POLLING       a long-poll is held
    STREAMING     a WebSocket or an event stream is open
    CLOSING       sends the last bytes, then waits for the client's FIN or Close frame
    CLOSED        closed, or handed to Tornado

and the transitions between them (drawn from ``TRANSITIONS``, and compared with it by a test):

    HANDSHAKING  -> READING_HEAD CLOSING CLOSED
    READING_HEAD -> READING_BODY ADMITTING PUBLISHING POLLING STREAMING CLOSING CLOSED
    READING_BODY -> READING_HEAD PUBLISHING CLOSING CLOSED
    ADMITTING    -> READING_HEAD CLOSING CLOSED
    PUBLISHING   -> READING_HEAD CLOSING CLOSED
    POLLING      -> READING_HEAD CLOSING CLOSED
    STREAMING    -> CLOSING CLOSED
    CLOSING      -> CLOSED
    CLOSED       ->

A transition that is not in the table raises ``IllegalTransition`` and changes nothing: it is a bug of the hub.

It is a separate file because mypyc cannot compile an IntEnum (setup.py).
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):  # int, for its fast hash: Enum's is a Python function, and states are often looked up
    HANDSHAKING = 1
    READING_HEAD = 2
    READING_BODY = 3
    ADMITTING = 4
    PUBLISHING = 5
    POLLING = 6
    STREAMING = 7
    CLOSING = 8
    CLOSED = 9


TRANSITIONS: dict[State, frozenset[State]] = {
    State.HANDSHAKING: frozenset({State.READING_HEAD, State.CLOSING, State.CLOSED}),
    State.READING_HEAD: frozenset(
        {
            State.READING_BODY,
            State.ADMITTING,
            State.PUBLISHING,
            State.POLLING,
            State.STREAMING,
            State.CLOSING,
            State.CLOSED,
        }
    ),
    State.READING_BODY: frozenset({State.READING_HEAD, State.PUBLISHING, State.CLOSING, State.CLOSED}),
    State.ADMITTING: frozenset({State.READING_HEAD, State.CLOSING, State.CLOSED}),
    State.PUBLISHING: frozenset({State.READING_HEAD, State.CLOSING, State.CLOSED}),
    State.POLLING: frozenset({State.READING_HEAD, State.CLOSING, State.CLOSED}),
    State.STREAMING: frozenset({State.CLOSING, State.CLOSED}),
    State.CLOSING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}


class IllegalTransition(RuntimeError):
    """Transition that the table does not allow."""
