"""The server's end: who is told what, who is still let in, and what a second Ctrl-C does."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ..harness import PATIENCE_S, Client, Server, client_frame

CLOSED_1012 = (0x88, (1012).to_bytes(2, "big") + b"shutdown")


def said(client: Client) -> dict[str, Any]:
    first, payload = client.frame()
    assert first == 0x81
    document: dict[str, Any] = json.loads(payload)
    return document


def control(client: Client) -> dict[str, Any]:
    """The next event's data."""
    event = client.event()
    document: dict[str, Any] = json.loads(event["data"])
    assert (event["event"], event["id"]) == ("control", document["cursor"])
    return {**document, **({"retry": int(event["retry"])} if "retry" in event else {})}


def follow_events(client: Client) -> None:
    client.request("GET", "/channels/chat", Accept="text/event-stream")
    assert client.head()[0] == 200
    assert [control(client)["control"] for _ in range(2)] == ["open", "ping"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopping_server_tells_every_transport_to_come_back_later(server: Server, number: int) -> None:
    with (
        server.connect() as json_socket, server.connect() as text_socket, server.connect() as stream,
        server.connect() as poller, server.connect() as idle, server.connect() as unfinished,
    ):  # fmt: skip
        assert json_socket.upgrade("/channels/chat?format=json") == 101
        assert said(json_socket)["control"] == "open"
        assert text_socket.upgrade("/channels/chat") == 101
        follow_events(stream)
        poller.request("GET", "/channels/chat?wait=20")
        idle.request("GET", "/channels/chat")
        assert idle.response()[0] == 200
        unfinished.send(b"GET /chan")
        server.wait_for_metric('pushcompat_subscriptions{transport="longpoll"}', 1)
        head = server.publish("elsewhere", "so that the head has a name")["id"]

        server.process.send_signal(number)
        rotate = said(json_socket)
        assert (rotate["control"], rotate["cursor"]) == ("rotate", head)
        assert 2000 <= rotate["retry"] <= 5000
        for client in (json_socket, text_socket):
            assert client.frame() == CLOSED_1012
            client.send(client_frame(*CLOSED_1012))
            assert client.to_end() == b""
        rotate = control(stream)
        assert (rotate["control"], rotate["cursor"]) == ("rotate", head)
        assert 2000 <= rotate["retry"] <= 5000
        assert stream.to_end() == b""
        status, _, body = poller.response()
        answer = json.loads(body)
        assert (status, answer["cursor"], answer["messages"]) == (200, head, [])
        assert 2000 <= answer["retry"] <= 5000
        for client in (poller, idle, unfinished):
            assert client.to_end() == b""
        assert server.process.wait(PATIENCE_S) == 0


def test_a_stream_that_the_server_ends_has_a_last_chunk_and_a_lost_one_has_none(tmp_path: Path) -> None:
    for number, planned in ((signal.SIGTERM, True), (signal.SIGKILL, False)):
        server = Server(tmp_path)
        with server.connect() as stream:
            follow_events(stream)
            server.stop(number)
            stream.to_end()
            assert stream.chunks is not None
            assert stream.chunks.ended is planned


def test_a_stream_of_http_1_0_ends_with_its_connection(server: Server) -> None:
    with server.connect() as stream:
        stream.send(b"GET /channels/chat HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n")
        assert "transfer-encoding" not in stream.head()[1]
        assert [control(stream)["control"] for _ in range(2)] == ["open", "ping"]
        server.stop()
        while control(stream)["control"] != "rotate":
            pass
        assert stream.to_end() == b""


@pytest.mark.options("--log-level", "info")
def test_a_draining_server_lets_everybody_in_and_tells_them_to_come_back(server: Server) -> None:
    with ExitStack() as stack:
        crowd = [stack.enter_context(server.connect()) for _ in range(600)]  # three seconds of drain
        for client in crowd:
            assert client.upgrade("/channels/chat") == 101
        before = server.publish("elsewhere", "so that the head has a name")["id"]
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping subscribers=600")

        probe = stack.enter_context(server.connect())
        probe.request("GET", "/readyz")
        assert probe.response()[::2] == (503, b"draining\n")
        probe.request("GET", "/healthz")
        assert probe.response()[0] == 200

        stream = stack.enter_context(server.connect())
        follow_events(stream)
        socket = stack.enter_context(server.connect())
        assert socket.upgrade("/channels/chat?format=json") == 101
        assert said(socket)["control"] == "open"

        poller = stack.enter_context(server.connect())
        poller.request("GET", "/channels/chat?wait=20")
        status, _, body = poller.response()
        assert (status, "retry" in json.loads(body)) == (200, True)

        told = 0
        after = server.publish("chat", "one more")["id"]
        assert after > before
        late = stack.enter_context(server.connect())
        late.request("GET", f"/channels/chat?cursor={before}", Accept="text/event-stream")
        assert late.head()[0] == 200
        assert [control(late)["control"] for _ in range(2)] == ["open", "ping"]
        assert late.event().items() >= {"id": after, "data": "one more"}.items()
        # They are told last, at the end of the drain: whoever comes back at once must not do so again and again.
        for client in (stream, late):
            if client is stream:
                assert client.event().items() >= {"id": after, "data": "one more"}.items()
            assert control(client).items() >= {"control": "rotate", "cursor": after}.items()
            assert client.to_end() == b""
        assert said(socket)["data"] == "one more"
        assert said(socket)["control"] == "rotate"
        assert socket.frame() == CLOSED_1012

        for client in crowd:
            frame = client.frame()
            if frame == (0x81, b"one more"):  # not told yet when that was published
                told += 1
                frame = client.frame()
            assert frame == CLOSED_1012
        assert 0 < told < len(crowd), "the drain was under way, and publishing too"
        assert server.process.wait(PATIENCE_S) == 0


def test_a_stopping_server_does_not_wait_for_who_does_not_read(server: Server) -> None:
    with server.connect(receive_buffer=4096) as sleeper, server.connect() as reader:
        for client in (sleeper, reader):
            assert client.upgrade("/channels/chat") == 101
        for _ in range(80):
            server.publish("chat", "x" * 60_000)
            assert reader.frame()[0] == 0x81
        server.process.send_signal(signal.SIGTERM)
        assert reader.frame() == CLOSED_1012
        assert server.process.wait(PATIENCE_S) == 0
        try:
            data = sleeper.to_end()
        except ConnectionResetError:
            data = sleeper.buffer
        assert not data.endswith(b"shutdown"), "a Close behind a hole would say that all was well"


def test_a_second_ctrl_c_ends_the_server_at_once(tmp_path: Path) -> None:
    server = Server(tmp_path)
    with ExitStack() as stack:
        crowd = [stack.enter_context(server.connect()) for _ in range(600)]
        for client in crowd:
            assert client.upgrade("/channels/chat") == 101
        server.process.send_signal(signal.SIGINT)
        server.wait_for_log("stopping subscribers=600")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE_S) == 128 + signal.SIGINT
        told = sum(b"shutdown" in client.to_end() for client in crowd)
        assert told < len(crowd)
    server.stop()
    assert server.complaints() == []
