"""Several workers are one server: what one is told all know, and none of them is missed when it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .faults.test_stopping import CLOSED_1012, said
from .harness import KEY, PATIENCE_S, Client, Server, client_frame, running
from .workers import Workers, alive


@pytest.fixture
def workers(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Workers]:
    marker = request.node.get_closest_marker("options")
    for server in running(tmp_path, *(marker.args if marker else ()), kind=Workers):
        assert isinstance(server, Workers)
        yield server


def run(state_dir: Path, *options: str) -> tuple[int, str]:
    """A server that cannot start: its exit code, and what it says."""
    command = [sys.executable, "-m", "pushcompat", "--publish-key", KEY, "--state-dir", str(state_dir), *options]
    command += ["--log-level", "error"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_connections_are_spread_over_the_workers_and_the_figures_are_those_of_all(workers: Workers) -> None:
    with ExitStack() as stack:
        workers.subscribe(stack, "chat", 40)
        assert workers.metric('pushcompat_subscriptions{transport="websocket"}') == 40
        assert workers.metric("pushcompat_connections") == 40
        assert workers.metric("pushcompat_workers") == 2
        assert workers.metric("pushcompat_workers_silent") == 0
        for number in (1, 2):
            workers.wait_for_log(rf" subscribe channels=chat transport=websocket address=127.0.0.1 worker={number}$")


def test_the_server_is_announced_once_and_each_line_of_the_log_has_its_worker(tmp_path: Path) -> None:
    server = Workers(tmp_path, "--log-format", "json")
    try:
        for _ in range(20):
            with server.connect() as client:
                client.request("GET", "/channels/chat?cursor=none&wait=x")
                assert client.response()[0] == 400
        server.wait_for(lambda: sum('"event":"refused"' in line for line in server.log) == 20)
        assert {json.loads(line)["worker"] for line in server.log} == {1, 2}
        assert server.process.stdout is not None
        os.set_blocking(server.process.stdout.fileno(), False)
        assert b"listening" not in (server.process.stdout.read() or b"")
    finally:
        assert server.stop() == 0


@pytest.mark.options("--max-connections-per-address", "100")
def test_an_address_has_its_share_on_each_worker_where_the_kernel_spreads_connections(workers: Workers) -> None:
    assert workers.metric("pushcompat_max_connections_per_address") == (72 if sys.platform == "linux" else 100)


@pytest.mark.options("--max-connections", "20")
def test_the_most_connections_are_of_all_workers(workers: Workers) -> None:
    assert workers.metric("pushcompat_max_connections") == 20
    with ExitStack() as stack:
        taken = 0
        for _ in range(80):
            client = stack.enter_context(workers.connect())
            client.request("GET", "/channels/chat", Accept="text/event-stream")
            status, _ = client.head()
            assert status in (200, 503)
            taken += status == 200
        assert 10 <= taken <= 20
        workers.publish("chat")  # publishers have a reserve


def test_a_log_in_memory_is_refused(tmp_path: Path) -> None:
    code, told = run(tmp_path, "--workers", "2", "--store", "memory:")
    assert (code, told.count("\n")) == (2, 1)
    assert "the memory: store is a log of one process" in told


def test_a_configuration_that_no_worker_can_start_with_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "demo.sqlite").mkdir()
    code, told = run(tmp_path, "--workers", "3", "--port", "0", "--demo")
    assert (code, told.count("\n")) == (2, 1)
    assert told.startswith("pushcompat: cannot create the demo's database")


def test_a_port_that_another_server_has_is_not_shared_with_it(tmp_path: Path, workers: Workers) -> None:
    code, told = run(tmp_path, "--workers", "2", "--port", str(workers.port))
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{workers.port}: Address already in use" in told


def figures(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as response:
        client.settimeout(PATIENCE_S)
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return response.read().decode()


def test_a_unix_socket_is_shared_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    command = [sys.executable, "-m", "pushcompat", "--publish-key", KEY, "--state-dir", str(tmp_path), "--workers", "2"]
    command += ["--unix-socket", str(path), "--max-connections-per-address", "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert f"listens on {path}" in process.stdout.readline().decode()
            assert "\npushcompat_max_connections_per_address 100.0\n" in figures(path), "all may be on one worker"
            for _ in range(10):
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(PATIENCE_S)
                    client.connect(str(path))
                    client.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert client.recv(1000).startswith(b"HTTP/1.1 200")
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
            assert not path.exists()
        finally:
            process.kill()


def test_the_supervisor_starts_without_standard_streams(tmp_path: Path) -> None:
    """Else its sockets have their numbers, and a worker its standard input in place of one."""
    path = tmp_path / "s"
    command = [sys.executable, "-m", "pushcompat", "--publish-key", KEY, "--state-dir", str(tmp_path), "--workers", "2"]
    command += ["--unix-socket", str(path)]
    with subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]) as process:
        try:
            answers = [answer_of(process, path) for _ in range(10)]
            assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


def answer_of(process: subprocess.Popen[bytes], path: Path) -> bytes:
    """The server's, as soon as it listens; then a worker's, as soon as there is one."""
    while True:
        assert process.poll() is None
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_S)
            try:
                client.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                continue
            client.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            return client.recv(1000)


# One log


def test_a_publish_through_any_worker_reaches_the_subscribers_of_all(workers: Workers) -> None:
    with ExitStack() as stack:
        clients = workers.subscribe(stack, "chat", 20)
        for number in range(20):  # each on a connection of its own
            workers.publish("chat", str(number))
        for client in clients:
            assert [client.frame()[1] for _ in range(20)] == [b"%d" % number for number in range(20)]


def test_clients_of_a_killed_worker_resume_without_a_reset(workers: Workers) -> None:
    with ExitStack() as stack:
        clients = workers.subscribe(stack, "chat?format=json", 20)
        first = workers.publish("chat", "first")["id"]
        for client in clients:
            assert said(client)["control"] == "open"
            assert said(client)["id"] == first
        os.kill(workers.pids()[1], signal.SIGKILL)
        second = workers.publish("chat", "second", Idempotency_Key="second")["id"]
        resumed = 0
        for client in clients:
            try:
                message = said(client)
            except (EOFError, ConnectionResetError):
                resumed += 1
                again = stack.enter_context(workers.connect())
                assert again.upgrade(f"/channels/chat?format=json&cursor={first}") == 101
                assert said(again)["control"] == "open"
                message = said(again)
            assert (message["id"], message["data"]) == (second, "second")
        assert 0 < resumed < len(clients)
        workers.wait_for_pids(3)  # or the stop could come before the parent has seen that one was killed


def test_two_servers_on_one_file_are_one_log(tmp_path: Path) -> None:
    """Started by hand, and killed by hand."""
    servers = [Server(tmp_path) for _ in range(2)]
    try:
        with servers[0].connect() as client, servers[1].connect() as other:
            for each in (client, other):
                assert each.upgrade("/channels/chat?format=json") == 101
                assert said(each)["control"] == "open"
            ids = [server.publish("chat", "from each")["id"] for server in servers]
            for each in (client, other):
                assert [said(each)["id"] for _ in ids] == ids
            servers[0].stop(signal.SIGKILL)
            last = servers[1].publish("chat", "from the other")["id"]
            assert said(other)["id"] == last
        servers[0] = Server(tmp_path)
        with servers[0].connect() as client:
            assert client.upgrade(f"/channels/chat?format=json&cursor={ids[0]}") == 101
            assert [said(client).get("id") for _ in range(3)] == [None, ids[1], last]
    finally:
        assert [server.stop() for server in servers] == [0, 0]


# Ends


class InTerminal(Workers):
    """In a process group of its own, as a shell's command is."""

    wrapper = ("setsid",)


