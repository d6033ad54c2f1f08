"""TLS handshakes on real connections: slow ones, broken ones, and clients that do not speak TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable

import pytest

from pushcompat.hub.connection import State
from pushcompat.hub.context import Context
from pushcompat.hub.handshakes import Handshakes
from pushcompat.hub.listener import Listener
from pushcompat.limits import Limits
from pushcompat.metrics import Metrics
from pushcompat.tls import Certificate, TLSSocket

from ..harness import CERTIFICATE, PATIENCE_S
from ..wiretap import Wiretap


class Doorway:
    """A listener and its handshakes; each turn continues one step of each."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.context = Context(Limits(), self.metrics)
        self.sockets = self.context.sockets
        self.handshakes = Handshakes(self.context, Certificate(CERTIFICATE))
        self._listener = Listener(self.context, tls=True)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listener.listen([self._listening])
        self.clients: list[socket.socket] = []

    async def connect(self) -> socket.socket:
        self.clients.append(socket.create_connection(self._listening.getsockname()))
        await self.until(lambda: len(self.sockets.connections()) == len(self.clients))
        return self.clients[-1]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.turn()
                await asyncio.sleep(0)

    async def until_reported(self) -> None:
        """Until the next turn has a handshake to continue."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.sockets.handshaking:
                self.sockets.read()
                await asyncio.sleep(0)

    def turn(self) -> None:
        self.sockets.read()
        while self.sockets.handshaking:
            self.handshakes.proceed(self.sockets.handshaking.popleft())

    @property
    def states(self) -> list[State]:
        return [connection.state for connection in self.sockets.connections()]

    def close(self) -> None:
        self._listener.close()
        self.sockets.close_all()
        for client in self.clients:
            client.close()


def play(scenario: Callable[[Doorway], Awaitable[None]]) -> None:
    async def played() -> None:
        doorway = Doorway()
        try:
            await scenario(doorway)
        finally:
            doorway.close()

    asyncio.run(played())


def test_a_complete_handshake_leads_to_the_first_request() -> None:
    async def scenario(doorway: Doorway) -> None:
        client = Wiretap(await doorway.connect())
        assert doorway.states == [State.HANDSHAKING]
        await doorway.until(client.handshake)
        await doorway.until(lambda: doorway.states == [State.READING_HEAD])
        assert doorway.metrics.tls_handshakes == {"completed": 1}

    play(scenario)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_handshake_may_come_byte_by_byte(newest: ssl.TLSVersion) -> None:
    async def scenario(doorway: Doorway) -> None:
        client = Wiretap(await doorway.connect(), newest, chunk=1)
        await doorway.until(lambda: client.handshake() and State.READING_HEAD in doorway.states)

    play(scenario)


def test_a_connection_costs_no_encryption_before_its_client_has_begun() -> None:
    async def scenario(doorway: Doorway) -> None:
        await doorway.connect()
        doorway.turn()
        (connection,) = doorway.sockets.connections()
        assert not isinstance(connection.socket, TLSSocket)

    play(scenario)


@pytest.mark.parametrize("garbage", [b"\x16garbage that is not a handshake" * 10, b"\x16\x03\x01\x00\x05\x02\0\0\1\0"])
def test_a_handshake_that_fails_ends_the_connection(garbage: bytes) -> None:
    async def scenario(doorway: Doorway) -> None:
        client = await doorway.connect()
        client.sendall(garbage)
        await doorway.until(lambda: not doorway.states)
        assert doorway.metrics.tls_handshakes == {"failed": 1}

    play(scenario)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_before_the_end_of_its_handshake_is_forgotten(sent: bytes, reset: bool) -> None:
    async def scenario(doorway: Doorway) -> None:
        client = await doorway.connect()
        client.sendall(sent)
        doorway.turn()
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        await doorway.until(lambda: not doorway.states)

    play(scenario)


def test_a_client_that_is_gone_when_its_turn_comes_is_forgotten() -> None:
    """Its reset arrives between the first byte and the encryption."""

    async def scenario(doorway: Doorway) -> None:
        client = await doorway.connect()
        client.sendall(b"\x16")
        await doorway.until_reported()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        await doorway.until(lambda: not doorway.states)

    play(scenario)


def record(content: bytes, kind: int = 22) -> bytes:
    return bytes([kind]) + b"\3\3" + len(content).to_bytes(2, "big") + content


def client_hello(key_share: bytes) -> bytes:
    """Of TLS 1.3 with X25519 (RFC 8446 §4.1.2); without a key share it makes the server ask for another one."""
    shares = b"\0\x1d" + len(key_share).to_bytes(2, "big") + key_share if key_share else b""
    extensions = b"".join(
        kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content
        for kind, content in (
            (43, b"\x02\x03\x04"),
            (10, b"\x00\x02\x00\x1d"),
            (13, b"\x00\x04\x04\x03\x08\x04"),
            (51, len(shares).to_bytes(2, "big") + shares),
        )
    )
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\x01" + b"\1\0" + len(extensions).to_bytes(2, "big") + extensions
    return b"\1" + len(body).to_bytes(3, "big") + body


WITHOUT, WITH = client_hello(b""), client_hello(b"\x09" + bytes(31))
CHANGE = record(b"\1", 20)
TOO_LONG = b"\1" + (16 * 1024 - 3).to_bytes(3, "big") + b"\3\3"


@pytest.mark.parametrize(
    ("before", "hello"),
    [
        (b"", record(TOO_LONG)),
        (b"", b"".join(record(TOO_LONG[at : at + 1]) for at in range(4))),
        (record(WITHOUT), record(TOO_LONG)),
        (record(WITHOUT), CHANGE + record(TOO_LONG)),
        (b"", record(WITHOUT + TOO_LONG)),
    ],
    ids=["first", "in pieces", "second", "after a change_cipher_spec", "in the record of the first"],
)
def test_a_client_hello_that_announces_more_than_a_record_is_refused_by_its_header(before: bytes, hello: bytes) -> None:
    """OpenSSL would allocate what it announces, up to 128 KiB, for a client that has sent a few bytes."""

    async def scenario(doorway: Doorway) -> None:
        client = await doorway.connect()
        client.setblocking(False)
        client.sendall(before)
        if before:
            await doorway.until(lambda: answered(client))
        client.sendall(hello)
        await doorway.until(lambda: not doorway.states)
        assert doorway.metrics.tls_handshakes == {"failed": 1}

    play(scenario)


def answered(client: socket.socket) -> bytes:
    try:
        return client.recv(10_000)
    except BlockingIOError:
        return b""


def test_a_client_whose_key_share_was_missing_is_asked_for_another_hello() -> None:
    async def scenario(doorway: Doorway) -> None:
        client = await doorway.connect()
        client.setblocking(False)
        client.sendall(record(WITHOUT))
        await doorway.until(lambda: answered(client))
        client.sendall(CHANGE + record(WITH[:3]) + record(WITH[3:]))
        await doorway.until(lambda: len(answered(client)) > 500)  # the certificate
        assert doorway.states == [State.HANDSHAKING]

    play(scenario)


def test_a_handshake_that_takes_too_long_ends_the_connection() -> None:
    async def scenario(doorway: Doorway) -> None:
        client = await doorway.connect()
        client.sendall(b"\x16\x03\x01")
        doorway.turn()
        (connection,) = doorway.sockets.connections()
        assert connection.deadline == doorway.context.timers.now + int(Limits().head_s)
        doorway.handshakes.on_timer(connection)
        assert connection.state is State.CLOSED
        assert doorway.metrics.tls_handshakes == {"timeout": 1}

    play(scenario)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"POST /x", b"\0", b"SSH-2.0-x\r\n"])
def test_what_is_not_tls_is_answered_in_plain_text(sent: bytes) -> None:
    async def scenario(doorway: Doorway) -> None:
        client = await doorway.connect()
        client.sendall(sent)
        await doorway.until(lambda: doorway.states == [State.CLOSING])
        answer = client.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"use https://" in answer
        assert b"PROXY protocol, switch it off" in answer
        assert client.recv(1) == b""
        assert doorway.metrics.tls_handshakes == {"not_tls": 1}

    play(scenario)


def test_a_connection_that_cannot_be_encrypted_is_closed() -> None:
    class Unusable(Certificate):
        def wrap(self, sock: socket.SocketType) -> TLSSocket:
            sock.close()
            raise OSError("no memory")

    async def scenario(doorway: Doorway) -> None:
        doorway.handshakes = Handshakes(doorway.context, Unusable(CERTIFICATE))
        client = await doorway.connect()
        client.sendall(b"\x16\x03\x01")
        await doorway.until(lambda: not doorway.states)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert doorway.metrics.tls_handshakes == {"failed": 1}

    play(scenario)
