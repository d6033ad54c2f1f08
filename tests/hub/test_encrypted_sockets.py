"""Encrypted sockets keep every promise of plain ones, with OpenSSL between the hub and the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pushcompat.hub.connection import Connection, State
from pushcompat.hub.poller import WRITE
from pushcompat.hub.reasons import CloseReason
from pushcompat.hub.sockets import Sockets
from pushcompat.hub.timers import TimerWheel
from pushcompat.limits import Limits
from pushcompat.tls import Certificate, TLSSocket

from ..harness import CERTIFICATE, PATIENCE_S
from ..wiretap import ALERT, Wiretap

MUCH = bytes(range(251)) * 4000  # more than the kernel takes; no two records are equal
SMALL_BUFFER = 16 * 1024


class Pair:
    """An encrypted connection of ours, and its client, both after the handshake."""

    def __init__(self, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self.ended: list[str] = []
        self.timers: TimerWheel[Connection] = TimerWheel(0)
        self.sockets = Sockets(self.timers, Limits())
        self.sockets.on_end(lambda connection, reason: self.ended.append(reason))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            client.connect(listening.getsockname())
            fd, _ = listening._accept()  # type: ignore[attr-defined]
        ours = socket.SocketType(fileno=fd)
        ours.setblocking(False)
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        self.client = Wiretap(client, newest)
        self.connection = Connection(ours, 0, State.HANDSHAKING)
        self.sockets.watch(self.connection)
        self.sockets.encrypt(self.connection, Certificate(CERTIFICATE))
        complete = False
        while not (self.client.handshake() and complete):
            try:
                self.encrypted.do_handshake()
            except BlockingIOError:
                continue
            complete = True
        self.connection.move(State.READING_HEAD)
        self.sockets.watch(self.connection)

    @property
    def encrypted(self) -> TLSSocket:
        assert isinstance(self.connection.socket, TLSSocket)
        return self.connection.socket

    def read_all(self) -> list[bytes]:
        """What turns would read by what has been reported until now; nothing that comes is reported after that."""
        reports = self.sockets._poller.ready()
        self.sockets._ready.extend(reports)
        received = []
        while self.sockets.readable:
            received += [data for _, data in self.sockets.read()]
        return received

    def flush(self) -> bool:
        """Goes on when the kernel accepts more; whether nothing is unsent then."""
        if any(events & WRITE for _, events in self.sockets._poller.ready()):
            self.sockets._flush(self.connection)
        return self.connection.unsent is None

    def close(self) -> None:
        self.sockets.close_all()
        self.client.socket.close()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(request.param)
    yield pair
    pair.close()


# Reading: until it would block


def test_all_records_that_came_at_once_are_read(pair: Pair) -> None:
    pair.client.send(b"one", b"two", b"three")
    assert b"".join(pair.read_all()) == b"onetwothree"


def test_the_rest_of_a_record_is_read_though_the_kernel_has_nothing_left(pair: Pair) -> None:
    pair.client.send(MUCH[:16_000])
    assert b"".join(pair.read_all()) == MUCH[:16_000]


def test_the_rest_of_a_record_is_read_after_a_pause(pair: Pair) -> None:
    pair.client.send(MUCH[:16_000])
    pair.sockets._ready.extend(pair.sockets._poller.ready())
    received = b"".join(data for _, data in pair.sockets.read())
    pair.sockets.pause(pair.connection)
    assert pair.read_all() == []
    pair.sockets.resume(pair.connection)
    received += b"".join(pair.read_all())
    assert received == MUCH[:16_000]


def test_the_rest_of_a_record_is_read_after_what_was_unsent(pair: Pair) -> None:
    pair.client.send(MUCH[:16_000])
    pair.sockets._ready.extend(pair.sockets._poller.ready())
    received = b"".join(data for _, data in pair.sockets.read())
    pair.sockets.write(pair.connection, MUCH)
    assert pair.read_all() == []
    while not pair.flush():
        pair.client.read()
    assert received + b"".join(pair.read_all()) == MUCH[:16_000]


def test_a_stream_whose_rate_is_used_up_is_read_on_in_the_next_second(pair: Pair) -> None:
    pair.connection.move(State.STREAMING)
    pair.client.send(MUCH[:5000])
    limit = Limits().stream_input_bytes
    sizes = [len(b"".join(pair.read_all()))]
    while sizes[-1]:
        pair.sockets.tick()
        sizes.append(len(b"".join(pair.read_all())))
    assert sizes == [limit, limit, 5000 - 2 * limit, 0]


@pytest.mark.parametrize("fin", [False, True], ids=["close_notify", "close_notify, FIN"])
def test_the_end_that_came_with_the_last_bytes_is_seen_after_them(pair: Pair, fin: bool) -> None:
    pair.client.send(b"last")
    pair.client.close_notify()
    if fin:
        pair.client.socket.shutdown(socket.SHUT_WR)
    assert pair.read_all() == [b"last"]
    assert pair.ended == [CloseReason.CLIENT_CLOSED]


def test_an_end_without_close_notify_is_an_end(pair: Pair) -> None:
    pair.client.socket.shutdown(socket.SHUT_WR)
    assert pair.read_all() == []
    assert pair.ended == [CloseReason.CLIENT_CLOSED]


@pytest.mark.parametrize("paused", [False, True])
def test_input_that_was_not_read_yet_is_noticed_wherever_it_is(pair: Pair, paused: bool) -> None:
    assert not pair.sockets.has_unread(pair.connection)
    pair.client.send(b"pong" * 3000)
    if paused:  # in OpenSSL, not in the kernel any more
        pair.sockets._ready.extend(pair.sockets._poller.ready())
        pair.sockets.read()
    assert pair.sockets.has_unread(pair.connection)
    pair.read_all()
    assert not pair.sockets.has_unread(pair.connection)


def test_what_is_not_tls_ends_the_connection(pair: Pair) -> None:
    pair.client.socket.send(b"GET / HTTP/1.1\r\n\r\n")
    assert pair.read_all() == []
    assert pair.ended == [CloseReason.CONNECTION_RESET]


# Writing: the same bytes again, and progress


def test_more_than_the_kernel_takes_arrives_whole_and_in_order(pair: Pair) -> None:
    pair.sockets.write(pair.connection, MUCH)
    received = pair.client.read()
    pair.sockets.write(pair.connection, b"a control frame")
    pair.sockets.write_later(pair.connection, b"the end")
    pair.sockets.flush_writes()
    while not pair.flush():
        received += pair.client.read(5000)
    while len(received) < len(MUCH) + 22:
        received += pair.client.read()
    assert received == MUCH + b"a control framethe end"


def test_nothing_is_written_before_bytes_that_the_kernel_did_not_take(pair: Pair) -> None:
    """OpenSSL would take a Close for the rest of the record that it still has, and send the old bytes."""
    pair.connection.move(State.STREAMING)
    pair.sockets.write(pair.connection, MUCH)
    pair.sockets.close(pair.connection, CloseReason.ROTATED)
    assert pair.connection.tls
    received = b""
    while not pair.flush():
        received += pair.client.read()
    assert received + pair.client.to_end() == MUCH


def test_the_progress_of_a_client_that_reads_slowly_is_seen(pair: Pair) -> None:
    """Within each 64 KiB: with one send for all, OpenSSL reports none before all of it was accepted."""
    pair.sockets.write(pair.connection, MUCH)
    progress, read = [0], 0
    while read < len(MUCH) // 2:
        pair.timers.now += 1
        read += len(pair.client.read(64 * 1024))
        pair.flush()
        if pair.connection.last_write != progress[-1]:
            progress.append(pair.connection.last_write)
    assert len(progress) > read / (64 * 1024), "at least once for 64 KiB"
    assert pair.sockets.is_reading(pair.connection)


# The end: close_notify, then FIN


def test_an_end_is_close_notify_and_then_fin(pair: Pair) -> None:
    pair.sockets.write_later(pair.connection, b"bye")
    pair.sockets.close(pair.connection, CloseReason.RESPONSE_SENT)
    pair.sockets.flush_writes()
    assert pair.client.to_end() == b"bye"
    last = pair.client.records()[-1]
    assert last == (ALERT if pair.client._tls.version() == "TLSv1.2" else 23)


def test_a_client_that_sent_what_was_not_read_gets_the_response_and_its_end(pair: Pair) -> None:
    """OpenSSL takes input after our close_notify for an error; and a socket that is closed with input unread is reset,
    which discards the response.
    """
    pair.client.send(MUCH[:16_000], MUCH[:16_000])
    pair.sockets.write(pair.connection, b"refused")
    pair.sockets.close(pair.connection, CloseReason.REFUSED)
    pair.read_all()
    pair.client.send(MUCH[:16_000])
    pair.read_all()
    assert pair.connection.state is State.CLOSING
    assert pair.client.to_end() == b"refused"
    pair.client.records()
    pair.client.socket.shutdown(socket.SHUT_WR)
    pair.read_all()
    assert pair.connection.state is State.CLOSED


@pytest.mark.parametrize("notified", [True, False])
def test_the_end_of_a_connection_that_the_client_has_closed_is_no_bug(pair: Pair, notified: bool) -> None:
    """Its kernel answers our close_notify with RST, before our FIN."""
    if notified:
        pair.client.close_notify()
    pair.client.socket.close()
    pair.sockets.close(pair.connection, CloseReason.RESPONSE_SENT)
    assert pair.connection.state is State.CLOSED


def test_nothing_is_sent_in_the_clear_after_the_end(pair: Pair) -> None:
    pair.sockets.close(pair.connection, CloseReason.RESPONSE_SENT)
    pair.sockets.write(pair.connection, b"PLAINTEXT")
    assert pair.client.to_end() == b""
    pair.client.records()
    assert b"PLAINTEXT" not in pair.client.wire


def test_close_notify_waits_until_the_kernel_accepts_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    close_notify, calls = TLSSocket.close_notify, []

    def blocks_once(sock: TLSSocket) -> None:
        calls.append(sock)
        if len(calls) == 1:
            raise ssl.SSLWantWriteError
        close_notify(sock)

    monkeypatch.setattr(TLSSocket, "close_notify", blocks_once)
    pair.sockets.write(pair.connection, b"bye")
    pair.sockets.close(pair.connection, CloseReason.RESPONSE_SENT)
    assert pair.client.read() == b"bye"
    assert not pair.client.at_end
    assert pair.flush()
    assert pair.client.to_end() == b""
    assert len(calls) == 2


# What the module ``ssl`` cannot send


class Abuser(threading.Thread):
    """A client with OpenSSL's library, which does ``talk(library, tls)`` after its handshake."""

    def __init__(self, sock: socket.socket, talk: Callable[[ctypes.CDLL, ctypes.c_void_p], None], newest: int) -> None:
        super().__init__(daemon=True)
        self._socket = sock
        self._talk = talk
        self._newest = newest
        self.done = threading.Event()

    def run(self) -> None:
        library = ctypes.CDLL(LIBSSL)
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(library, name).restype = ctypes.c_void_p
        context = ctypes.c_void_p(library.SSL_CTX_new(ctypes.c_void_p(library.TLS_client_method())))
        library.SSL_CTX_ctrl(context, _SET_MAX_PROTO_VERSION, ctypes.c_long(self._newest), None)
        tls = ctypes.c_void_p(library.SSL_new(context))
        library.SSL_set_fd(tls, self._socket.fileno())
        assert library.SSL_connect(tls) == 1
        self._talk(library, tls)
        self.done.set()
        library.SSL_free(tls)
        library.SSL_CTX_free(context)


