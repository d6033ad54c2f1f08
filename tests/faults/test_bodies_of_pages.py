"""Bodies that no page takes, and heads behind pages that never end: real sockets, since it is about how they end."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from ..harness import Client, Server

PAGE = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"
MIB = 1024 * 1024

BODIES = {
    "a length": b"HTTP/1.1\r\nContent-Length: 1000000\r\n",
    "chunks": b"HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
    "a length that waits": b"HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n",
    "a length over HTTP/1.0": b"HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1000000\r\n",
    "chunks over HTTP/1.0": b"HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
}
REFUSED = [("POST", "/", 405), ("GET", "/metrics", 413), ("PUT", "/static/chat.js", 405), ("POST", "/nothing", 404)]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("method", "path", "status"), REFUSED)
def test_a_body_that_no_page_takes_is_refused_by_its_head(
    shared_client: Client, method: str, path: str, status: int, body: str
) -> None:
    shared_client.send(PAGE + f"{method} {path} ".encode() + BODIES[body] + b"Host: test\r\n\r\n")
    assert shared_client.response()[2] == b"ok\n"
    got, headers, _ = shared_client.problem()
    assert (got, headers["connection"]) == (status, "close")
    assert shared_client.to_end() == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "PROPFIND"])
def test_a_request_without_a_body_keeps_the_connection(shared_client: Client, method: str) -> None:
    shared_client.send(f"{method} / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".encode() + PAGE)
    status, headers, _ = shared_client.problem()
    assert (status, headers.get("connection")) == (405, None)
    assert shared_client.response()[2] == b"ok\n"


def test_a_client_whose_body_is_not_accepted_still_gets_the_response(shared_client: Client) -> None:
    """With its bytes unread, the kernel would reset the connection, and take the answer with it."""
    shared_client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
    assert shared_client.problem()[0] == 405
    assert shared_client.to_end() == b""


@pytest.mark.parametrize("path", ["/revoke", "/keys"])
@pytest.mark.parametrize("body", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_who_has_no_key_is_refused_before_the_body_is_read(shared_client: Client, path: str, body: bytes) -> None:
    shared_client.send(f"POST {path} HTTP/1.1\r\nHost: test\r\n".encode() + body + b"\r\n")
    status, headers, _ = shared_client.problem()
    assert (status, headers["connection"]) == (401, "close")
    assert shared_client.to_end() == b""


@pytest.mark.options("--demo")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"HTTP/1.1\r\nContent-Length: 16385\r\n", 413),
        (b"HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n", 411),
    ],
)
def test_the_demo_takes_short_bodies_with_a_known_end(server: Server, body: bytes, status: int) -> None:
    for path in (b"/demo/chat", b"/demo/chat/comments"):
        with server.connect() as client:
            client.send(b"POST %b %bHost: test\r\n\r\n" % (path, body))
            got, headers, _ = client.problem()
            assert (got, headers["connection"]) == (status, "close")
            assert client.to_end() == b""


@pytest.mark.options("--demo")
def test_chunks_without_end_are_not_kept(client: Client) -> None:
    client.send(b"POST /demo/chat HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"1000\r\n%b\r\n" % (b"x" * 0x1000) * 5)
    assert client.head()[0] == 400
    assert client.to_end() == b""


@pytest.mark.options("--demo")
@pytest.mark.parametrize("path", ["/", "/demo/chat"])
def test_bodies_that_are_never_finished_cost_no_memory(server: Server, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 1000001\r\n\r\n".encode()
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(300)]
        for client in clients:
            client.send(PAGE)
            client.response()
        before = server.memory()
        for client in clients:
            client.send(head + b"x" * 1_000_000)
        for client in clients:
            assert client.problem()[0] in (405, 413)
        assert server.memory() - before < 30 * MIB


@pytest.mark.options("--demo", "--body-timeout", "1")
def test_a_form_that_is_never_finished_ends_with_its_time(client: Client) -> None:
    client.send(b"POST /demo/chat HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\ntext=")
    assert client.to_end() == b""


@pytest.mark.options("--head-timeout", "1")
def test_a_head_behind_a_page_has_the_time_of_a_head(server: Server, client: Client) -> None:
    """And a connection on which nothing comes stays."""
    head = b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"x" * 15_000
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(500)]
        client.send(PAGE)
        assert client.response()[2] == b"ok\n"
        for late in clients:
            late.send(PAGE + head)
        for late in clients:
            assert late.response()[2] == b"ok\n"
            assert late.problem()[0] == 408
            assert late.to_end() == b""
    client.send(PAGE)
    assert client.response()[2] == b"ok\n"