def told_of_the_stop(client: Client) -> None:
    assert client.frame() == CLOSED_1012
    client.send(client_frame(*CLOSED_1012))
    assert client.to_end() == b""


def test_all_workers_drain_at_a_stop(tmp_path: Path) -> None:
    server = Workers(tmp_path)
    with ExitStack() as stack:
        clients = server.subscribe(stack, "chat", 20)
        server.process.terminate()
        for client in clients:
            told_of_the_stop(client)
        assert server.process.wait(PATIENCE_S) == 0
        server.stop()
        assert sorted(line.rpartition(" ")[2] for line in server.log if " stopping " in line) == [
            "worker=1",
            "worker=2",
        ]
        assert not any(alive(pid) for pid in server.pids().values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "a group's SIGTERM"])
def test_a_signal_that_all_processes_get_is_one_stop(tmp_path: Path, number: int) -> None:
    server = InTerminal(tmp_path)
    with ExitStack() as stack:
        clients = server.subscribe(stack, "chat", 20)
        os.killpg(server.process.pid, number)
        for client in clients:
            told_of_the_stop(client)
        assert server.process.wait(PATIENCE_S) == 0
        server.stop()


def test_at_a_stop_nobody_is_left_waiting_for_a_worker_that_has_ended(tmp_path: Path) -> None:
    server = Workers(tmp_path)
    with ExitStack() as stack:
        server.subscribe(stack, "chat", 200)
        slow = server.pids()[1]
        os.kill(slow, signal.SIGSTOP)
        try:
            server.process.terminate()
            server.wait_for_log(" worker_ended worker=2 ")
            probes = [stack.enter_context(server.connect()) for _ in range(20)]
            for client in probes:
                client.request("GET", "/healthz")
        finally:
            os.kill(slow, signal.SIGCONT)
        assert [client.response()[0] for client in probes] == [200] * len(probes)
        assert server.process.wait(PATIENCE_S) == 0
    server.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_all_workers_at_once(tmp_path: Path, number: int) -> None:
    server = InTerminal(tmp_path)
    with ExitStack() as stack:
        clients = server.subscribe(stack, "chat", 600)  # one and a half seconds of drain
        pids = server.pids().values()
        os.killpg(server.process.pid, number)
        server.wait_for_log(" stopping .*worker=1")
        server.wait_for_log(" stopping .*worker=2")
        os.killpg(server.process.pid, number)
        assert server.process.wait(PATIENCE_S) == 128 + number
        server.wait_for(lambda: not any(alive(pid) for pid in pids))
        assert sum(b"shutdown" in said_last(client) for client in clients) < len(clients)
    server.stop()


