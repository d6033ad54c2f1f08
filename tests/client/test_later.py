from __future__ import annotations

import json
import logging
import multiprocessing
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest

from pushcompat import Publisher, PublishRefused, PublishUnavailable
from pushcompat.client import later
from pushcompat.client.later import Later, Stats
from pushcompat.client.posts import Post, Update

from ..harness import KEY, PATIENCE_S, Server


class Sink:
    """What is sent by the thread. It waits while ``gate`` is not set; each send fails with the next of ``failures``."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.keys: list[str] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.failures: list[Exception | None] = []
        self.refused = ""  # channel
        self.lost: list[tuple[int, str]] = []

    def __call__(self, post: Post, idempotency_key: str, timeout: float) -> None:
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        self.keys.append(idempotency_key)
        items = json.loads(post.body)
        failure = self.failures.pop(0) if self.failures else None
        if self.refused and any(item["channel"] == self.refused for item in items):
            failure = PublishRefused("not this one", 403)
        if failure is not None:
            raise failure
        self.batches.append(items)


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.gate.set()


@pytest.fixture
def queue(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> Iterator[Later]:
    """Its thread is sending the message ``first`` and waits for the gate."""
    monkeypatch.setattr(later, "_PAUSE_S", 0.0)
    made = Later(sink, lambda count, reason: sink.lost.append((count, reason)))
    made.add({"channel": "first"})
    assert sink.entered.wait(PATIENCE_S)
    yield made
    sink.gate.set()
    assert made.flush(PATIENCE_S)


def add(queue: Later, *updates: Update) -> None:
    for update in updates:
        queue.add(update)


def test_what_comes_while_a_batch_is_sent_goes_in_the_next_one(queue: Later, sink: Sink) -> None:
    add(queue, {"channel": "a", "data": {"n": 1}}, {"channel": "b", "data": "x", "ttl": 2})
    sink.gate.set()
    assert queue.flush(PATIENCE_S)
    assert sink.batches == [
        [{"channel": "first"}],
        [{"channel": "a", "data": {"n": 1}}, {"channel": "b", "data": "x", "ttl": 2}],
    ]
    assert queue.stats() == Stats(queued=0, sent=3, folded=0, dropped=0)


def test_signals_and_equal_keys_fold_into_the_last_of_them(queue: Later, sink: Sink) -> None:
    add(
        queue,
        {"channel": "a"},
        {"channel": "a", "data": 1, "message_key": "k"},
        {"channel": "a", "data": "plain"},
        {"channel": "a", "data": ""},
        {"channel": "b", "data": 1, "message_key": "k"},
        {"channel": "a", "data": 2, "message_key": "k"},
        {"channel": "a", "data": "plain"},
    )
    sink.gate.set()
    assert queue.flush(PATIENCE_S)
    assert sink.batches[1] == [
        {"channel": "a", "data": "plain"},
        {"channel": "a", "data": ""},
        {"channel": "b", "data": 1, "key": "k"},
        {"channel": "a", "data": 2, "key": "k"},
        {"channel": "a", "data": "plain"},
    ]
    assert queue.stats().folded == 2


def test_beyond_its_bounds_the_oldest_are_dropped_counted_and_logged(
    queue: Later, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(later.MOST_MESSAGES + 5):
        queue.add({"channel": "a", "data": number})
    sink.gate.set()
    assert queue.flush(PATIENCE_S)
    assert [item["data"] for item in sink.batches[1]][:2] == [5, 6]
    assert queue.stats().dropped == 5
    assert sink.lost == [(5, "the queue was full")]
    assert "5 messages were not published: the queue was full" in caplog.text


def test_while_the_server_is_away_it_is_logged_that_messages_wait_and_that_some_are_dropped(
    queue: Later, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    reported = threading.Event()
    queue._on_loss = lambda count, reason: reported.set()
    sink.failures = [PublishUnavailable("cannot reach it")] * 2
    for number in range(later.MOST_MESSAGES + 5):
        queue.add({"channel": "a", "data": number})
    sink.gate.set()
    assert queue.flush(PATIENCE_S)
    assert reported.is_set()
    assert [record.getMessage() for record in caplog.records] == [
        "1001 messages wait: cannot reach it",
        "5 messages were not published: the queue was full: cannot reach it",
    ]


def test_a_thread_that_cannot_be_started_is_nothing_to_the_caller(
    sink: Sink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    queue = Later(sink, lambda count, reason: None)
    sink.gate.set()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        queue.add({"channel": "a"})
    assert "1 messages wait: can't start new thread" in caplog.text
    queue.add({"channel": "b"})
    assert queue.flush(PATIENCE_S)
    assert sink.batches == [[{"channel": "a"}, {"channel": "b"}]]


def test_a_handler_in_the_middle_of_a_call_can_queue_too(sink: Sink) -> None:
    queue = Later(sink, lambda count, reason: None)
    sink.gate.set()

    class Interrupting(OrderedDict[object, bytes]):
        def __setitem__(self, key: object, item: bytes) -> None:
            super().__setitem__(key, item)
            if item == b'{"channel":"a"}':
                queue.add({"channel": "handler"})

    queue._queue = Interrupting()
    thread = threading.Thread(target=queue.add, args=({"channel": "a"},), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert queue.flush(PATIENCE_S)
    assert queue.stats().sent == 2


def test_a_refusal_of_the_key_is_not_tried_with_each_message(queue: Later, sink: Sink) -> None:
    sink.failures = [None, PublishRefused("wrong key", 401)]
    add(queue, {"channel": "a"}, {"channel": "b"})
    sink.gate.set()
    assert queue.flush(PATIENCE_S)
    assert len(sink.keys) == 2
    assert sink.lost == [(2, "wrong key")]


def test_the_bytes_of_the_queue_are_bounded_too(queue: Later, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "MOST_BYTES", 1000)
    monkeypatch.setattr(later, "_BATCH_BYTES", 500)
    for number in range(20):
        queue.add({"channel": "a", "data": f"{number:0100}"})
    sink.gate.set()
    assert queue.flush(PATIENCE_S)
    assert [len(batch) for batch in sink.batches[1:]] == [3, 3, 2]
    assert queue.stats().dropped == 12


def test_a_batch_that_was_not_acknowledged_is_repeated_with_its_key(queue: Later, sink: Sink) -> None:
    sink.failures = [PublishUnavailable("away"), PublishUnavailable("away", fast=True), None]
    sink.gate.set()
    assert queue.flush(PATIENCE_S)
    assert sink.batches == [[{"channel": "first"}]]
    assert len(sink.keys) == 3
    assert len(set(sink.keys)) == 1


def test_a_message_that_is_refused_takes_no_other_with_it(
    queue: Later, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.refused = "forbidden"
    add(queue, {"channel": "a"}, {"channel": "forbidden"}, {"channel": "b"})
    sink.gate.set()
    assert queue.flush(PATIENCE_S)
    assert sink.batches[1:] == [[{"channel": "a"}], [{"channel": "b"}]]
    assert queue.stats()[1:] == (3, 0, 1)
    assert "1 messages were not published: not this one" in caplog.text


def test_an_error_of_the_program_ends_neither_the_thread_nor_the_rest(
    queue: Later, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(count: int, reason: str) -> None:
        raise ZeroDivisionError

    sink.failures = [RuntimeError("a bug")]
    queue._on_loss = fails
    queue.add({"channel": "a"})
    sink.gate.set()
    assert queue.flush(PATIENCE_S)
    assert sink.batches == [[{"channel": "a"}]]
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING, logging.ERROR]


@pytest.mark.parametrize("update", [{"channel": "a b"}, {"channel": "a", "data": object()}])
def test_what_cannot_be_sent_is_the_callers_error(queue: Later, update: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        queue.add(update)
    assert queue.stats().queued == 0


def test_flush_ends_with_its_time(queue: Later) -> None:
    assert not queue.flush(0.0)


# In a process


FORKS = "ignore:This process:DeprecationWarning"  # Python 3.12 and later: (…) is multi-threaded, use of fork() may …


def run(program: str, url: str) -> subprocess.CompletedProcess[str]:
    start = f"from pushcompat import Publisher\npush = Publisher({url!r}, {KEY!r})\n"
    command = [sys.executable, "-W", FORKS, "-c", start + program]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


def retained(server: Server, channel: str) -> list[Any]:
    with server.connect() as client:
        return [message["data"] for message in client.retained(channel)]


def test_what_is_queued_is_published_when_the_process_ends(server: Server) -> None:
    assert run("for n in range(500): push.later('exit', {'n': n})", server.url).stderr == ""
    assert retained(server, "exit")[-1] == {"n": 499}


def test_what_is_lost_at_the_end_is_said(unused_url: str) -> None:
    done = run("import pushcompat.client.later as l; l.EXIT_S = 0.2\npush.later('exit')", unused_url)
    assert done.returncode == 0
    assert "1 messages were not published: the process ended" in done.stderr


def test_all_queues_share_the_time_at_the_end_of_a_process(unused_url: str) -> None:
    program = f"""
