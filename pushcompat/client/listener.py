"""Subscribing to channels from a program, over any transport that the network allows.

``Listener`` keeps the position, drops messages that were received before, and decides when to reconnect and over which
transport. So a disconnect, a rotation or a switch of transport loses and repeats nothing.

Reconnecting (docs/protocol.md section 12): a transport that works is kept. One that fails before its first document, or
refuses, is followed by the next; after the last one the best is tried again, with backoff, or the refusal is raised. A
token that comes from a function is asked for again if it was refused: at once, then with backoff. No server, cache or
proxy can make it reconnect without a pause, or wait for more than an hour.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from http.client import HTTPException, IncompleteRead
from ssl import SSLCertVerificationError
from typing import BinaryIO, ClassVar

import msgspec

from .responses import MAX_RETRY_AFTER_S
from .transports import (
    OPEN_S,
    TRANSPORTS,
    ConnectionLost,
    Documents,
    ListenRefused,
    Subscription,
    TokenRefused,
    decoded,
)

_FIRST_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 30.0
_MIN_ROTATE_S = 0.1
_CLOSING_S = 5.0  # how long the server may take to end a connection after `rotate`
_SHORT_S = 1.0  # a connection that is rotated sooner counts as a failure
_LASTING_S = 5.0  # a connection that lasted this long was no failure


class TimeIsUp(Exception):
    """The subscription's deadline has passed."""


class Document(msgspec.Struct):
    """The relevant members of an envelope (which has an id) or of a control message."""

    id: str = ""
    control: str = ""
    cursor: str = ""
    heartbeat: float = 0.0
    lifetime: float | None = None
    retry: float = 0.0


_decode = msgspec.json.Decoder(Document).decode


class Listener:
    """Iterate over ``documents()``: envelopes and resets, each JSON in one line, as the server sent it.

    ``messages`` counts the envelopes. Raises ListenRefused, and TimeIsUp at the subscription's deadline.
    """

    def __init__(
        self,
        subscription: Subscription,
        transports: Sequence[str] = tuple(TRANSPORTS),
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.messages = 0
        self.connected = False  # whether anything was ever received
        self._subscription = subscription
        self._position = subscription.position
        self._watchdog = subscription.watchdog
        self._transports = transports
        self._note = note
        # Of the current connection
        self._received = False
        self._refusal: ListenRefused | None = None
        self._rotate_s: float | None = None
        self._expired = False
        self._retry_after_s = 0.0

    def documents(self) -> Documents:
        index = failures = 0
        while True:
            began = time.monotonic()
            yield from self._connection(self._transports[index])
            lived_s = time.monotonic() - began
            if lived_s >= _LASTING_S:
                failures = 0
            if self._may_renew(failures):
                self._sleep(backoff_s(failures) if failures else 0.0)
                failures += 1
                continue
            if self._may_use_next() and index + 1 < len(self._transports):
                index += 1
                continue
            if self._refusal is not None:
                raise self._refusal
            if self._rotate_s is not None and lived_s >= _SHORT_S:
                self._sleep(self._rotate_s)
                continue
            if not self._received:
                index = 0
            self._sleep(max(self._rotate_s or 0.0, self._retry_after_s + backoff_s(failures)))
            failures += 1

    def _may_use_next(self) -> bool:
        """Whether the next transport may succeed now. If the server is busy, it would not."""
        return self._refusal is not None or not (self._received or self._retry_after_s)

    def _may_renew(self, failures: int) -> bool:
        """Whether another token may be accepted. If none ever was, the second one is the last."""
        if not (isinstance(self._refusal, TokenRefused) and callable(self._subscription.token)):
            return False
        return self.connected or not failures

    def _connection(self, name: str) -> Iterator[bytes]:
        """One connection, to its end."""
        self._received, self._refusal, self._rotate_s, self._expired, self._retry_after_s = (
            False,
            None,
            None,
            False,
            0.0,
        )
        self._watchdog.silence_s = OPEN_S
        self._position.connecting()
        reason = "ended"
        try:
            with closing(TRANSPORTS[name](self._subscription)) as documents:
                for document in documents:
                    if self._handle(decoded(_decode, document), name):
                        yield document.translate(_ONE_LINE)
        except ListenRefused as error:
            reason = str(error)
            self._refusal = None if self._expired else error  # a new token, or a new verdict, may be accepted
        except ConnectionLost as error:
            reason = str(error)
            self._retry_after_s = error.retry_after_s or 0.0
        except SSLCertVerificationError as error:
            raise ListenRefused(f"TLS certificate verification failed: {error.verify_message}") from error
        except IncompleteRead:
            reason = "the connection was lost in the middle of the response"
        except (OSError, HTTPException) as error:
            reason = str(error) or error.__class__.__name__
        if self._watchdog.remaining_s() <= 0:
            raise TimeIsUp
        self._note(f"{name}: {reason}")

    def _handle(self, document: Document, name: str) -> bool:
        """Updates the position. Returns whether the document is for the caller."""
        if not (document.id or document.control):
            raise ConnectionLost("what was received is not of this protocol: a message without an id")
        if not self._received:
            self._received = self.connected = True
            self._note(f"{name}: connected")
        if self._position.contradicts(document.cursor or document.id):
            raise ConnectionLost("the log was replaced: the messages of the old one may be lost")
        if not document.control:
            return self._message(document)
        if (handle := self._CONTROLS.get(document.control)) is None:
            return False
        if not document.cursor:
            raise ConnectionLost(f"what was received is not of this protocol: {document.control!r} without a cursor")
        return handle(self, document)

    def _message(self, document: Document) -> bool:
        is_news = self._position.received(document.id)
        self.messages += is_news
        return is_news

    def _open(self, document: Document) -> bool:
        lifetime_s = float("inf") if document.lifetime is None else document.lifetime
        self._watchdog.silence_s = min(2 * document.heartbeat, lifetime_s + 5) or OPEN_S
        self._position.opened(document.cursor)
        return False

    def _ping(self, document: Document) -> bool:
        self._position.reached(document.cursor)
        return False

    def _rotate(self, document: Document) -> bool:
        self._rotate_s = min(max(_MIN_ROTATE_S, document.retry / 1000), MAX_RETRY_AFTER_S)
        self._watchdog.silence_s = _CLOSING_S
        return self._ping(document)

    def _expire(self, document: Document) -> bool:
        """The token, or the application's verdict, is no longer valid."""
        self._expired = True
        return self._rotate(document)

    def _reset(self, document: Document) -> bool:
        self._position.reset(document.cursor)
        return True

    _CONTROLS: ClassVar = {"open": _open, "ping": _ping, "rotate": _rotate, "expired": _expire, "reset": _reset}

    def _sleep(self, seconds: float) -> None:
        self._note(f"reconnecting in {seconds:.1f} s")
        time.sleep(max(0.0, min(seconds, self._watchdog.remaining_s())))
        if self._watchdog.remaining_s() <= 0:
            raise TimeIsUp


def follow(listener: Listener, count: int | None, out: BinaryIO) -> int:
    """Writes each document as a line, and returns the exit code: see ``pushcompat listen --help``."""
    try:
        for document in listener.documents():
            out.write(document + b"\n")
            out.flush()
            if listener.messages == count:
                return 0
    except TimeIsUp:
        return 0 if listener.connected and count is None else 1
    except BrokenPipeError:
        # The reader closed stdout. Python flushes once more at exit, which must not fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    return 0


_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")  # JSON has them between tokens only


def backoff_s(failures: int) -> float:
    """Full jitter, so that not all clients reconnect to a restarted server at once."""
    return random.uniform(0, min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** min(failures, 10)))