_SET_MAX_PROTO_VERSION = 124  # openssl/ssl.h
LIBSSL = ctypes.util.find_library("ssl")
with_library = pytest.mark.skipif(LIBSSL is None, reason="needs OpenSSL's library")


class Abused:
    """The server's end, after the handshake."""

    def __init__(
        self,
        talk: Callable[[ctypes.CDLL, ctypes.c_void_p], None],
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> None:
        ours, self._client = socket.socketpair()
        ours.setblocking(False)
        server = Certificate(CERTIFICATE).wrap(ours)
        self.abuser = Abuser(self._client, talk, newest.value)
        self.abuser.start()
        while True:
            with contextlib.suppress(BlockingIOError):
                server.do_handshake()
                break
        self.ended: list[CloseReason] = []
        self.sockets = Sockets(TimerWheel(0), Limits())
        self.sockets.on_end(lambda connection, reason: self.ended.append(reason))
        self.sockets.watch(Connection(server, 0, tls=True))

    def read(self) -> list[bytes]:
        return [data for _, data in self.sockets.read()]

    def close(self) -> None:
        self.sockets.close_all()
        self.abuser.join(PATIENCE_S)
        self._client.close()


@with_library
@pytest.mark.parametrize(("count", "ended"), [(7, []), (8, [CloseReason.CONNECTION_RESET])])
def test_a_client_that_sends_records_without_data_is_disconnected(count: int, ended: list[CloseReason]) -> None:
    def talk(library: ctypes.CDLL, tls: ctypes.c_void_p) -> None:
        for _ in range(count):
            library.SSL_key_update(tls, 0)
            library.SSL_do_handshake(tls)
        library.SSL_write(tls, b"data", 4)

    abused = Abused(talk)
    assert abused.abuser.done.wait(PATIENCE_S)
    assert (abused.read(), abused.ended) == ([] if ended else [b"data"], ended)
    abused.close()


@with_library
def test_a_client_cannot_renegotiate_since_handshakes_have_a_share_of_a_turn() -> None:
    renegotiated = []

    def talk(library: ctypes.CDLL, tls: ctypes.c_void_p) -> None:
        library.SSL_renegotiate(tls)
        renegotiated.append(library.SSL_do_handshake(tls) == 1 and library.SSL_do_handshake(tls) == 1)

    abused = Abused(talk, ssl.TLSVersion.TLSv1_2)
    deadline = time.monotonic() + PATIENCE_S
    while not abused.abuser.done.is_set() and time.monotonic() < deadline:
        assert abused.read() == []
    abused.close()
    assert renegotiated == [False]


def test_a_record_that_is_cut_anywhere_is_read_when_its_rest_has_come(pair: Pair) -> None:
    pair.client._tls.write(b"hello")
    record = pair.client._outgoing.read()
    for at in range(len(record)):
        assert pair.read_all() == []
        pair.client.socket.send(record[at : at + 1])
    assert pair.read_all() == [b"hello"]


@pytest.mark.parametrize("record", [b"\x17\x03\x03\xff\xff", b"\x17\x02\x03\0\1x", b"\0", b"GET /"])
def test_what_cannot_be_a_record_ends_the_connection_at_once(pair: Pair, record: bytes) -> None:
    pair.client.socket.send(record)
    assert pair.read_all() == []
    assert pair.ended == [CloseReason.CONNECTION_RESET]


def test_a_record_that_was_flushed_by_a_read_is_not_sent_again(pair: Pair) -> None:
    """Tornado reads while something is unsent."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += pair.encrypted.send(MUCH[sent : sent + 16_000])
    received = b""
    while pair.encrypted._unsent:
        received += pair.client.read()
        with contextlib.suppress(ssl.SSLWantWriteError):
            pair.encrypted._flush()
    sent += pair.encrypted.send(MUCH[sent : sent + 20_000])
    while len(received) < sent:
        received += pair.client.read()
    assert received == MUCH[:sent]
