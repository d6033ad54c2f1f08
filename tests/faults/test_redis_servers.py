"""Two servers that share a log on Redis, as their clients see them while it is away."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ..harness import KEY, MS, PATIENCE_S, Client, Server, running
from ..store import engines
from ..store.engines import Engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with engines.running(tmp_path / "redis", "redis", "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def one(engine: Engine, tmp_path: Path) -> Iterator[Server]:
    yield from running(tmp_path / "one", "--store", engine.url())


@pytest.fixture
def other(engine: Engine, tmp_path: Path) -> Iterator[Server]:
    yield from running(tmp_path / "other", "--store", engine.url())


def ready(server: Server) -> tuple[bool, str]:
    try:
        with urllib.request.urlopen(f"{server.url}/readyz", timeout=PATIENCE_S) as response:
            return True, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return False, error.read().decode()


def until(condition: Callable[[], object]) -> None:
    late = threading.Event()
    timer = threading.Timer(PATIENCE_S, late.set)
    timer.start()
    try:
        while not condition():
            assert not late.wait(20 * MS)
    finally:
        timer.cancel()


def subscribe(server: Server) -> Client:
    client = server.connect()
    client.request("GET", "/channels/c?transport=eventsource&format=json")
    assert client.head()[0] == 200
    return client


def next_data(client: Client) -> dict[str, Any]:
    """The next message, or control other than those that say that all is well."""
    while True:
        event = client.event()
        data: dict[str, Any] = json.loads(event["data"]) if "data" in event else {}
        if data and data.get("control") not in ("open", "ping"):
            return data


def test_a_publish_through_one_server_reaches_subscribers_of_the_other(one: Server, other: Server) -> None:
    with subscribe(other) as subscriber:
        published = one.publish("c", "1")
        message = next_data(subscriber)
        assert (message["id"], message["data"]) == (published["id"], "1")


def test_the_answer_to_a_publish_says_how_many_replicas_have_it(tmp_path: Path) -> None:
    with engines.sentinels(tmp_path) as servers:
        for server in running(tmp_path / "state", "--store", servers.url("wait=1")):
            assert server.publish("c", "1")["replicas"] == 1
            servers.cut_replication()
            assert server.publish("c", "2")["replicas"] == 0


def test_a_server_whose_redis_is_out_of_memory_refuses_publishers_and_is_ready_for_subscribers(
    engine: Engine, one: Server
) -> None:
    one.publish("c", "before")
    engine.ask("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(urllib.error.HTTPError) as refused:
        one.publish("c", "during")
    assert refused.value.code == 507
    refused.value.close()
    assert one.wait_for_log("log_trouble.*out of memory; increase its maxmemory")
    assert ready(one) == (True, "ready\n")
    assert one.metric("pushcompat_log_writable") == 0
    with one.connect() as client:
        assert [message["data"] for message in client.retained("c")] == ["before"]
    engine.ask("CONFIG", "SET", "maxmemory", "0")
    until(lambda: one.metric("pushcompat_log_writable") == 1)
    one.publish("c", "after")


def test_a_log_that_cannot_be_read_ends_the_start_with_what_to_change(engine: Engine, tmp_path: Path) -> None:
    for server in running(tmp_path / "state", "--store", engine.url()):
        server.publish("c", "1")
    engine.ask("DEL", "{pushcompat}:log")
    engine.ask("SET", "{pushcompat}:log", "text")
    command = [sys.executable, "-m", "pushcompat", "--port", "0", "--publish-key", KEY, "--state-dir", str(tmp_path)]
    ended = subprocess.run(
        [*command, "--store", engine.url()], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("pushcompat: the log cannot be loaded: redis://127.0.0.1:")
    assert last.endswith(": another application has written to keys of the log; "
                         "set another prefix with ?prefix= in the URL of --store")  # fmt: skip


def test_while_redis_is_away_subscribers_stay_and_a_publish_waits_and_is_stored_once(
    engine: Engine, one: Server, other: Server
) -> None:
    with subscribe(other) as subscriber, ThreadPoolExecutor() as pool:
        one.publish("c", "before")
        assert next_data(subscriber)["data"] == "before"
        engine.stop(signal.SIGKILL)
        for server in (one, other):
            until(lambda server=server: not ready(server)[0])  # type: ignore[misc]
            assert f"127.0.0.1:{engine.port}" in ready(server)[1]
        publishing = pool.submit(one.publish, "c", "during", Idempotency_Key="k")
        with other.connect() as late:
            assert late.poll("c", "cursor=earliest")["messages"]  # is served from memory
        engine.start()
        first = publishing.result(PATIENCE_S)
        assert other.publish("c", "during", Idempotency_Key="k")["id"] == first["id"]
        assert next_data(subscriber)["control"] == "reset"
        other.publish("c", "after")
        seen = [next_data(subscriber)["data"]]
        while seen[-1] != "after":
            seen.append(next_data(subscriber)["data"])
        assert seen in (["during", "after"], ["after"])  # as it was stored after the reset or before
        for server in (one, other):
            until(lambda server=server: ready(server)[0])  # type: ignore[misc]
        with one.connect() as client:
            assert [m["data"] for m in client.retained("c")] == ["before", "during", "after"]
    assert one.wait_for_log("log_trouble")
    assert one.wait_for_log("log_works")
