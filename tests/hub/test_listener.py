from __future__ import annotations

import asyncio
import errno
import os
import resource
import select
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pushcompat.hub import listener as module
from pushcompat.hub.context import Context
from pushcompat.hub.listener import Listener
from pushcompat.limits import Limits
from pushcompat.metrics import Metrics

from ..harness import MS, PATIENCE_S, Client, Server, running
from ..machine import interpreted_only

HEAD = b"GET /channels/door HTTP/1.1\r\nHost: test\r\n"


@pytest.fixture(scope="module")
def impatient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("state"), "--head-timeout", "1")


def client_hello() -> bytes:
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="push.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


# Time


def test_half_a_head_and_then_silence_is_ended(impatient_server: Server) -> None:
    with impatient_server.connect() as client:
        client.send(HEAD)
        status, headers, detail = client.problem()
        assert (status, headers["connection"]) == (408, "close")
        assert "within 1 s" in detail
        assert client.to_end() == b""


def test_a_head_that_comes_byte_by_byte_gets_no_more_time_for_it(impatient_server: Server) -> None:
    with impatient_server.connect() as client:
        begun = time.monotonic()
        for byte in HEAD * 100:
            client.send(bytes([byte]))
            if select.select([client.socket], [], [], 50 * MS)[0]:
                break
        assert client.problem()[0] == 408
        assert time.monotonic() - begun < 4000 * MS


@pytest.mark.parametrize("drip", [b"", b"\r\n"])
def test_a_connection_that_asks_for_nothing_is_ended_without_a_word(impatient_server: Server, drip: bytes) -> None:
    with impatient_server.connect() as client:
        begun = time.monotonic()
        while not select.select([client.socket], [], [], 50 * MS)[0]:
            client.send(drip)
            assert time.monotonic() - begun < 4000 * MS
        assert client.to_end() == b""


@pytest.mark.options("--head-timeout", "1", "--idle-timeout", "1h", "--poll-grace", "1h")
@pytest.mark.parametrize("query", ["wait=0", "wait=0&cursor=earliest"])
def test_a_kept_connection_has_the_same_time_for_its_next_head(server: Server, query: str) -> None:
    """Whether it has a subscription or not."""
    with server.connect() as client:
        client.poll("door", query)
        client.send(HEAD)
        assert client.problem()[0] == 408
        assert client.to_end() == b""


@pytest.mark.options("--head-timeout", "1", "--idle-timeout", "2", "--poll-grace", "1")
def test_a_kept_connection_without_a_next_request_is_ended(server: Server) -> None:
    with server.connect() as poller, server.connect() as publisher:
        poller.poll("door")
        publisher.publish("door")
        assert publisher.response()[0] == 200
        assert poller.to_end() == b""
        assert publisher.to_end() == b""


# Bytes


def test_a_head_may_come_byte_by_byte(shared_client: Client) -> None:
    for byte in HEAD + b"\r\n":
        shared_client.send(bytes([byte]))
    assert shared_client.response()[0] == 200


def test_empty_lines_before_a_request_are_nothing(shared_client: Client) -> None:
    for lines in (b"\r\n", b"\r\n\r\n\n", b"\n"):
        shared_client.send(lines + HEAD + b"\r\n")
        assert shared_client.response()[0] == 200


def padded(size: int) -> bytes:
    return HEAD + b"X: " + b"x" * (size - len(HEAD) - 7) + b"\r\n\r\n"


def test_a_head_of_16_kib_is_read(shared_client: Client) -> None:
    shared_client.send(padded(16 * 1024))
    assert shared_client.response()[0] == 200


@pytest.mark.parametrize(
    "data",
    [padded(16 * 1024 + 1), padded(200 * 1024), padded(100 * 1024)[:-4], b"GET /" + b"x" * 17_000, b"a: b\r\n" * 3000],
)
def test_a_longer_head_is_refused(shared_client: Client, data: bytes) -> None:
    shared_client.send(data)
    status, headers, detail = shared_client.problem()
    assert (status, headers["connection"]) == (431, "close")
    assert "16384 bytes" in detail
    assert shared_client.to_end() == b""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"GET /channels/door HTTP/1.1\nHost: test\n\n", 400, id="lines that end in LF"),
        pytest.param(b"GET /channels/door HTTP/1.1\r\nHost: test\r\n\n", 400, id="half a blank line"),
        pytest.param(HEAD + b"X: a\r\n b\r\n\r\n", 400, id="folded header"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 505, id="HTTP/2"),
        pytest.param(b"GET /channels/door\r\n\r\n", 505, id="HTTP/0.9"),
        pytest.param(b"FETCH /channels/door HTTP/1.1\r\nHost: test\r\n\r\n", 501, id="unknown method"),
        pytest.param(b"GET /channels/door HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(b"GET /channels/%ff HTTP/1.1\r\nHost: test\r\n\r\n", 400, id="a path that is no text"),
        pytest.param(b"hello?\r\n\r\n", 501, id="chat"),
        pytest.param(b"\0" * 10, 400, id="zeros"),
        pytest.param(b"\xff\xfe\r\n\r\n", 400, id="noise"),
        pytest.param(b"{}", 400, id="JSON"),
        pytest.param(client_hello(), 400, id="TLS"),
        pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + HEAD + b"\r\n", 400, id="PROXY protocol"),
        pytest.param(b"\r\n\r\n\0\r\nQUIT\n!\x20\0\0", 400, id="PROXY protocol, version 2"),
    ],
)
def test_input_that_is_not_http_1_is_answered_at_once(shared_client: Client, data: bytes, expected: int) -> None:
    shared_client.send(data)
    status, headers, detail = shared_client.problem()
    assert (status, headers["connection"]) == (expected, "close")
    assert detail
    assert shared_client.to_end() == b""


