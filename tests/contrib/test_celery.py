from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pushcompat import Publisher
from pushcompat.contrib import celery as contrib
from pushcompat.contrib.celery import Progress, outbox
from pushcompat.contrib.messages import Message

from ..harness import KEY, PATIENCE_S, Server, running, sequence
from ..test_examples import free_port


def task(id: str = "t1", retries: int = 0) -> Any:
    return SimpleNamespace(request=SimpleNamespace(id=id, retries=retries))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its item is the time."""
    now = [100.0]
    monkeypatch.setattr(contrib, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_progress_is_throttled_and_keyed_and_expires(clock: list[float]) -> None:
    progress = Progress(task(), per_second=4, ttl=60)
    for done in range(10):
        progress(done, 10, file="a.csv")
        clock[0] += 0.125
    progress.end({"url": "/exports/7"})
    assert [message.data for message in outbox] == [
        *({"done": done, "total": 10, "file": "a.csv"} for done in (0, 2, 4, 6, 8)),
        {"url": "/exports/7"},
    ]
    assert outbox[0]._replace(data=None) == Message("task.t1", None, "t1", "progress", 60)
    assert outbox[-1]._replace(data=None) == Message("task.t1", None, "t1", "end", 60)


@pytest.fixture
def outside_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrib, "is_test", lambda: False)


@pytest.mark.usefixtures("outside_of_tests")
def test_a_task_that_the_broker_delivers_again_ends_once(server: Server) -> None:
    with server.connect() as client:
        for attempt in (0, 0, 1):
            progress = Progress(task(retries=attempt), "export", publisher=Publisher(server.url, KEY))
            progress(1, 1)
            progress.end(f"attempt {attempt}")
        messages = client.poll("export", "cursor=earliest")["messages"]
    assert [message["data"] for message in messages] == ["attempt 1"]  # the others are replaced: they have its key
    assert sequence(messages[0]["id"]) == 5  # the second end was none


@pytest.mark.usefixtures("outside_of_tests")
@pytest.mark.parametrize("has_begun", [False, True])
def test_the_end_is_published_when_a_server_that_was_away_is_back(
    has_begun: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(contrib, "END_S", 0.1)
    port = free_port()
    progress = Progress(task(), "export", publisher=Publisher(f"http://127.0.0.1:{port}", KEY))
    if has_begun:
        progress(1, 1)
    progress.end("done")
    for server in running(tmp_path / "state", "--port", str(port)):
        with server.connect() as subscriber:
            subscriber.request("GET", "/channels/export?cursor=earliest", Accept="text/event-stream")
            assert subscriber.head()[0] == 200
            while subscriber.event().get("data") != "done":
                pass


@pytest.mark.usefixtures("outside_of_tests")
def test_an_end_that_is_refused_fails_no_task(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    Progress(task(), publisher=Publisher(server.url, "k" * 32)).end()
    assert "the end of task t1 was refused" in caplog.text


@pytest.fixture
def environment(server: Server, tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "broker"
    (folder / "control").mkdir(parents=True)
    given = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return given | {
        "PUSHCOMPAT_URL": server.url, "PUSHCOMPAT_PUBLISH_KEY": KEY, "CELERY_FOLDER": str(folder),
        "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(Path(__file__).parent.parent.parent),
    }  # fmt: skip


@pytest.fixture
def worker(environment: dict[str, str], tmp_path: Path) -> Iterator[None]:
    """A worker with a process that is replaced after each task."""
    command = ["celery", "-A", "tests.contrib.celery_tasks", "worker", "--pool", "prefork", "--concurrency", "1"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, cwd=tmp_path, stdout=log, stderr=log
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def call(environment: dict[str, str], expression: str) -> None:
    program = f"from tests.contrib.celery_tasks import *; {expression}"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=3 * PATIENCE_S)


@pytest.mark.usefixtures("worker")
def test_a_worker_tells_a_page_how_far_it_is(server: Server, environment: dict[str, str]) -> None:
    with server.connect() as subscriber:
        subscriber.socket.settimeout(3 * PATIENCE_S)  # a worker takes seconds to start
        assert subscriber.upgrade("/channels/task.abc") == 101
        call(environment, "count.apply_async([1000], task_id='abc')")
        first, last = subscriber.frame()[1], b""
        assert first == b'{"done":1,"total":1000}'
        while b"url" not in last:
            last = subscriber.frame()[1]
        assert last == b'{"url":"/exports/7"}'


@pytest.mark.usefixtures("worker")
def test_what_is_queued_is_published_before_a_process_of_a_worker_ends(
    server: Server, environment: dict[str, str]
) -> None:
    with server.connect() as subscriber:
        subscriber.socket.settimeout(3 * PATIENCE_S)
        assert subscriber.upgrade("/channels/left") == 101
        call(environment, "leave.delay()")
        assert subscriber.frame()[1] == b"behind"
