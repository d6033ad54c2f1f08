"""Clients that come back at once while the server stops, whatever they are told: they must not do so in a circle."""

from __future__ import annotations

import signal
from contextlib import ExitStack

import pytest

from ..harness import PATIENCE_S, Client, Server

CROWD = 400  # a second of drain: what is left of it is short


def follow(client: Client, transport: str) -> None:
    """From the subscription to its planned end."""
    if transport == "eventsource":
        client.request("GET", "/channels/chat", Accept="text/event-stream")
        client.to_end()
        return
    assert client.upgrade(f"/channels/chat?format={transport.partition(' ')[2]}") == 101
    while True:
        first, payload = client.frame()
        if first == 0x88:
            client.send_frame(first, payload)
            client.to_end()
            return


@pytest.mark.options("--drain-timeout", "1")
@pytest.mark.parametrize("transport", ["websocket json", "websocket text", "eventsource"])
def test_a_client_that_was_told_to_leave_comes_back_once_and_stays_until_the_end(
    server: Server, transport: str
) -> None:
    with ExitStack() as stack:
        eager = stack.enter_context(server.connect())
        crowd = [stack.enter_context(server.connect()) for _ in range(CROWD)]
        for client in (eager, *crowd):
            assert client.upgrade("/channels/chat") == 101
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log(f"stopping subscribers={CROWD + 1}")
        connections = 0
        while True:
            try:
                with server.connect() as again:
                    follow(again, transport)
                    connections += 1
            except (OSError, EOFError):
                break  # nobody can connect any more
        assert 1 <= connections <= 4
        assert server.process.wait(PATIENCE_S) == 0