def said_last(client: Client) -> bytes:
    try:
        return client.to_end()
    except ConnectionResetError:
        return client.buffer


def test_workers_drain_when_their_parent_is_killed(tmp_path: Path) -> None:
    server = Workers(tmp_path)
    with ExitStack() as stack:
        clients = server.subscribe(stack, "chat", 20)
        server.process.kill()
        for client in clients:
            told_of_the_stop(client)
        server.wait_for(lambda: not any(alive(pid) for pid in server.pids().values()))
        server.wait_for_log(" WARNING parent_ended worker=1")
    server.stop()


# Workers that end


def test_a_killed_worker_is_replaced_and_the_port_stays_open(workers: Workers) -> None:
    with ExitStack() as stack:
        clients = workers.subscribe(stack, "chat", 40)
        published = workers.metric("pushcompat_publishes_total")
        for number in range(10):
            workers.publish("other", str(number))
        assert workers.metric("pushcompat_publishes_total") == published + 10
        os.kill(workers.pids()[1], signal.SIGKILL)
        for _ in range(20):
            with workers.connect() as client:
                client.poll("chat")
        workers.wait_for_pids(3)
        workers.wait_for_metric("pushcompat_workers", 2)
        assert workers.metric("pushcompat_workers_replaced_total") == 1
        assert workers.metric("pushcompat_publishes_total") == published + 10, "counters do not fall"
        workers.wait_for_log(r" WARNING worker_ended worker=1 pid=\d+ code=-9")
        cut = workers.metric('pushcompat_subscriptions{transport="websocket"}')
        assert 0 < cut < len(clients)


def test_a_worker_that_is_told_to_end_is_replaced_too(workers: Workers) -> None:
    os.kill(workers.pids()[2], signal.SIGTERM)
    workers.wait_for_pids(3)
    workers.wait_for_metric("pushcompat_workers", 2)


