"""Tokens of subscribers are not checked yet: where one comes in, a warning in the log says so."""

from __future__ import annotations

from ..harness import Server


def warnings(server: Server) -> list[str]:
    """The lines about tokens, once the server has written all of its log."""
    assert server.stop() == 0
    return [line for line in server.log if " WARNING " in line and "token" in line]


def test_a_token_that_is_not_checked_is_warned_about_once(server: Server) -> None:
    with server.connect() as client:
        for number in range(50):
            client.poll("chat", f"token=secret-{number}")
    (line,) = warnings(server)
    assert "secret" not in line


def test_a_stream_with_a_token_is_warned_about_too(server: Server) -> None:
    with server.connect() as stream, server.connect() as socket:
        stream.request("GET", "/channels/chat?token=secret", Accept="text/event-stream")
        assert stream.head()[0] == 200
        assert socket.upgrade("/channels/chat?token=secret") == 101
        server.wait_for_log(" WARNING .*token")
    (line,) = warnings(server)
    assert "secret" not in line


def test_without_a_token_there_is_no_warning(server: Server) -> None:
    with server.connect() as client:
        client.poll("chat", "name=token")
        client.poll("token")
    assert warnings(server) == []
