"""Following channels from a program, on whichever transport the network lets through.

``Listener`` keeps the one cursor: it moves it with what is heard, drops what it has seen, and decides when to come back
and by which transport. So a cut, a rotation or a switch of transport loses and repeats nothing.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from http.client import HTTPException
from ssl import SSLCertVerificationError
from typing import BinaryIO, ClassVar

import msgspec

from .transports import OPEN_S, TRANSPORTS, Cut, Refused, Subscription

_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 30.0
_LAST_WORDS_S = 5.0  # how long a server that asked to come back may take to end the connection
_HELD_S = 5.0  # a connection that lived this long was no failure


class TimeIsUp(Exception):
    """The subscription's deadline has passed."""


class Heard(msgspec.Struct):
    """What matters here of a document: an envelope, which has an id, or a control message."""

    id: str = ""
    control: str = ""
    cursor: str = ""
    heartbeat: float = 0.0
    lifetime: float | None = None
    retry: float = 0.0


_decode = msgspec.json.Decoder(Heard).decode


class Listener:
    """Iterate over ``documents()``: envelopes and resets, each JSON in one line, as the server said it.

    ``messages`` counts the envelopes. Raises Refused, and TimeIsUp at the subscription's deadline.
    """

    def __init__(
        self,
        subscription: Subscription,
        transports: Sequence[str] = tuple(TRANSPORTS),
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.messages = 0
        self.connected = False  # whether anything was ever heard
        self._subscription = subscription
        self._watch = subscription.watch
        self._transports = transports
        self._note = note
        self._heard = False  # on this connection
        self._rotate_s: float | None = None  # the server asked to come back, after so long
        self._away_s = 0.0  # the server is too busy for us, for so long

    def documents(self) -> Iterator[bytes]:
        index = failures = 0
        while True:
            began = time.monotonic()
            yield from self._connection(self._transports[index])
            if time.monotonic() - began >= _HELD_S:
                failures = 0
            if self._rotate_s is not None:
                self._sleep(self._rotate_s)
                continue
            if not self._heard and not self._away_s and index + 1 < len(self._transports):
                index += 1
                continue
            # What works is kept; when nothing does, the best has its turn again
            index = index if self._heard else 0
            self._sleep(max(self._away_s, backoff_s(failures)))
            failures += 1

    def _connection(self, name: str) -> Iterator[bytes]:
        """One connection, to its end."""
        self._heard, self._rotate_s, self._away_s = False, None, 0.0
        self._watch.silence_s = OPEN_S
        reason = "ended"
        try:
            with closing(TRANSPORTS[name](self._subscription)) as documents:
                for document in documents:
                    if self._take(document, name):
                        yield document.translate(_ONE_LINE)
        except Cut as cut:
            reason = str(cut)
            self._away_s = cut.retry_s or 0.0
            if 400 <= cut.status < 500 and len(self._transports) == 1:
                raise Refused(reason) from cut
        except SSLCertVerificationError as error:
            raise Refused(f"the server's certificate is not valid: {error.verify_message}") from error
        except (OSError, HTTPException, msgspec.MsgspecError) as error:
            reason = str(error) or error.__class__.__name__
        if self._watch.left_s() <= 0:
            raise TimeIsUp
        self._note(f"{name}: {reason}")

    def _take(self, document: bytes, name: str) -> bool:
        """Moves the cursor on. Whether the document is for the caller."""
        heard = _decode(document)
        if not self._heard:
            self._heard = self.connected = True
            self._note(f"{name}: connected")
        if not heard.control:
            return self._take_message(heard.id)
        return self._CONTROLS.get(heard.control, Listener._ignore)(self, heard)

    def _take_message(self, cursor: str) -> bool:
        ours = self._subscription.cursor
        if not cursor or (epoch(cursor) == epoch(ours) and cursor <= ours):
            return False
        self._subscription.cursor = cursor
        self.messages += 1
        return True

    def _open(self, heard: Heard) -> bool:
        lifetime = float("inf") if heard.lifetime is None else heard.lifetime
        self._watch.silence_s = min(2 * heard.heartbeat, lifetime + 5) or OPEN_S
        return self._stand(heard)

    def _stand(self, heard: Heard) -> bool:
        """Where the server sees us. Another epoch than ours is news only when it comes with a reset: were it taken
        before, a cut in between would lose the reset.
        """
        ours = self._subscription.cursor
        if not epoch(ours) or (epoch(ours) == epoch(heard.cursor) and heard.cursor > ours):
            self._subscription.cursor = heard.cursor
        return False

    def _rotate(self, heard: Heard) -> bool:
        self._rotate_s = heard.retry / 1000
        self._watch.silence_s = _LAST_WORDS_S
        return self._stand(heard)

    def _reset(self, heard: Heard) -> bool:
        self._subscription.cursor = heard.cursor
        return True

    def _ignore(self, heard: Heard) -> bool:
        return False

    _CONTROLS: ClassVar = {"open": _open, "ping": _stand, "rotate": _rotate, "reset": _reset}

    def _sleep(self, seconds: float) -> None:
        self._note(f"back in {seconds:.1f} s")
        time.sleep(max(0.0, min(seconds, self._watch.left_s())))
        if self._watch.left_s() <= 0:
            raise TimeIsUp


def follow(listener: Listener, count: int | None, out: BinaryIO) -> int:
    """Writes what is heard, a line each, and returns the exit code: see ``pushcompat listen --help``."""
    try:
        for document in listener.documents():
            out.write(document + b"\n")
            out.flush()
            if listener.messages == count:
                return 0
    except TimeIsUp:
        return 0 if listener.connected and count is None else 1
    except BrokenPipeError:
        # Whoever read has had enough. Python flushes once more at exit, which must not fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    return 0


_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")  # JSON has them between tokens only


def epoch(cursor: str) -> str:
    """The epoch of a cursor; empty where it has none, as ``earliest``."""
    return cursor.rpartition("-")[0]


def backoff_s(failures: int) -> float:
    """Full jitter, so that a restarted server is not met by everyone at once."""
    return random.uniform(0, min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** min(failures, 10)))
