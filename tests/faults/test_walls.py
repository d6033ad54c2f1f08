"""What a client can make the server hold, and for how long it can keep it busy: a bound for each, whatever it sends."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from ..harness import KEY, Client, Server, client_frame, running

MIB = 1024 * 1024
TEXT, PING, CONT = 0x81, 0x89, 0x00


@contextmanager
def at_most(server: Server, mebibytes: int) -> Iterator[None]:
    """The server's memory grows by no more."""
    before = server.memory()
    yield
    assert server.memory() - before < mebibytes * MIB


def names(first: int, count: int = 64) -> str:
    return ",".join(f"made-up-{number}" for number in range(first, first + count))


# Absence


@pytest.mark.parametrize("query", ["", "?cursor={cursor}&wait=0"])
def test_pollers_that_leave_cost_a_bounded_amount_however_many_names_they_make_up(server: Server, query: str) -> None:
    cursor = server.publish("any", "x")["id"]
    with at_most(server, 25):
        for number in range(1000):
            with server.connect() as client:
                client.send(
                    f"GET /channels/{names(number * 64)}{query.format(cursor=cursor)} HTTP/1.0\r\n\r\n".encode()
                )
                assert client.to_end().startswith(b"HTTP/1.1 200")


def test_a_poll_that_only_asks_for_a_cursor_is_no_subscriber(server: Server) -> None:
    with server.connect() as client:
        cursor = client.poll("chat")["cursor"]
        assert server.publish("chat", "x")["channels"] == {"chat": {"subscribers": 0}}
        client.poll("chat", f"cursor={cursor}")
        assert server.publish("chat", "x")["channels"] == {"chat": {"subscribers": 1}}


# Heads