# File descriptors


def cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Observer:
    """Reads metrics over one connection, because there may be no descriptor for another."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def pauses(self) -> float:
        self.client.request("GET", "/metrics")
        lines = self.client.response()[2].decode().splitlines()
        (value,) = [line.split()[1] for line in lines if line.startswith("pushcompat_accept_pauses_total ")]
        return float(value)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux to take descriptors from another process")
@pytest.mark.options("--store", "memory:")  # a log on disk opens and closes files meanwhile
def test_without_file_descriptors_those_outside_are_refused_and_everyone_inside_is_served(server: Server) -> None:
    process = server.process.pid
    with server.connect() as stream, server.connect() as publisher, server.connect() as metrics:
        stream.request("GET", "/channels/door", Accept="text/event-stream")
        assert stream.head()[0] == 200
        stream.event()
        stream.event()
        publisher.publish("warm-up")
        assert publisher.response()[0] == 200
        observer = Observer(metrics)
        used = len(os.listdir(f"/proc/{process}/fd"))
        resource.prlimit(process, resource.RLIMIT_NOFILE, (used + 5, used + 5))
        cpu = cpu_s(process)
        crowd = [server.connect() for _ in range(10)]
        # The sixth may be let in: a descriptor that was counted may be free again.
        assert [client.response()[0] for client in crowd[6:]] == [503] * 4
        publisher.publish("door", b"still here")
        assert publisher.response()[0] == 200
        event = stream.event()
        while event.get("event") == "control":  # a ping
            event = stream.event()
        assert event["data"] == "still here"
        assert observer.pauses() == 0
        assert cpu_s(process) - cpu < 1, "an accept that fails must not be tried again and again"
        for client in crowd:
            client.close()
        with server.connect() as again:
            assert again.poll("door")["messages"] == []


def test_sockets_send_at_once_notice_dead_peers_and_keep_little_unsent_in_the_kernel() -> None:
    """Those that are accepted have their listener's options."""

    async def scenario() -> None:
        context = Context(Limits(unsent_bytes=12_345), Metrics())
        listener = Listener(context)
        listening = socket.create_server(("127.0.0.1", 0))
        listener.listen([listening])
        with socket.create_connection(listening.getsockname()):
            async with asyncio.timeout(PATIENCE_S):
                while not len(context.sockets):
                    await asyncio.sleep(0)
            (connection,) = context.sockets.connections()
            for sock in (listening, connection.socket):
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 12_345
            assert not connection.socket.getblocking()
        listener.close()
        context.sockets.close_all()

    asyncio.run(scenario())


def test_a_unix_socket_has_no_such_options(tmp_path: Path) -> None:
    async def scenario() -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        context = Context(Limits(), Metrics())
        listener = Listener(context)
        listener.listen([listening])
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "socket"))
            async with asyncio.timeout(PATIENCE_S):
                while not len(context.sockets):
                    await asyncio.sleep(0)
        listener.close()
        context.sockets.close_all()

    asyncio.run(scenario())


class WithoutDescriptors(socket.socket):
    """A listening socket of a process that may open one more only if the listener has closed its spare one."""

    listener: Listener

    def _accept(self) -> tuple[int, object]:
        if self.listener._spare is not None:
            raise OSError(errno.EMFILE, "Too many open files")
        return super()._accept()  # type: ignore[misc, no-any-return]

    def accept(self) -> tuple[socket.socket, object]:
        fd, address = super()._accept()  # type: ignore[misc]
        return socket.socket(fileno=fd), address


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_without_descriptors_a_client_is_answered_by_the_one_that_was_kept_for_this_but_not_in_the_clear(
    monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)

    async def scenario() -> None:
        context = Context(Limits(), Metrics())
        listener = Listener(context, tls=tls)
        listening = WithoutDescriptors()
        listening.listener = listener
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listener.listen([listening])
        for number in (1, 2):
            with socket.create_connection(listening.getsockname()) as client:
                client.setblocking(False)
                client.send(b"" if tls else b"GET /channels/a HTTP/1.1\r\nHost: h\r\n\r\n")
                answer = b""
                while data := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 4096), PATIENCE_S):
                    answer += data
            assert (answer == b"") if tls else answer.startswith(b"HTTP/1.1 503 ")
            assert (b"\r\nRetry-After: 5\r\n" in answer) is not tls
            assert context.metrics.refused == {("unavailable", "503"): number}
        assert len(context.sockets) == 0
        listener.close()

    asyncio.run(scenario())


@interpreted_only
def test_a_listener_that_is_closed_during_a_pause_stays_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Watching(Listener):
        watched = 0

        def _watch(self, sock: socket.socket) -> None:
            super()._watch(sock)
            self.watched += 1

    async def scenario() -> None:
        listener = Watching(Context(Limits(), Metrics()))
        sock = socket.create_server(("127.0.0.1", 0))
        listener.listen([sock])
        listener._pause(sock, OSError(errno.EMFILE, "too many"))
        listener.close()
        async with asyncio.timeout(PATIENCE_S):
            while listener.watched < 2:
                await asyncio.sleep(0)
        assert sock.fileno() == -1

    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    asyncio.run(scenario())
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
