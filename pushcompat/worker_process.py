"""A worker process, and the parent's end of the line to it (``worker`` has the other end, and the messages)."""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from .metrics import Figures
from .place import Place
from .worker import Ask, Message, decoded, encoded

_READ_BYTES = 64 * 1024
Heard = Callable[["WorkerProcess", Message], None]


class WorkerProcess:
    """Starts the process. ``place(line)``: its place, with this descriptor of its end of the line. ``heard`` gets its
    messages, from the events of ``selector``. Raises OSError if it cannot be started.
    """

    def __init__(
        self, number: int, place: Callable[[int], Place], selector: selectors.BaseSelector, heard: Heard
    ) -> None:
        self.number = number
        self.started = time.monotonic()
        self.ready = False
        self.dies_at: float | None = None  # when it is killed, if it is still running
        self.asked_at: float | None = None  # for figures that it has not sent yet; None: nothing pending
        self.heard_at = self.started
        self.figures: Figures = {}
        self.failure: str | None = None
        self._heard = heard
        self._selector = selector
        self._received = self._unsent = b""
        self._line, line = socket.socketpair()
        with line:
            here = place(line.fileno())
            self.process = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                env=here.environment(),
                pass_fds=sorted({line.fileno(), *(fd for group in (*here.sockets, here.admin) for fd in group)}),
                stdin=subprocess.DEVNULL,
            )
        self._line.setblocking(False)
        selector.register(self._line, selectors.EVENT_READ, self._on_event)

    def say(self, message: Message) -> None:
        self._unsent += encoded(message)
        self._send()

    def ask(self) -> None:
        if self.asked_at is None:
            self.asked_at = time.monotonic()
            self.say(Ask())

    @property
    def silent_s(self) -> float:
        """Seconds without an answer."""
        return 0.0 if self.asked_at is None else time.monotonic() - self.asked_at

    def close(self) -> None:
        """Reads its last messages."""
        self._receive()
        if self._line.fileno() != -1:
            self._hang_up()

    def _on_event(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._send()
        if events & selectors.EVENT_READ:
            self._receive()

    def _send(self) -> None:
        if self._line.fileno() == -1:
            return
        try:
            self._unsent = self._unsent[self._line.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = b""  # it has ended
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._selector.modify(self._line, events, self._on_event)

    def _receive(self) -> None:
        while self._line.fileno() != -1:
            try:
                data = self._line.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._hang_up()
            *lines, self._received = (self._received + data).split(b"\n")
            for line in lines:
                message = decoded(line)
                if message is not None:
                    self._heard(self, message)

    def _hang_up(self) -> None:
        self._selector.unregister(self._line)
        self._line.close()