def test_another_worker_accepts_for_one_that_cannot_be_started(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("heartbeat = 20\n")
    server = Workers(tmp_path, "--config", str(config))
    try:
        config.write_text("heartbeet = 20\n")
        os.kill(server.pids()[1], signal.SIGKILL)
        server.wait_for_log(" ERROR worker_failed worker=1 detail=.*unknown option 'heartbeet'; did you mean heartbeat")
        for _ in range(20):
            with server.connect() as client:
                client.poll("chat")
        assert server.metric("pushcompat_workers") == 1
        config.write_text("heartbeat = 20\n")
        server.wait_for_metric("pushcompat_workers", 2)
        with ExitStack() as stack:
            server.subscribe(stack, "again", 40)
            for number in (1, 2):
                server.wait_for_log(
                    rf" subscribe channels=again transport=websocket address=127.0.0.1 worker={number}$"
                )
    finally:
        assert server.stop() == 0


def test_a_worker_that_stands_still_hangs_neither_metrics_nor_new_clients(workers: Workers) -> None:
    with ExitStack() as stack:
        workers.subscribe(stack, "chat", 40)
        assert workers.metric('pushcompat_subscriptions{transport="websocket"}') == 40
        pid = workers.pids()[1]
        os.kill(pid, signal.SIGSTOP)
        try:
            probes = [stack.enter_context(workers.connect()) for _ in range(20)]
            for client in probes:
                client.request("GET", "/metrics")
            for client in probes:  # those that are queued for it too, once another worker accepts in its place
                text = client.response()[2].decode()
                assert "pushcompat_workers 2.0\n" in text
                assert "pushcompat_workers_silent 1.0\n" in text
                assert 'pushcompat_subscriptions{transport="websocket"} 40.0\n' in text, "its last known figures"
        finally:
            os.kill(pid, signal.SIGCONT)
        workers.wait_for_metric("pushcompat_workers_silent", 0, 0)


class Impatient(Workers):
    module = "tests.impatient"


def test_a_worker_that_stands_still_for_long_is_killed_and_replaced(tmp_path: Path) -> None:
    server = Impatient(tmp_path)
    try:
        os.kill(server.pids()[1], signal.SIGSTOP)
        server.wait_for_log(r" ERROR worker_stuck worker=1 pid=\d+$")
        server.wait_for_pids(3)
        server.wait_for_metric("pushcompat_workers_replaced_total", 1)
        server.wait_for_metric("pushcompat_workers_silent", 0, 0)
    finally:
        assert server.stop() == 0


def test_a_new_worker_that_never_accepts_is_killed_and_keeps_no_rolling_restart_from_its_end(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.touch()
    server = Impatient(tmp_path, "--config", str(config))
    try:
        before = server.pids()
        config.unlink()
        os.mkfifo(config)  # reading it waits
        os.kill(before[1], signal.SIGKILL)
        server.wait_for_pids(3)
        server.process.send_signal(signal.SIGHUP)
        failed = ' ERROR worker_failed worker={} detail="?the new worker did not accept connections within 3 s'
        server.wait_for_log(failed.format(1))
        server.wait_for_log(failed.format(2) + "; the worker continues unchanged")
        config.unlink()
        config.touch()
        server.wait_for_metric("pushcompat_workers", 2)
        assert alive(before[2])
    finally:
        assert server.stop() == 0


# A rolling restart


class Configured(Workers):
    """How many is in a file."""

    count = ()


def test_sighup_replaces_each_worker_and_takes_up_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("max-connections = 10\n")
    server = Workers(tmp_path, "--config", str(config))
    try:
        before = server.pids()
        assert server.metric("pushcompat_max_connections") == 10
        config.write_text("max-connections = 20\n")
        server.roll()
        after = server.pids()
        assert not set(before.values()) & set(after.values())
        assert server.metric("pushcompat_max_connections") == 20
        assert server.metric("pushcompat_workers_replaced_total") == 0
    finally:
        assert server.stop() == 0
    assert server.complaints() == []


def test_another_number_of_workers_waits_for_a_restart(tmp_path: Path) -> None:
    """It may be another one because the container was given more cores, which must not keep a worker from its start."""
    config = tmp_path / "config.toml"
    config.write_text("workers = 2\n")
    server = Configured(tmp_path, "--config", str(config))
    try:
        config.write_text("workers = 3\n")
        server.roll()
        server.wait_for_log(' WARNING reload detail="--workers 3 takes effect when the server is restarted" worker=1')
        assert server.metric("pushcompat_workers") == 2
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ("heartbeat = 0", "heartbeat in .*: 0 is too small"),
        ("host = '0.0.0.0'", "--host cannot change while the server runs: restart it"),
        ("heartbeat =", "is not valid TOML"),
    ],
)
def test_a_configuration_that_is_wrong_leaves_the_workers_as_they_are(
    tmp_path: Path, changed: str, detail: str
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("")
    server = Workers(tmp_path, "--config", str(config))
    try:
        before = server.pids()
        with ExitStack() as stack:
            clients = server.subscribe(stack, "chat", 20)
            config.write_text(changed)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_log(f" ERROR worker_failed worker=1 detail=.*{detail}.*; the worker continues unchanged")
            assert server.metric('pushcompat_subscriptions{transport="websocket"}') == len(clients)
        assert all(alive(pid) for pid in before.values())
    finally:
        assert server.stop() == 0


def test_a_worker_that_is_replaced_sends_its_subscribers_away_without_a_long_wait(workers: Workers) -> None:
    with ExitStack() as stack:
        clients = workers.subscribe(stack, "chat?format=json", 20)
        workers.process.send_signal(signal.SIGHUP)
        for client in clients:
            assert json.loads(client.frame()[1])["control"] == "open"
            rotate = json.loads(client.frame()[1])
            assert rotate["control"] == "rotate"
            assert 50 <= rotate["retry"] <= 300
            told_of_the_stop(client)
            with workers.connect() as again:
                assert again.upgrade("/channels/chat") == 101


def test_a_worker_that_dies_while_its_successor_starts_is_succeeded_by_it(workers: Workers) -> None:
    before = workers.pids()
    workers.process.send_signal(signal.SIGHUP)
    workers.wait_for_pids(3)
    os.kill(before[1], signal.SIGKILL)
    workers.wait_for_pids(4)  # the other one's successor
    workers.wait_for(lambda: not any(alive(pid) for pid in before.values()))
    workers.wait_for_metric("pushcompat_workers", 2, 2)
    assert workers.metric("pushcompat_workers_replaced_total") == 1


def test_a_stop_in_the_middle_of_a_rolling_restart_ends_all(tmp_path: Path) -> None:
    server = Workers(tmp_path)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_pids(3)
    server.process.terminate()
    assert server.process.wait(PATIENCE_S) == 0
    server.stop()
    assert not any(alive(pid) for _, pid in server.started())
