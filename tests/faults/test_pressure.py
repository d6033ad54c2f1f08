"""Many clients at once who are expensive, or never satisfied: the others get everything, in order."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack

import pytest

from ..harness import PATIENCE_S, Client, Server

MIB = 1024 * 1024
TEXT, CLOSE = 0x81, 0x88
STREAMS = ["websocket", "eventsource"]


def follow(client: Client, transport: str, target: str) -> None:
    if transport == "websocket":
        assert client.upgrade(target) == 101
    else:
        client.request("GET", target, Accept="text/event-stream")
        assert client.head()[0] == 200


# Heads


@pytest.mark.parametrize(
    ("head", "status", "bound"),
    [
        (f"GET /channels/other?{'&' * 7500} HTTP/1.1\r\nHost: h\r\n\r\n", 400, "64 parameters"),
        (f"GET /channels/other?{'%61=%62&' * 1800} HTTP/1.1\r\nHost: h\r\n\r\n", 400, "64 parameters"),
        ("GET /channels/other HTTP/1.1\r\nHost: h\r\n" + "X:\r\n" * 3700 + "\r\n", 431, "100 header fields"),
    ],
    ids=["empty parameters", "escaped parameters", "lines of one field"],
)
def test_heads_that_cost_much_are_all_refused_while_a_subscriber_gets_everything(
    server: Server, head: str, status: int, bound: str
) -> None:
    with server.connect() as listener, server.connect() as publisher:
        follow(listener, "websocket", "/channels/chat")
        for number in range(5):
            with ExitStack() as stack:
                crowd = [stack.enter_context(server.connect()) for _ in range(10)]
                for client in crowd:
                    client.send(head.encode())
                publisher.publish("chat", str(number).encode())
                assert publisher.response()[0] == 200
                assert listener.frame() == (TEXT, str(number).encode())
                for client in crowd:
                    answer, _, detail = client.problem()
                    assert (answer, bound in detail) == (status, True)


# Readers that do not read


@pytest.mark.parametrize("transport", STREAMS)
@pytest.mark.options("--unsent-budget", "8MiB", "--history", "200", "--log-level", "warning")
def test_streams_that_resume_differently_and_never_read_stay_within_the_budget(server: Server, transport: str) -> None:
    ids = []
    with server.connect() as publisher:
        for number in range(80):
            publisher.publish(f"c{number % 7}", b"x" * 60_000)
            ids.append(json.loads(publisher.response()[2])["id"])
    before = server.memory()
    with ExitStack() as stack:
        for number in range(300):
            client = stack.enter_context(server.connect(receive_buffer=4096))
            channels = ",".join(f"c{(number + more) % 7}" for more in range(1 + number % 7))
            target = f"/channels/{channels}?cursor={ids[number % 40]}"
            if transport == "websocket":
                client.request(
                    "GET", target, Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Version="13",
                    Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
                )  # fmt: skip
            else:
                client.request("GET", target, Accept="text/event-stream")
        with server.connect() as reader:  # reads while they do not
            everything = ",".join(f"c{number}" for number in range(7))
            follow(reader, "eventsource", f"/channels/{everything}?cursor={ids[0]}")
            got: list[str] = []
            while len(got) < 79:
                event = reader.event()
                if len(event.get("data", "")) == 60_000:
                    got.append(event["id"])
            assert got == ids[1:]
        server.wait_for_metric('pushcompat_unsubscribes_total{reason="unsent_budget"}', 1)
        assert server.metric("pushcompat_unsent_bytes") <= 8 * MIB
        assert server.memory() - before < 40 * MIB


# Stopping


@pytest.mark.parametrize("transport", STREAMS)
def test_streams_of_a_stopping_server_come_back_after_two_to_five_seconds(server: Server, transport: str) -> None:
    target = "/channels/chat?format=json"
    with ExitStack() as stack:
        crowd = [stack.enter_context(server.connect()) for _ in range(60)]
        for client in crowd:
            follow(client, transport, target)
        server.process.send_signal(signal.SIGTERM)
        waits = []
        for client in crowd:
            said = ""
            while '"rotate"' not in said:
                said = client.frame()[1].decode() if transport == "websocket" else client.event().get("data", "")
            waits.append(json.loads(said)["retry"])
            client.close()
        assert 2000 <= min(waits) < max(waits) <= 5000
        assert server.process.wait(PATIENCE_S) == 0