def test_a_request_has_at_most_64_parameters_and_100_header_fields(shared_server: Server) -> None:
    with shared_server.connect() as client:
        client.request("GET", "/channels/a?wait=0&" + "&".join(["x=y"] * 63))
        assert client.response()[0] == 200
        client.request("GET", "/channels/a?wait=0&" + "&" * 7500)
        status, _, detail = client.problem()
        assert (status, "64 parameters" in detail) == (400, True)
    with shared_server.connect() as client:
        client.send(b"GET /channels/a HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 99 + b"\r\n")
        assert client.response()[0] == 200
        client.send(b"GET /channels/a HTTP/1.1\r\nHost: h\r\n" + b"X:\r\n" * 3700 + b"\r\n")
        status, _, detail = client.problem()
        assert (status, "100 header fields" in detail) == (431, True)


def test_http_1_0_with_chunks_is_answered_and_nothing_behind_it_is_read(server: Server) -> None:
    request = (
        b"POST /channels/chat HTTP/1.0\r\nConnection: keep-alive\r\nAuthorization: Bearer %b\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" % KEY.encode()
    )
    with server.connect() as client:
        client.send(request + request)
        assert client.response()[0] == 200
        assert client.to_end() == b""
    with server.connect() as client:
        assert [message["data"] for message in client.retained("chat")] == ["hello"]


# Readers that do not read


@pytest.mark.options("--unsent-budget", "8MiB", "--history", "200")
def test_clients_that_never_read_have_a_budget_together_and_whoever_reads_gets_everything(server: Server) -> None:
    cursors = [server.publish(f"c{number % 7}", "x" * 60_000)["id"] for number in range(100)]
    everything = ",".join(f"c{number}" for number in range(7))
    with ExitStack() as stack, at_most(server, 40):
        for number in range(200):
            client = stack.enter_context(server.connect(receive_buffer=4096))
            channels = ",".join(f"c{(number + more) % 7}" for more in range(1 + number % 7))
            client.request("GET", f"/channels/{channels}?cursor={cursors[number % 60]}", Accept="text/event-stream")
        reader = stack.enter_context(server.connect())
        cursor, got = cursors[0], 1
        while got < 100:
            answer = reader.poll(everything, f"cursor={cursor}")
            assert "reset" not in answer
            cursor, got = answer["cursor"], got + len(answer["messages"])
        server.wait_for_metric('pushcompat_unsubscribes_total{reason="unsent_budget"}', 1)
        assert server.metric("pushcompat_unsent_bytes") <= 8 * MIB


# Publishers


@pytest.mark.options("--idempotency-bytes", "2MiB")
def test_idempotency_keys_have_a_budget_and_the_latest_are_known(server: Server) -> None:
    def publish(number: int) -> bytes:
        return (
            b"POST /channels/chat?key=k HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\n"
            b"Idempotency-Key: key-%d\r\nContent-Length: 1\r\n\r\nx" % (KEY.encode(), number)
        )

    with server.connect() as client, at_most(server, 12):
        last: dict[str, Any] = {}
        for start in range(0, 40_000, 100):
            client.send(b"".join(publish(number) for number in range(start, start + 100)))
            for _ in range(100):
                last = json.loads(client.response()[2])
        client.send(publish(39_999))
        assert json.loads(client.response()[2])["id"] == last["id"]
    assert server.metric("pushcompat_idempotency_keys") < 4000
    assert server.metric("pushcompat_idempotency_window_seconds") < 300


@pytest.mark.options("--history-bytes", "4MiB", "--history", "100000")
def test_every_copy_of_a_message_counts_against_the_budget(server: Server) -> None:
    with server.connect() as client, at_most(server, 25):
        for _ in range(1000):
            client.publish("chat", b"x" * 60_000)
            assert client.response()[0] == 200
    assert server.metric("pushcompat_retained_bytes") <= 4 * MIB


@pytest.mark.options("--history-bytes", "70000")
def test_the_byte_budget_holds_right_after_each_publish(server: Server) -> None:
    for _ in range(10):
        server.publish("chat", "x" * 60_000)
        assert server.metric("pushcompat_retained_messages") == 1


# Floods


def test_input_of_clients_delays_no_other_client(server: Server) -> None:
    frames = [client_frame(PING), client_frame(TEXT), client_frame(TEXT & 0x7F) + client_frame(CONT) * 500]
    stop = threading.Event()

    def flood(client: Client, frame: bytes) -> None:
        data = frame * 1000
        client.socket.settimeout(0.2)
        while not stop.is_set():
            try:
                client.socket.send(data)
            except TimeoutError:
                continue
            except OSError:
                return

    with ExitStack() as stack:
        threads = []
        for number in range(60):
            client = stack.enter_context(server.connect())
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            assert client.upgrade("/channels/other") == 101
            threads.append(threading.Thread(target=flood, args=(client, frames[number % 3])))
        listener = stack.enter_context(server.connect())
        assert listener.upgrade("/channels/chat") == 101
        for thread in threads:
            thread.start()
        try:
            for number in range(50):
                server.publish("chat", str(number))
                assert listener.frame() == (TEXT, str(number).encode())
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_bytes_behind_a_held_poll_are_bounded(server: Server) -> None:
    with server.connect() as client, at_most(server, 4):
        client.request("GET", "/channels/chat?wait=20")
        server.wait_for_metric('pushcompat_subscriptions{transport="longpoll"}', 1)
        client.socket.setblocking(False)
        sent = 0
        try:
            while sent < 30 * MIB:
                sent += client.socket.send(b"GET /channels/chat HTTP/1.1\r\nHost: h\r\n\r\n" * 1000)
        except BlockingIOError:
            pass
        assert sent < 30 * MIB
        client.socket.setblocking(True)
        server.publish("chat", "x")
        assert client.response()[0] == 200


# All that is retained


@pytest.mark.parametrize("transport", ["longpoll", "eventsource", "websocket"])
def test_the_earliest_of_several_channels_is_all_that_is_retained(
    tmp_path_factory: pytest.TempPathFactory, transport: str
) -> None:
    for server in running(tmp_path_factory.mktemp("state")):
        for number in range(10):
            server.publish("b", f"{number} " + "x" * 40_000)
        for number in range(150):
            server.publish("a", str(number))
        expected = [*range(10), *range(50, 150)]
        with server.connect() as client:
            assert list(earliest(client, transport)) == expected


def earliest(client: Client, transport: str) -> Iterator[int]:
    """The numbers of the messages; a stream is cut behind its opening, and goes on from the cursor that it named."""
    if transport == "longpoll":
        cursor = "earliest"
        while messages := (answer := client.poll("a,b", f"cursor={cursor}"))["messages"]:
            assert "reset" not in answer
            cursor = answer["cursor"]
            yield from (int(message["data"].split()[0]) for message in messages)
        return
    cursor = "earliest"
    for _ in range(2):
        with Client(*client.socket.getpeername()) as stream:
            if transport == "websocket":
                assert stream.upgrade(f"/channels/a,b?format=json&cursor={cursor}") == 101
                documents = (json.loads(stream.frame()[1]) for _ in iter(int, 1))
            else:
                stream.request("GET", f"/channels/a,b?format=json&cursor={cursor}", Accept="text/event-stream")
                assert stream.head()[0] == 200
                documents = (json.loads(stream.event()["data"]) for _ in iter(int, 1))
            cursor = next(documents)["cursor"]
            if cursor != "earliest":
                raise AssertionError("a cursor below a floor")
            if _ == 0:
                continue
            got = 0
            while got < 110:
                document = next(documents)
                assert document.get("control") in (None, "ping"), document
                if "data" in document:
                    got += 1
                    yield int(document["data"].split()[0])
