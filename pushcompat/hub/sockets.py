"""The hub's sockets: one poller for all of them, and all socket I/O.

Writing. Bytes passed to ``send`` never change. Bytes that the kernel does not accept are *unsent*; they are sent before
anything else, control frames included. A connection with unsent bytes is watched for writing only: a client that does
not read is not read either, so a flood of pings cannot increase its unsent bytes.

All unsent bytes together have a budget. Each buffer is counted once, since most slow readers share theirs (``chunks``).
Above half of it, connections with a backlog get smaller sends; above all of it, the connections whose clients have read
nothing for the longest time are closed.

Reading. A turn reads many sockets before it handles their input, and sends what it wrote in one loop, since
interleaving system calls with Python code causes cache misses: a storm of handshakes would cost a third more. A stream
is read at most at ``stream_input_bytes`` a second: messages from clients have no meaning here.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .. import logs
from ..limits import Limits
from ..tls import BLOCKED, Certificate, TLSSocket, end, has_unread
from .connection import Connection, State
from .poller import HANGUP, READ, WRITE, make_poller, merged
from .reasons import CloseReason
from .selector import LoopSelector
from .timers import TimerWheel

_BODY_BYTES = 64 * 1024  # in one read, while a body is received
_READ_BYTES = 4 * 1024  # otherwise: more than nearly any head. A larger buffer costs half a microsecond each time
_SLICE = 64  # connections that are read before their input is handled
_LEAST_SEND_BYTES = 16 * 1024  # of one send, when the budget for unsent bytes is half used up

_HANDSHAKING, _READING_HEAD = State.HANDSHAKING, State.READING_HEAD
_STREAMING, _CLOSED = State.STREAMING, State.CLOSED

Input = list[tuple[Connection, bytes]]


class Sockets:
    """``on_end(callback)``: ``callback(connection, reason)`` is called once, when a connection starts closing or is
    closed, possibly with unsent bytes.
    """

    def __init__(self, timers: TimerWheel[Connection], limits: Limits, selector: LoopSelector | None = None) -> None:
        self._poller = make_poller(selector)
        self._timers = timers
        self._limits = limits
        self._close_s = max(1, int(limits.closing_s))
        self._end_callbacks: list[Callable[[Connection, CloseReason], None]] = []
        self._flush_callbacks: list[Callable[[Connection], None]] = []
        self._paused: set[Connection] = set()
        self._throttled: list[Connection] = []  # paused streams that have used their input rate for this second
        self._heard: dict[Connection, int] = {}  # bytes read from streams within this second
        self._max = sys.maxsize if limits.max_connections is None else limits.max_connections
        self._written: list[Connection] = []  # with bytes for ``flush_writes``
        self._ready: deque[tuple[Connection, int]] = deque()  # reported, not read yet
        self._reread: dict[Connection, int] = {}  # to read again without a report, with their events
        self.handshaking: deque[Connection] = deque()  # reported, to continue their TLS handshake
        self._buffer = memoryview(bytearray(_BODY_BYTES))
        self._buffers: dict[int, list[int]] = {}  # buffers of unsent bytes, by id: [users, size]
        self.unsent_bytes = 0  # of all buffers

    # Connections

    def __len__(self) -> int:
        return len(self._poller) + len(self._paused)

    def connections(self) -> list[Connection]:
        return [*self._poller.watched(), *self._paused]

    @property
    def full(self) -> bool:
        """The maximum number of connections for subscribers is reached; the rest is for publishers and pages."""
        return len(self._poller) + len(self._paused) >= self._max

    def start(self, on_ready: Callable[[], None]) -> None:
        self._poller.start(on_ready)

    def on_end(self, callback: Callable[[Connection, CloseReason], None]) -> None:
        self._end_callbacks.append(callback)

    def on_flushed(self, callback: Callable[[Connection], None]) -> None:
        """``callback(connection)`` is called when all unsent bytes were sent."""
        self._flush_callbacks.append(callback)

    def watch(self, connection: Connection) -> None:
        self._poller.watch(connection, READ)
        if connection.tls:
            self._reread[connection] = READ  # what is decrypted already, no poller reports

    def watch_handshake(self, connection: Connection, events: int) -> None:
        """READ or WRITE, as OpenSSL asks for."""
        self._poller.watch(connection, events)

    def encrypt(self, connection: Connection, certificate: Certificate) -> None:
        """Encrypts the connection from now on, handshake first. Raises OSError, with the connection closed."""
        self._poller.forget(connection)
        try:
            connection.socket = certificate.wrap(connection.socket)
        except OSError:
            connection.move(_CLOSED)
            self._timers.cancel(connection)
            raise
        connection.tls = True
        self._poller.watch(connection, READ)

    def detach(self, connection: Connection) -> socket.socket:
        """Detaches and returns the open socket, which still counts for the connection's peer."""
        self._unwatch(connection)
        connection.move(State.CLOSED)
        self._timers.cancel(connection)
        sock = connection.socket
        return sock if isinstance(sock, TLSSocket) else socket.socket(fileno=sock.detach())

    def pause(self, connection: Connection) -> None:
        """Stops reading from the connection, until ``resume``."""
        if connection not in self._paused:
            self._poller.forget(connection)
            self._paused.add(connection)

    def resume(self, connection: Connection) -> None:
        if connection in self._paused and connection.unsent is None:
            self._paused.remove(connection)
            self.watch(connection)

    def tick(self) -> None:
        """A second has passed: streams may be read again."""
        throttled, self._throttled = self._throttled, []
        for connection in throttled:
            self.resume(connection)
        self._heard.clear()

    def _unwatch(self, connection: Connection) -> None:
        if connection in self._paused:
            self._paused.remove(connection)
        else:
            self._poller.forget(connection)

    # Reading

    @property
    def writes_pending(self) -> bool:
        return bool(self._written)

    @property
    def readable(self) -> bool:
        """There is input that the poller will not report again."""
        return bool(self._ready or self._reread)

    def read(self) -> Input:
        """Reads some of the ready sockets; the others stay ready. Each connection appears at most once."""
        ready = self._ready
        if not ready:
            found = self._poller.ready()
            if self._reread:
                reread, self._reread = self._reread, {}
                found = merged([*found, *reread.items()])
            ready.extend(found)
        received: Input = []
        for _ in range(min(len(ready), _SLICE)):
            connection, events = ready.popleft()
            state = connection.state
            if state is _CLOSED or connection in self._paused:
                continue
            if state is _HANDSHAKING:
                self.handshaking.append(connection)
                continue
            if connection.unsent is not None:
                self._flush(connection)
                continue
            data = self._read(connection, events, state)
            if data:
                received.append((connection, data))
        return received

    def _read(self, connection: Connection, events: int, state: State) -> bytes:
        """Returns the input of one read. Only this method decides whether a socket is drained: after a read that did
        not fill its buffer, unless the client has closed its side; with TLS, when a read would block.
        """
        size = _READ_BYTES if connection.request is None else _BODY_BYTES
        if state is _STREAMING:
            size = min(self._limits.stream_input_bytes, _BODY_BYTES)
        try:
            got = connection.socket.recv_into(self._buffer, size)
        except ssl.SSLWantWriteError:
            self._wait_to_write(connection)
            return b""
        except BLOCKED:
            return b""
        except OSError:
            self.abort(connection, CloseReason.CONNECTION_RESET)
            return b""
        if not got:
            self._half_closed(connection)
            return b""
        if got == size or events & HANGUP or connection.tls:
            self._reread[connection] = events
        if state is _STREAMING:
            self._throttle(connection, got)
        return bytes(self._buffer[:got])

    def has_unread(self, connection: Connection) -> bool:
        """Whether the client has sent bytes that were not read yet."""
        return has_unread(connection.socket)

    def _throttle(self, connection: Connection, got: int) -> None:
        heard = self._heard[connection] = self._heard.get(connection, 0) + got
        if heard >= self._limits.stream_input_bytes:
            self.pause(connection)
            self._throttled.append(connection)
            self._reread.pop(connection, None)

    def _half_closed(self, connection: Connection) -> None:
        """The client has closed its side. A publisher may still expect responses; other connections are closed."""
        if connection.state is State.PUBLISHING or (connection.state is State.READING_HEAD and connection.request):
            self.pause(connection)
        else:
            self.abort(connection, CloseReason.CLIENT_CLOSED)

    # Writing

    def write(self, connection: Connection, data: bytes | memoryview) -> None:
        """Sends ``data``, after any unsent bytes."""
        if connection.unsent is not None:
            self._append_unsent(connection, data)
            return
        try:
            sent = connection.socket.send(data)
        except BLOCKED:
            sent = 0
        except OSError:
            self.abort(connection, CloseReason.CONNECTION_RESET)
            return
        if sent != len(data):
            self._buffer_unsent(connection, memoryview(data)[sent:])

    def write_later(self, connection: Connection, data: bytes) -> None:
        """Sends ``data``, after any unsent bytes, in ``flush_writes``."""
        if connection.unsent is not None:
            self._append_unsent(connection, data)
            return
        connection.unsent = data
        self._written.append(connection)

    def flush_writes(self) -> None:
        """Sends the bytes of ``write_later``: many sends in one loop cost less."""
        written, self._written = self._written, []
        for connection in written:
            data, connection.unsent = connection.unsent, None
            if data is None:
                continue  # closed in the meantime
            try:
                sent = connection.socket.send(data)
            except BLOCKED:
                sent = 0
            except OSError:
                self.abort(connection, CloseReason.CONNECTION_RESET)
                continue
            if sent != len(data):
                self._buffer_unsent(connection, memoryview(data)[sent:])
            elif connection.state is not _READING_HEAD or connection.pending_input or connection in self._paused:
                self._flushed(connection)

    def broadcast(self, connections: Sequence[Connection], data: bytes) -> None:
        """Sends the same bytes to each. None of them may have anything unsent."""
        size, now = len(data), self._timers.now
        for connection in connections:
            try:
                sent = connection.socket.send(data)
            except BLOCKED:
                sent = 0
            except OSError:
                self.abort(connection, CloseReason.CONNECTION_RESET)
                continue
            connection.last_write = now
            if sent != size:
                self._buffer_unsent(connection, memoryview(data)[sent:])

    def _flush(self, connection: Connection) -> None:
        """Sends unsent bytes."""
        unsent = connection.unsent
        assert unsent is not None
        try:
            sent = connection.socket.send(unsent)
        except BLOCKED:
            return
        except OSError:
            self.abort(connection, CloseReason.CONNECTION_RESET)
            return
        connection.last_write = self._timers.now
        if sent != len(unsent):
            connection.unsent = unsent[sent:]
            return
        self._release_unsent(connection)
        self.watch(connection)
        self._flushed(connection)

    def _flushed(self, connection: Connection) -> None:
        try:
            if connection.state is State.CLOSING:
                self._timers.set(connection, self._timers.now + self._close_s)
                self.resume(connection)
                self.shutdown_write(connection)
                return
            for callback in self._flush_callbacks:
                callback(connection)
        except Exception:
            self.log_bug_and_abort(connection)

    # Unsent bytes

    def is_reading(self, connection: Connection) -> bool:
        """Whether the client reads its unsent bytes, however slowly; if so, its deadline is postponed."""
        until = connection.last_write + int(self._limits.write_s)
        if connection.unsent is None or until <= self._timers.now:
            return False
        self._timers.set(connection, until)
        return True

    @property
    def send_bytes(self) -> int:
        """The maximum bytes of messages in one send."""
        most = self._limits.send_bytes
        return most if self.unsent_bytes * 2 < self._limits.unsent_budget_bytes else min(most, _LEAST_SEND_BYTES)

    def _buffer_unsent(self, connection: Connection, unsent: memoryview) -> None:
        connection.unsent = unsent
        connection.last_write = self._timers.now
        self._hold(unsent.obj)
        self._paused.discard(connection)
        self._poller.watch(connection, WRITE)
        if self.unsent_bytes > self._limits.unsent_budget_bytes:
            self._cut_slowest()

    def _wait_to_write(self, connection: Connection) -> None:
        """OpenSSL has something to write that is not ours: as with unsent bytes, but none."""
        self._buffer_unsent(connection, memoryview(b""))

    def _append_unsent(self, connection: Connection, data: bytes | memoryview) -> None:
        unsent = connection.unsent
        assert unsent is not None
        if not isinstance(unsent, memoryview):  # not passed to the kernel yet, and not counted
            connection.unsent = unsent + data
            return
        self._drop(unsent.obj)
        connection.unsent = memoryview(bytes(unsent) + data)
        self._hold(connection.unsent.obj)

    def _release_unsent(self, connection: Connection) -> None:
        unsent, connection.unsent = connection.unsent, None
        if isinstance(unsent, memoryview):
            self._drop(unsent.obj)

    def _hold(self, buffer: Any) -> None:
        held = self._buffers.get(id(buffer))
        if held is not None:
            held[0] += 1
            return
        self._buffers[id(buffer)] = [1, len(buffer)]
        self.unsent_bytes += len(buffer)

    def _drop(self, buffer: Any) -> None:
        held = self._buffers[id(buffer)]
        held[0] -= 1
        if not held[0]:
            del self._buffers[id(buffer)]
            self.unsent_bytes -= held[1]

    def _cut_slowest(self) -> None:
        """Closes connections whose clients have read nothing for the longest time, until a quarter of the budget is
        free.
        """
        slow = [connection for connection in self._poller.watched() if isinstance(connection.unsent, memoryview)]
        slow.sort(key=lambda connection: connection.last_write)
        for connection in slow:
            if self.unsent_bytes <= self._limits.unsent_budget_bytes * 3 // 4:
                break
            self.abort(connection, CloseReason.UNSENT_BUDGET)

    # Ends

    def close_timeout(self, connection: Connection) -> None:
        """The client did not close its side in time."""
        if not self.is_reading(connection):
            self.abort(connection, CloseReason.CLOSE_TIMEOUT)

    def close(self, connection: Connection, reason: CloseReason) -> None:
        """Closes gracefully: sends unsent bytes and FIN, and waits for the client's FIN or Close.

        Closing immediately, with unread input, would make the kernel send RST and discard the last bytes (RFC 9112
        §9.6).
        """
        if connection.state in (State.CLOSING, State.CLOSED):
            return
        connection.move(State.CLOSING)
        self._timers.set(connection, self._timers.now + self._close_s)
        self._ended(connection, reason)
        self.resume(connection)
        if connection.unsent is None:
            self.shutdown_write(connection)

    def shutdown_write(self, connection: Connection) -> None:
        """Sends FIN, unless a WebSocket client has yet to send its Close."""
        if connection.input is not None and not connection.input.finished:
            return
        try:
            connection.socket = end(connection.socket)
            connection.tls = False
        except ssl.SSLWantWriteError:
            self._wait_to_write(connection)
        except OSError:
            self.abort(connection, CloseReason.CONNECTION_RESET)

    def abort(self, connection: Connection, reason: CloseReason) -> None:
        """Closes the socket now."""
        if connection.state is _CLOSED:
            return
        ended = connection.state is State.CLOSING
        self._unwatch(connection)
        connection.move(_CLOSED)
        self._timers.cancel(connection)
        self._release_unsent(connection)
        connection.socket.close()
        connection.peer.leave()
        if not ended:
            self._ended(connection, reason)

    def _ended(self, connection: Connection, reason: CloseReason) -> None:
        for callback in self._end_callbacks:
            callback(connection, reason)

    def log_bug_and_abort(self, connection: Connection) -> None:
        """Logs an unexpected exception, and closes only this connection. Call it from an except block."""
        logs.log.exception("BUG: unhandled exception, connection closed (state %s)", connection.state.name)
        self.abort(connection, CloseReason.INTERNAL_ERROR)

    def close_all(self) -> None:
        for connection in self.connections():
            self.abort(connection, CloseReason.SERVER_CLOSED)
        self._poller.close()
