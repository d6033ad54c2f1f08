"""The server as a whole, as somebody sees it who starts it and uses curl."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pushcompat.descriptors import connections_within

from .harness import KEY, PATIENCE_S, Client, Server, full_pipe


def test_an_update_reaches_subscribers_of_all_three_transports(server: Server) -> None:
    with server.connect() as websocket, server.connect() as stream, server.connect() as poller:
        assert websocket.upgrade("/channels/chat") == 101
        stream.request("GET", "/channels/chat", Accept="text/event-stream")
        assert stream.head()[0] == 200
        stream.event()
        stream.event()
        poller.request("GET", "/channels/chat?wait=20")
        server.wait_for_metric('pushcompat_subscriptions{transport="longpoll"}', 1)
        assert server.publish("chat", "hello")["channels"] == {"chat": {"subscribers": 3}}
        assert websocket.frame() == (0x81, b"hello")
        assert stream.event()["data"] == "hello"
        assert [m["data"] for m in json.loads(poller.response()[2])["messages"]] == ["hello"]


@pytest.mark.options("--request-cap", "12")
def test_a_stream_under_a_request_cap_says_how_long_it_lives(client: Client) -> None:
    client.request("GET", "/channels/chat", Accept="text/event-stream")
    client.head()
    assert 8 <= json.loads(client.event()["data"])["lifetime"] <= 10


def start(state_dir: Path, **streams: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pushcompat", "--port", "0", "--publish-key", KEY, "--state-dir", str(state_dir)]
    return subprocess.Popen(command, **streams)  # type: ignore[call-overload,no-any-return]


def test_a_standard_error_that_nobody_reads_stops_neither_the_service_nor_the_stop(tmp_path: Path) -> None:
    read_end, write_end = full_pipe()
    with start(tmp_path, stdout=subprocess.PIPE, stderr=write_end) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(b":")[2])
            with Client("127.0.0.1", port) as client:
                for number in range(200):  # each is logged twice
                    client.poll(f"chat-{number}")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            os.close(read_end)
            os.close(write_end)


def test_a_standard_output_that_nobody_reads_does_not_stop_the_stop(tmp_path: Path) -> None:
    read_end, write_end = full_pipe()
    with start(tmp_path, stdout=write_end, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            assert b" INFO descriptors " in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            os.close(read_end)
            os.close(write_end)


def test_sighup_asks_for_a_reload_and_usr1_and_usr2_are_ignored(server: Server) -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        server.process.send_signal(number)
    server.wait_for_log(" INFO reload detail=")
    assert server.publish("chat")["channels"] == {"chat": {"subscribers": 0}}


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux to see another process's limits")
def test_the_server_raises_the_limit_of_open_files_and_logs_how_many_connections_it_allows(tmp_path: Path) -> None:
    soft, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256, hard - 1), hard))
    try:
        server = Server(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    try:
        most = connections_within(hard, None)
        assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
        server.wait_for_log(f" INFO descriptors limit={hard} max_connections={most}$")
        assert server.metric("pushcompat_max_connections") == most
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("limit", "asked", "most"),
    [
        (1024, None, 864),
        (1024, 100, 100),
        (1024, 5000, 864),
        (524_288, None, 524_032),
        (20, None, 1),
        (None, None, None),
        (None, 5000, 5000),
    ],
)
def test_a_reserve_of_descriptors_is_left_to_publishers_and_pages(
    limit: int | None, asked: int | None, most: int | None
) -> None:
    assert connections_within(limit, asked) == most
