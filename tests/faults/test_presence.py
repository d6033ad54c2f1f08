"""Presence over real processes on one log: workers, servers started by hand, some of them killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ..harness import KEY, MS, PATIENCE_S, Client, Server
from ..receiver import SECRET, Received, Receiver
from ..store.engines import running as running_engine
from ..workers import Workers

SUBSCRIBERS, PROCESSES = "pushcompat_subscribers", "pushcompat_presence_processes"


class ShortLeases(Server):
    module = "tests.short_leases"


class ShortLeasedWorkers(Workers):
    module = "tests.short_leases"


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path}/log.sqlite"
        return
    pytest.importorskip("redis")
    with running_engine(tmp_path / "engine") as engine:
        yield engine.url()


@contextmanager
def servers(tmp_path: Path, store: str, *options: str, count: int = 2) -> Iterator[list[Server]]:
    started = [ShortLeases(tmp_path / "state", "--store", store, *options) for _ in range(count)]
    try:
        for server in started:
            server.wait_for_metric(PROCESSES, count)
        yield started
    finally:
        for server in started:
            server.stop()


def subscribe(stack: ExitStack, server: Server, channel: str, client: str = "") -> Client:
    connection = stack.enter_context(server.connect())
    connection.request("GET", f"/channels/{channel}?client={client}", Accept="text/event-stream")
    assert connection.head()[0] == 200
    return connection


def by_webhooks(running: list[Server], sent: int) -> list[Server]:
    """The two servers, first the one that has sent so many webhooks."""
    deadline = threading.Event()
    timer = threading.Timer(PATIENCE_S, deadline.set)
    timer.start()
    try:
        while not (found := [server for server in running if server.metric("pushcompat_webhooks_total") == sent]):
            assert not deadline.wait(20 * MS)
    finally:
        timer.cancel()
    return [*found, *(server for server in running if server not in found)]


def counted(server: Server, channel: str) -> int:
    count: int = server.publish(channel, "x")["channels"][channel]["subscribers"]
    return count


def test_servers_on_one_log_count_together_and_one_that_is_killed_counts_no_more(tmp_path: Path, store: str) -> None:
    with servers(tmp_path, store) as (one, two), ExitStack() as stack:
        subscribe(stack, one, "a", "tab")
        subscribe(stack, two, "a", "other")
        subscribe(stack, two, "a,b")
        for server in (one, two):
            server.wait_for_metric(SUBSCRIBERS, 4, 4)
            assert (counted(server, "a"), counted(server, "b")) == (3, 1)
        subscribe(stack, two, "a", "tab")  # the same client once more
        subscribe(stack, two, "c")
        for server in (one, two):
            server.wait_for_metric(SUBSCRIBERS, 5, 5)
            assert counted(server, "a") == 3
        two.stop(signal.SIGKILL)
        one.wait_for_metric(SUBSCRIBERS, 1, 1)
        assert (counted(one, "a"), counted(one, "b")) == (1, 0)
        assert one.metric(PROCESSES) == 1


def test_workers_count_together_also_when_one_is_killed_and_replaced(tmp_path: Path) -> None:
    server = ShortLeasedWorkers(tmp_path / "state")
    try:
        with ExitStack() as stack:
            for killed in (1, 2):
                server.wait_for_metric(PROCESSES, 2, 2)
                for number in range(20):
                    subscribe(stack, server, "a", f"c{number % 10}")
                # A connection for each: all workers answer
                server.wait_for(lambda: {counted(server, "a") for _ in range(10)} == {10})
                os.kill(server.pids()[killed], signal.SIGKILL)
                server.wait_for_pids(2 + killed)
    finally:
        server.stop()


def test_one_of_all_servers_on_a_log_sends_the_webhook_also_when_it_is_killed(tmp_path: Path, store: str) -> None:
    with Receiver() as receiver, ExitStack() as stack:
        options = ("--presence-webhook", receiver.url, "--presence-secret", SECRET, "--presence-delay", "100ms")
        running = stack.enter_context(servers(tmp_path, store, *options))
        stays = subscribe(stack, running[0], "stays")
        clients = [subscribe(stack, server, "a") for server in running]
        # Of channel a it is told with the first subscriber, or later with both
        assert {told[:2] for told in receiver.told(2)} == {("occupied", "a"), ("occupied", "stays")}
        leader, survivor = by_webhooks(running, 2)
        clients[running.index(survivor)].close()
        leader.stop(signal.SIGKILL)
        vacated = {"a"} if survivor is running[0] else {"a", "stays"}
        told: list[Received] = []
        while {one.channel for one in told if one.kind == "vacated"} != vacated:
            told.append(receiver.next())
        # What the killed one could not say that it had sent may come again, with the same id
        assert len({one.id for one in told if one.kind == "vacated"}) == len(vacated)
        assert len([one for one in told if one.kind == "vacated"]) == len(vacated)
        stays.close()


def test_a_page_that_reloads_makes_no_noise(tmp_path: Path) -> None:
    with Receiver() as receiver, ExitStack() as stack:
        options = ("--presence-webhook", receiver.url, "--presence-secret", SECRET, "--presence-delay", "1s")
        (server,) = stack.enter_context(servers(tmp_path, "memory:", *options, count=1))
        page = subscribe(stack, server, "a")
        assert receiver.told(1) == [("occupied", "a", 1)]
        for _ in range(5):
            page.close()
            server.wait_for_metric('pushcompat_subscriptions{transport="eventsource"}', 0, 0)
            page = subscribe(stack, server, "a")
        subscribe(stack, server, "b")
        assert receiver.told(1) == [("occupied", "b", 1)]
        assert receiver.received.empty()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--presence-webhook", "nonsense", "--presence-secret", SECRET],
            "--presence-webhook 'nonsense': must be a URL",
        ),
        (["--presence-webhook", "http://localhost/"], "needs --presence-secret"),
        (["--presence-webhook", "http://localhost/", "--presence-secret", "x"], "--presence-secret: must be whsec_"),
    ],
)
def test_a_webhook_that_cannot_work_ends_the_start_with_what_to_change(
    tmp_path: Path, options: list[str], says: str
) -> None:
    command = [sys.executable, "-m", "pushcompat", "--port", "0", "--publish-key", KEY, "--state-dir", str(tmp_path)]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 2
    assert says in ended.stderr