import pushcompat.client.later as l
l.EXIT_S = 0.2
end = l.Later.end
l.Later.end = lambda queue, deadline: (print(deadline), end(queue, deadline))
for number in range(4):
    Publisher("{unused_url}", "k").later("exit", number)
"""
    done = run(program, unused_url)
    assert len(set(done.stdout.split())) == 1
    assert done.stderr.count("1 messages were not published: the process ended") == 4


def test_a_forked_process_that_has_a_queue_too_ends_in_the_same_time(unused_url: str) -> None:
    program = """
import os, sys
import pushcompat.client.later as l
l.EXIT_S = 0.2
push.later("exit")
if not os.fork():
    push.later("exit")
    sys.exit()  # with the exit functions of the parent
os.wait()
"""
    assert run(program, unused_url).stderr.count("1 messages were not published: the process ended") == 2


@pytest.mark.parametrize("queued", [True, False])
def test_what_another_exit_function_publishes_is_published(queued: bool, server: Server) -> None:
    first = "push.later('exit', 'first')" if queued else ""
    program = f"import atexit\natexit.register(lambda: push.later('exit', 'last'))\n{first}"
    done = run(program, server.url)
    if "1 messages were not published: the process ended, and no thread could be started" in done.stderr:
        assert sys.version_info[:2] == (3, 12)  # it starts no thread in an exit function
        return
    assert done.stderr == ""
    assert retained(server, "exit")[-1] == "last"


@pytest.mark.filterwarnings(FORKS)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_multiprocessing_publishes_what_it_has_queued(method: str, server: Server) -> None:
    process = multiprocessing.get_context(method).Process(target=queue_and_end, args=(server.url,))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    assert retained(server, "pool") == [{"n": 99}]


def queue_and_end(url: str) -> None:
    push = Publisher(url, KEY)
    for number in range(100):
        push.later("pool", {"n": number}, message_key="n")


@pytest.fixture
def unused_url() -> str:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_thread_that_did_not_survive_the_fork_is_started_again(server: Server) -> None:
    program = """
