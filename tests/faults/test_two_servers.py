"""Two servers that were started by hand on one file: one log, whichever of them somebody comes to."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pushcompat.message import parse_cursor

from ..harness import Client, Server, sequence


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Server]]:
    servers = [start(tmp_path, name) for name in ("one", "other")]
    yield servers
    for server in servers:
        server.stop()
        assert server.complaints() == []


def start(directory: Path, name: str, *options: str) -> Server:
    return Server(directory / name, "--store", f"sqlite:{directory}/log.sqlite", *options)


def stream(server: Server, cursor: str = "") -> Client:
    client = server.connect()
    client.request("GET", f"/channels/c?transport=eventsource&cursor={cursor}")
    assert client.head()[0] == 200
    return client


def next_data(client: Client) -> tuple[str, str]:
    """The next message's id and text; a reset is an error."""
    while "control" in (event := client.event()).get("event", ""):
        assert '"reset"' not in event["data"]
    return event["id"], event["data"]


def test_a_publish_through_one_server_reaches_the_subscribers_of_both(servers: list[Server]) -> None:
    with stream(servers[0]) as one, stream(servers[1]) as other:
        for number in range(6):
            published = servers[number % 2].publish("c", str(number))["id"]
            assert next_data(one)[1] == next_data(other)[1] == str(number)
            assert sequence(published) == number + 1


def test_a_client_that_changes_the_server_after_each_message_gets_each_once(
    servers: list[Server],
) -> None:
    cursor = servers[0].publish("c", "first")["id"]
    for number in range(10):
        servers[number % 3 % 2].publish("c", str(number))
        with stream(servers[number % 2], cursor) as client:
            cursor, data = next_data(client)
            assert data == str(number)


def test_when_one_is_killed_the_other_goes_on_and_its_successor_has_the_same_log(
    servers: list[Server], tmp_path: Path
) -> None:
    cursor = servers[0].publish("c", "before", Idempotency_Key="k")["id"]
    servers[0].stop(signal.SIGKILL)
    with stream(servers[1], cursor) as client:
        servers[1].publish("c", "meanwhile")
        assert next_data(client)[1] == "meanwhile"
        assert servers[1].publish("c", "before", Idempotency_Key="k")["id"] == cursor
        servers[0] = start(tmp_path, "one")
        with stream(servers[0], cursor) as late:
            assert next_data(late)[1] == "meanwhile"
            published = servers[0].publish("c", "after")["id"]
            assert next_data(late) == next_data(client) == (published, "after")
    before, after = parse_cursor(cursor), parse_cursor(published)
    assert before is not None
    assert after == (before[0], 3)
