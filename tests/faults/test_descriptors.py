"""A process that may open few files: subscribers beyond them are refused, and publishers and probes are served."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..harness import Client, Server, running

FILES = 160
MORE = FILES + 40  # subscribers than there can be


class ServerWithFewFiles(Server):
    wrapper = ("sh", "-c", f'ulimit -n {FILES} && exec "$@"', "sh")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    options = ("--log-level", "warning", "--heartbeat", "60", "--head-timeout", "2")
    yield from running(tmp_path, *options, kind=ServerWithFewFiles)


def subscribe(client: Client, transport: str) -> tuple[int, dict[str, str]]:
    """The answer's status and fields. A WebSocket that is refused is opened, and closed with a code instead."""
    if transport == "websocket":
        assert client.upgrade("/channels/chat?format=json") == 101
        first, payload = client.frame()
        return (200, {}) if first == 0x81 else (503, {"close-code": str(int.from_bytes(payload[:2], "big"))})
    client.request("GET", "/channels/chat", Accept="text/event-stream")
    return client.head()


def admitted(server: Server, stack: ExitStack, transport: str) -> list[Client]:
    """As many subscribers as there can be, of those who try. Each of the others must have been refused properly."""
    clients = []
    for _ in range(MORE):
        client = stack.enter_context(server.connect())
        status, fields = subscribe(client, transport)
        if status != 503:
            assert status == 200
            clients.append(client)
            continue
        assert fields["close-code"] == "4100" if transport == "websocket" else int(fields["retry-after"]) >= 1
        client.close()
    return clients


@pytest.mark.parametrize("transport", ["websocket", "eventsource"])
def test_subscribers_beyond_the_limit_are_asked_to_come_back_and_all_others_are_served(
    server: Server, transport: str
) -> None:
    with ExitStack() as stack:
        clients = admitted(server, stack, transport)
        assert FILES // 3 <= len(clients) < FILES
        for _ in range(5):
            assert server.publish("chat", "x")["channels"] == {"chat": {"subscribers": len(clients)}}
            with server.connect() as probe:
                probe.request("GET", "/healthz")
                assert probe.response()[::2] == (200, b"ok\n")


def test_the_metrics_tell_how_many_connections_there_can_be_and_how_many_were_refused(server: Server) -> None:
    with ExitStack() as stack:
        clients = admitted(server, stack, "eventsource")
        with server.connect() as client:
            client.request("GET", "/metrics")
            metrics = client.response()[2].decode()
        refused = re.findall(r'^pushcompat_refused_total\{.*status="503".*\} (.*)$', metrics, re.MULTILINE)
        assert sum(map(float, refused)) == MORE - len(clients)
        (most,) = re.findall(r"^pushcompat_max_connections (.*)$", metrics, re.MULTILINE)
        assert len(clients) <= float(most) < FILES


def test_when_subscribers_leave_others_take_their_place(server: Server) -> None:
    with ExitStack() as stack:
        clients = admitted(server, stack, "eventsource")
        for client in clients[:20]:
            client.close()
        server.wait_for_metric('pushcompat_subscriptions{transport="eventsource"}', 0, len(clients) - 20)
        for _ in range(15):
            assert subscribe(stack.enter_context(server.connect()), "eventsource")[0] == 200


def test_connections_that_ask_for_nothing_leave_nobody_without_an_answer(server: Server) -> None:
    with server.connect() as stream, ExitStack() as stack:
        assert subscribe(stream, "eventsource")[0] == 200
        assert [stream.event()["event"] for _ in range(2)] == ["control", "control"]
        idle = [stack.enter_context(server.connect()) for _ in range(MORE)]
        for client in idle[FILES:]:
            status, fields, _ = client.problem()
            assert (status, int(fields["retry-after"]) >= 1) == (503, True)
        for client in idle[:FILES]:
            client.to_end()
        server.publish("chat", "still here")
        while (event := stream.event()).get("event") == "control":
            pass
        assert event["data"] == "still here"
