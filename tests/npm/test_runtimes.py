"""The package where there is no page: in Node.js and Deno, by long-polls with fetch, on a real server."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..harness import PATIENCE_S, Server, running

POLLS = 'pushcompat_subscriptions{transport="longpoll"}'
BOUNDED = ["timeout", str(3 * PATIENCE_S)]
RUNTIMES = {"node": ["node"], "deno": ["npx", "deno", "run", "--quiet", "--allow-net", "--allow-env", "--allow-read"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("state"), "--heartbeat", "1")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_service_follows_a_channel_from_the_last_messages_on_and_ends_by_itself(
    server: Server, project: Path, runtime: str
) -> None:
    channel = f"followed-by-{runtime}"
    for text in ("one", "two", "three"):
        server.publish(channel, text)
    options = json.dumps({"transports": ["longpoll"], "last": 2})
    command = [*BOUNDED, *RUNTIMES[runtime], "follow.mjs", f"{server.url}/channels/{channel}", options]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        lines = [service.stdout.readline().strip() for _ in range(3)]
        server.publish(channel, "live")
        lines.append(service.stdout.readline().strip())
        server.publish(channel, "last")
        lines += service.stdout.read().split("\n")[:-1]
        assert service.wait(PATIENCE_S) == 0
    said = ["state open longpoll", "message two", "message three", "message live", "message last", "state closed"]
    assert sorted(line.strip() for line in lines) == sorted(said)
    server.wait_for_metric(POLLS, 0, 0)


def test_a_service_connects_again_when_the_server_was_killed(project: Path, tmp_path: Path) -> None:
    server = Server(tmp_path)
    command = [*BOUNDED, "node", "follow.mjs", f"{server.url}/channels/killed", '{"retryMax": 500}']
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        said = iter(service.stdout.readline, "")
        assert next(said).split() == ["state", "open", "longpoll"]
        server.stop(signal.SIGKILL)
        assert next(said).split() == ["state", "waiting"]
        server = Server(tmp_path, "--port", str(server.port))
        assert ["state", "open", "longpoll"] in map(str.split, said)
        server.publish("killed", "last")
        assert next(said).split() == ["message", "last"]
        assert service.wait(PATIENCE_S) == 0
    server.stop()
