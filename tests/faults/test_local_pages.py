"""Pages of this machine, such as a development server's, may use a server that this machine alone can reach."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..harness import KEY, Client, Server, running

LOCAL = ["http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:8080", "https://localhost"]
OTHERS = [
    "https://evil.example", "http://localhost.evil.example", "http://127.0.0.1.evil.example:3000",
    "http://192.168.1.7:5173", "http://notlocalhost:5173", "http://localhost:5173.evil.example", "null",
]  # fmt: skip

ADMITTED = {"poll": 200, "stream": 200, "socket": 101, "publish": 200}
REFUSED = {"poll": 403, "stream": 403, "socket": 4403, "publish": 403}


@pytest.fixture(scope="module")
def public_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("state"), "--host", "0.0.0.0")


def handshake(client: Client, origin: str) -> int:
    """The status of the answer, or the close code where it was closed at once: a page sees no status."""
    status = client.upgrade("/channels/chat?format=json", Origin=origin)
    first, payload = client.frame()
    return int.from_bytes(payload[:2], "big") if first == 0x88 else status


def statuses(server: Server, origin: str) -> dict[str, int]:
    """How a page of this origin is answered, by what it does."""
    with server.connect() as poll, server.connect() as stream, server.connect() as socket, server.connect() as publish:
        poll.request("GET", "/channels/chat", Origin=origin)
        stream.request("GET", "/channels/chat", Accept="text/event-stream", Origin=origin)
        publish.request("POST", "/channels/chat", b"x", Authorization=f"Bearer {KEY}", Origin=origin)
        return {
            "poll": poll.response()[0],
            "stream": stream.head()[0],
            "socket": handshake(socket, origin),
            "publish": publish.response()[0],
        }


@pytest.mark.parametrize("origin", LOCAL)
def test_pages_of_this_machine_come_in_by_every_transport(shared_server: Server, origin: str) -> None:
    assert statuses(shared_server, origin) == ADMITTED


@pytest.mark.parametrize("origin", LOCAL)
def test_pages_of_this_machine_can_read_the_answers(shared_server: Server, origin: str) -> None:
    with shared_server.connect() as client:
        client.request("GET", "/channels/chat", Origin=origin)
        fields = client.response()[1]
        assert (fields["access-control-allow-origin"], fields["vary"]) == (origin, "Origin")
        client.request("OPTIONS", "/channels/chat", Origin=origin, Access_Control_Request_Method="POST")
        fields = client.response()[1]
        assert fields["access-control-allow-origin"] == origin
        assert "POST" in fields["access-control-allow-methods"]


@pytest.mark.parametrize("origin", OTHERS)
def test_all_other_pages_stay_out(shared_server: Server, origin: str) -> None:
    assert statuses(shared_server, origin) == REFUSED
    with shared_server.connect() as client:
        client.request("GET", "/channels/chat", Origin=origin)
        assert "access-control-allow-origin" not in client.response()[1]


@pytest.mark.parametrize("origin", [*LOCAL, OTHERS[0]])
def test_a_server_that_others_can_reach_lets_none_of_them_in(public_server: Server, origin: str) -> None:
    assert statuses(public_server, origin) == REFUSED
