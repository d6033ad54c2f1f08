"""One kept-alive connection goes from the hub to Tornado and back, with whatever was already read of it.

Real sockets and a server process, since it is about bytes and connections; the last tests look inside, in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, cast

import pytest
from tornado.web import Application, RequestHandler

from pushcompat.limits import Limits
from pushcompat.tls import BLOCKED, Certificate, TLSSocket
from pushcompat.web.handover import Handover

from ..harness import CERTIFICATE, KEY, MS, PATIENCE_S, Client, Server, sequence
from ..wiretap import Wiretap

PAGE = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"
POLL = b"GET /channels/%b HTTP/1.1\r\nHost: test\r\n\r\n"
BEARER = f"Authorization: Bearer {KEY}\r\n".encode()


def publish(channel: bytes, body: bytes) -> bytes:
    head = b"POST /channels/%b HTTP/1.1\r\nHost: test\r\n%bContent-Length: %d\r\n\r\n"
    return head % (channel, BEARER, len(body)) + body


def chunked(channel: bytes, *chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    head = b"POST /channels/%b HTTP/1.1\r\nHost: test\r\n%bTransfer-Encoding: chunked\r\n\r\n"
    return head % (channel, BEARER) + body


def texts(client: Client) -> list[str]:
    return [message["data"] for message in json.loads(client.response()[2])["messages"]]


def test_a_connection_changes_hands_as_often_as_its_requests_do(shared_client: Client) -> None:
    cursors = []
    for _ in range(10):
        shared_client.send(PAGE)
        assert shared_client.response()[2] == b"ok\n"
        shared_client.send(publish(b"often", b"x"))
        cursors.append(json.loads(shared_client.response()[2])["id"])
        assert len(shared_client.retained("often")) == len(cursors)
    assert all(sequence(one) < sequence(next_one) for one, next_one in pairwise(cursors))


@pytest.mark.parametrize("size", [1, 7, 60, 10**6])
def test_requests_in_both_directions_may_come_in_any_pieces(shared_client: Client, size: int) -> None:
    channel = b"pieces-%d" % size
    data = PAGE + publish(channel, b"one") + PAGE + PAGE + chunked(channel, b"t", b"wo") + PAGE
    data += POLL % channel + publish(channel, b"three") + PAGE
    for at in range(0, len(data), size):
        shared_client.send(data[at : at + size])
    ok, taken = b"ok\n", b'{"id":'
    expected = [ok, taken, ok, ok, taken, ok]
    assert [shared_client.response()[2][: len(start)] for start in expected] == expected
    assert texts(shared_client) == []
    assert [shared_client.response()[2][: len(start)] for start in (taken, ok)] == [taken, ok]
    assert [m["data"] for m in shared_client.retained(channel.decode())] == ["one", "two", "three"]


@pytest.mark.parametrize("size", [1000, 60_000])
@pytest.mark.parametrize("send", [publish, chunked])
def test_a_body_comes_back_with_its_head(
    shared_client: Client, send: Callable[[bytes, bytes], bytes], size: int
) -> None:
    channel = b"body-%d" % size
    shared_client.send(PAGE + send(channel + b"?key=only", b"x" * size) + PAGE + POLL % channel)
    assert shared_client.response()[2] == b"ok\n"
    assert shared_client.response()[0] == 200
    assert shared_client.response()[2] == b"ok\n"
    assert texts(shared_client) == []
    assert [len(m["data"]) for m in shared_client.retained(channel.decode())] == [size]


def test_a_body_may_come_long_after_its_head_was_handed_back(shared_client: Client) -> None:
    request = publish(b"later", b"hello")
    shared_client.send(PAGE + request[:-5].replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert shared_client.response()[2] == b"ok\n"
    assert shared_client.head() == (100, {})
    shared_client.send(request[-5:] + PAGE)
    assert [shared_client.response()[0] for _ in range(2)] == [200, 200]


def test_a_lot_may_be_pipelined_behind_a_page(shared_client: Client) -> None:
    shared_client.send(PAGE + publish(b"lot", b"x" * 10_000) * 30 + PAGE)
    assert [shared_client.response()[0] for _ in range(32)] == [200] * 32


@pytest.mark.parametrize("target", ["/channels", "/channels/", "/channels/a%20b", "/channels/%ff", "/%63hannels/a,b,"])
def test_the_hub_refuses_the_same_on_both_ways_in(shared_server: Server, shared_client: Client, target: str) -> None:
    shared_client.request("GET", target)
    refused = shared_client.problem()[::2]
    with shared_server.connect() as client:
        client.send(PAGE)
        assert client.response()[2] == b"ok\n"
        client.request("GET", target)
        assert client.problem()[::2] == refused


@pytest.mark.parametrize("target", ["/channelsx", "/channel", "/Channels/a", "//channels/a", "/x/channels/a"])
def test_paths_that_only_look_like_the_hubs_are_not(shared_client: Client, target: str) -> None:
    for _ in range(2):
        shared_client.request("GET", target)
        assert shared_client.problem()[0] == 404


def test_absolute_and_escaped_addresses_lead_to_the_same_place_on_both_ways_in(shared_client: Client) -> None:
    for _ in range(2):
        for target in ("http://push.example/healthz", "http://push.example/healthz?x=http://y"):
            shared_client.request("GET", target)
            assert shared_client.response()[2] == b"ok\n"
        for target in (
            "http://push.example/channels/form?wait=0",
            "/%63hannels/form?wait=0",
            "/channels%2Fform?wait=0",
        ):
            shared_client.request("GET", target)
            assert json.loads(shared_client.response()[2])["messages"] == []


def test_every_transport_can_follow_a_page(shared_server: Server) -> None:
    with shared_server.connect() as socket, shared_server.connect() as stream, shared_server.connect() as poller:
        for client in (socket, stream, poller):
            client.send(PAGE)
            assert client.response()[2] == b"ok\n"
        assert socket.upgrade("/channels/follow") == 101
        stream.request("GET", "/channels/follow", Accept="text/event-stream")
        assert stream.head()[0] == 200
        stream.event()
        stream.event()
        poller.request("GET", "/channels/follow?wait=20")
        shared_server.wait_for_metric('pushcompat_subscriptions{transport="longpoll"}', 1)
        assert shared_server.publish("follow", "hi")["channels"] == {"follow": {"subscribers": 3}}
        assert socket.frame() == (0x81, b"hi")
        assert stream.event()["data"] == "hi"
        assert texts(poller) == ["hi"]


def test_a_poller_that_asks_for_a_page_between_two_polls_still_counts(server: Server, client: Client) -> None:
    cursor = client.poll("between")["cursor"]
    client.poll("between", f"cursor={cursor}")
    client.send(PAGE)
    assert client.response()[2] == b"ok\n"
    assert server.publish("between")["channels"] == {"between": {"subscribers": 1}}


def test_a_header_with_any_bytes_survives_the_way_back(shared_client: Client) -> None:
    shared_client.send(PAGE + b"GET /channels/bytes HTTP/1.1\r\nHost: test\r\nLast-Event-ID: \xfc\xff\r\n\r\n")
    assert shared_client.response()[2] == b"ok\n"
    assert json.loads(shared_client.response()[2])["reset"] == ["bytes"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 501),
        (b"GET /channels/x HTTP/2.0\r\nHost: test\r\n\r\n", 505),
        (b"GET /channels/x HTTP/1.1\r\n\r\n", 400),
        (b"GET /channels/x HTTP/1.1\r\nHost: test\r\nno colon\r\n\r\n", 400),
        (b"GET /channels/x HTTP/1.1\r\nHost: test\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"POST /channels/x HTTP/1.1\r\nHost: test\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /channels/x HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /healthz HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000000\r\n\r\n", 405),
        (b"POST /healthz HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 405),
    ],
)
def test_nonsense_behind_a_page_is_refused_as_it_is_without_one(
    shared_server: Server, shared_client: Client, data: bytes, status: int
) -> None:
    shared_client.send(PAGE + data)
    assert shared_client.response()[2] == b"ok\n"
    refused = shared_client.problem()[::2]
    assert refused[0] == status
    assert shared_client.to_end() == b""
    with shared_server.connect() as client:
        client.send(data)
        assert client.problem()[::2] == refused
        assert client.to_end() == b""


def test_clients_that_vanish_while_they_change_hands_harm_nobody(shared_server: Server, shared_client: Client) -> None:
    for data in (PAGE, PAGE + POLL % b"gone", PAGE * 20, POLL % b"gone" + PAGE, PAGE + publish(b"gone", b"x")) * 5:
        with shared_server.connect() as client:
            client.send(data)
            client.reset()
    shared_client.send(PAGE)
    assert shared_client.response()[2] == b"ok\n"


# In this process


class Word(RequestHandler):
    def get(self) -> None:
        self.finish("word")


class Flood(RequestHandler):
    async def get(self) -> None:
        while True:
            self.write(b"x" * 100_000)
            await self.flush()


class Big(RequestHandler):
    def get(self) -> None:
        self.finish(BIG)


class Seen(RequestHandler):
    def get(self) -> None:
        context = cast(Any, self.request.connection).context
        self.finish(json.dumps([self.request.remote_ip, self.request.protocol, context.host]))


class Visitor:
    """A peer that counts how often it has left."""

    def __init__(self, *, proxied: bool = False) -> None:
        self.proxied = proxied
        self.left = 0

    def leave(self) -> None:
        self.left += 1


BIG = bytes(range(251)) * 8000  # 2 MB
LIMITS = Limits(body_s=50 * MS, write_s=50 * MS, close_s=50 * MS)
APPLICATION = Application(
    [("/word", Word), ("/flood", Flood), ("/big", Big), ("/seen", Seen)], log_function=lambda handler: None
)


@asynccontextmanager
async def handed(
    request: bytes, visitor: Visitor | None = None
) -> AsyncIterator[tuple[Handover, socket.socket, socket.socket]]:
    """A connection that was handed over with that request: the handover, the server's socket, and the client's."""
    handover = Handover(APPLICATION, LIMITS)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        client.setblocking(False)
        ours, _ = listener.accept()
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handover.hand_over(ours, visitor or Visitor(), request, True)
        try:
            yield handover, ours, client
        finally:
            await handover.close()


@pytest.mark.gen_test
async def test_after_each_answer_the_socket_comes_back_as_it_went() -> None:
    request = b"GET /word HTTP/1.1\r\nHost: test\r\n\r\n"
    for behind in (b"", b"GET /wo", request):
        visitor = Visitor()
        async with handed(request + behind, visitor) as (handover, ours, client):
            taken: asyncio.Future[tuple[socket.socket, Visitor, bytes, bool]]
            taken = asyncio.get_running_loop().create_future()
            handover.take_back = lambda *taken_back, taken=taken: taken.set_result(taken_back)
            sock, peer, received, admin = await asyncio.wait_for(taken, PATIENCE_S)
            with sock:
                assert (sock, peer, received, admin) == (ours, visitor, behind, True)
                assert visitor.left == 0
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
                assert client.recv(65536).endswith(b"\r\n\r\nword")


@pytest.mark.gen_test
async def test_a_client_that_does_not_read_a_page_is_disconnected() -> None:
    async with handed(b"GET /flood HTTP/1.1\r\nHost: test\r\n\r\n") as (_, ours, client):
        async with asyncio.timeout(PATIENCE_S):
            while ours.fileno() != -1:
                await asyncio.sleep(0)
        assert client.recv(15) == b"HTTP/1.1 200 OK"


@pytest.mark.gen_test
async def test_at_the_end_connections_are_closed_wherever_they_are() -> None:
    closing = b"GET /word HTTP/1.0\r\nHost: test\r\n\r\n"
    for request in (b"GET /flood HTTP/1.1\r\nHost: test\r\n\r\n", closing, b"POST /word HTTP/1.1\r\n"):
        visitor = Visitor()
        async with handed(request, visitor) as (handover, ours, client):
            if request == closing:
                await asyncio.get_running_loop().sock_recv(client, 65536)
            await handover.close()
            assert (ours.fileno(), visitor.left) == (-1, 1)


# TLS


def encrypted(listener: socket.socket) -> tuple[TLSSocket, Wiretap]:
    """Both ends of a connection after the handshake, with little room in the kernel."""
    client = Wiretap(socket.create_connection(listener.getsockname()))
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    ours, _ = listener.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    sock = Certificate(CERTIFICATE).wrap(ours)
    complete = False
    while not (client.handshake() and complete):
        with contextlib.suppress(*BLOCKED):
            sock.do_handshake()
            complete = True
    return sock, client


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.gen_test
async def test_an_encrypted_page_arrives_whole_however_slowly_it_is_read(last: bool) -> None:
    """And is followed by a close_notify, if the connection ends, though the kernel may not accept it at first."""
    handover, taken = Handover(APPLICATION, Limits()), asyncio.Event()
    back: list[tuple[socket.socket, bytes]] = []

    def take_back(sock: socket.socket, peer: object, received: bytes, admin: bool) -> None:
        back.append((sock, received))
        taken.set()

    handover.take_back = take_back
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours, client = encrypted(listener)
    request = b"GET /big HTTP/1.%d\r\nHost: test\r\n\r\n" % (0 if last else 1)
    handover.hand_over(ours, Visitor(), request, True)
    answer = b""
    async with asyncio.timeout(PATIENCE_S):
        while not answer.endswith(BIG):
            answer += client.read(200_000)
            await asyncio.sleep(0)
        if last:
            while not client.at_end:
                client._receive()
                await asyncio.sleep(0)
            with pytest.raises(EOFError):
                client.read()
            client.records()
        else:
            await taken.wait()
            assert back == [(ours, b"")]
            ours.close()
    client.socket.close()
    await handover.close()


@pytest.mark.gen_test
async def test_the_close_notify_after_a_page_waits_until_the_kernel_accepts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    close_notify, calls = TLSSocket.close_notify, []

    def blocks_once(sock: TLSSocket) -> None:
        calls.append(sock)
        if len(calls) == 1:
            raise ssl.SSLWantWriteError
        close_notify(sock)

    monkeypatch.setattr(TLSSocket, "close_notify", blocks_once)
    handover = Handover(APPLICATION, Limits())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours, client = encrypted(listener)
    handover.hand_over(ours, Visitor(), b"GET /word HTTP/1.0\r\nHost: test\r\n\r\n", True)
    async with asyncio.timeout(PATIENCE_S):
        while not client.at_end:
            client._receive()
            await asyncio.sleep(0)
    assert client.to_end().endswith(b"word")
    assert len(calls) == 2
    client.socket.close()
    await handover.close()


@pytest.mark.gen_test
async def test_a_page_over_tls_is_https() -> None:
    handover = Handover(APPLICATION, Limits())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours, client = encrypted(listener)
    handover.hand_over(ours, Visitor(), b"GET /seen HTTP/1.0\r\nHost: test\r\n\r\n", True)
    answer = b""
    async with asyncio.timeout(PATIENCE_S):
        while not client.at_end:
            with contextlib.suppress(EOFError):
                answer += client.read()
            await asyncio.sleep(0)
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == ["127.0.0.1", "https", ""]
    client.socket.close()
    await handover.close()


@pytest.mark.parametrize(
    ("fields", "proxied", "seen"),
    [
        (b"", True, ["127.0.0.1", "http", ""]),
        (b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n", False, ["127.0.0.1", "http", ""]),
        (b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.1\r\n", True, ["192.0.2.1", "http", ""]),
        (b"X-Forwarded-Host: push.example\r\nX-Forwarded-Proto: https\r\n", True,
         ["127.0.0.1", "https", "push.example"]),
        (b"Forwarded: for=192.0.2.1;proto=https;host=push.example\r\n", True,
         ["192.0.2.1", "https", "push.example"]),
        (b"X-Forwarded-For: junk\r\nX-Forwarded-Proto: junk\r\n", True, ["unreadable", "http", ""]),
    ],
)  # fmt: skip
@pytest.mark.gen_test
async def test_a_page_sees_the_client_that_a_trusted_proxy_reports(
    fields: bytes, proxied: bool, seen: list[str]
) -> None:
    request = b"GET /seen HTTP/1.0\r\nHost: test\r\n%b\r\n" % fields
    async with handed(request, Visitor(proxied=proxied)) as (_, _, client):
        answer = b""
        while data := await asyncio.get_running_loop().sock_recv(client, 65536):
            answer += data
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == seen