import os
push.later("fork", "parent")
assert push.flush(10)
pid = os.fork()
push.later("fork", "child" if not pid else "parent again")
assert push.flush(10)
assert push.stats().sent == (1 if not pid else 2), push.stats()
if not pid:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    done = run(program, server.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(retained(server, "fork")) == ["child", "parent", "parent again"]


def test_threads_that_are_the_first_in_a_process_share_its_queue(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=PATIENCE_S)

    class Slow(Later):
        def __init__(self, *given: Any) -> None:
            both.wait()
            super().__init__(*given)

    monkeypatch.setattr(later, "Later", Slow)
    push = Publisher(server.url, KEY)
    threads = [threading.Thread(target=push.later, args=("crowd", name)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert push.flush(PATIENCE_S)
    assert push.stats().sent == 2
    push.close()


def test_a_batch_is_one_publish_at_the_end_of_its_block(server: Server) -> None:
    push = Publisher(server.url, KEY)
    with push.batch() as b:
        b("block", "x")
        b(["block", "other"], {"n": 1}, message_key="k")
    assert retained(server, "block") == ["x", {"n": 1}]
    assert retained(server, "other") == [{"n": 1}]
    assert b.published.channels == {"block": 0, "other": 0}  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError), push.batch() as b:
        b("block", 1 / 0)
    with push.batch():
        pass
    assert retained(server, "block") == ["x", {"n": 1}]
    push.close()
