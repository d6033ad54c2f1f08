"""Fifty threads of an application publish while the server is killed, is away for two seconds, and starts again."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pushcompat.client.failures import Outcome, Response
from pushcompat.client.publisher import Publisher

from ..harness import KEY, PATIENCE_S, Server

THREADS = 50
BEFORE = 2  # publishes of each thread before the server is killed
AFTER = 2  # and after it has started again
# Pauses grow from 0.05 s to 1 s: the last of fifty threads has failed for the fifth time after about two seconds
FAILURES = 5


class Watched(Publisher):
    """A publisher that counts the attempts of each thread that got no response."""

    def __init__(self, url: str, progress: threading.Condition) -> None:
        super().__init__(url, KEY, timeout=10)
        self.failures: Counter[int] = Counter()
        self._progress = progress

    def _try(self, request: bytes, deadline: float) -> Outcome:
        outcome = super()._try(request, deadline)
        if not isinstance(outcome, Response):
            with self._progress:
                self.failures[threading.get_ident()] += 1
                self._progress.notify_all()
        return outcome


class Application:
    """Its threads publish one message after the other, until they have published as many as ``finish`` wants."""

    def __init__(self, url: str) -> None:
        self._progress = threading.Condition()
        self._publisher = Watched(url, self._progress)
        self.published: dict[str, str] = {}  # data: id
        self.errors: list[Exception] = []
        self._counts: Counter[int] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _run(self, thread: int) -> None:
        while not self._stop.is_set():
            data = f"{thread}-{self._counts[thread]}"
            try:
                published = self._publisher.publish("c", data)
            except Exception as error:
                with self._progress:
                    self.errors.append(error)
                    self._progress.notify_all()
                return
            with self._progress:
                self.published[data] = published.id
                self._counts[thread] += 1
                self._progress.notify_all()

    def wait_until_each_has_published(self, more: int) -> None:
        with self._progress:
            before = dict(self._counts)
        self._wait(lambda: all(self._counts[n] >= before.get(n, 0) + more for n in range(THREADS)), "has published")

    def wait_until_each_has_failed(self, times: int) -> None:
        threads = [thread.ident or 0 for thread in self._threads]
        self._wait(lambda: all(self._publisher.failures[ident] >= times for ident in threads), "has failed")

    def _wait(self, reached: Callable[[], bool], what: str) -> None:
        with self._progress:
            done = self._progress.wait_for(lambda: bool(self.errors) or reached(), PATIENCE_S)
        assert self.errors == []
        assert done, f"not every thread {what}"

    def finish(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._publisher.close()


class Follower:
    """Polls, from one cursor to the next."""

    def __init__(self, cursor: str) -> None:
        self._cursor = cursor
        self.messages: list[tuple[str, str]] = []  # id, data

    def read(self, server: Server) -> None:
        """All that is there."""
        with server.connect() as client:
            while True:
                answer = client.poll("c", f"cursor={self._cursor}&wait=0")
                assert "reset" not in answer
                self._cursor = answer["cursor"]
                if not answer["messages"]:
                    return
                self.messages += [(message["id"], message["data"]) for message in answer["messages"]]


def test_a_restart_of_two_seconds_loses_no_publish_of_fifty_threads_and_doubles_none(tmp_path: Path) -> None:
    server = Server(tmp_path, "--history", "100000")
    follower = Follower(server.publish("c", "first")["id"])
    application = Application(server.url)
    try:
        application.wait_until_each_has_published(BEFORE)
        follower.read(server)
        server.stop(signal.SIGKILL)
        application.wait_until_each_has_failed(FAILURES)
        server = Server(tmp_path, "--port", str(server.port), "--history", "100000")
        application.wait_until_each_has_published(AFTER)
        application.finish()
        follower.read(server)
        assert server.stop() == 0
    finally:
        application.finish()
        server.stop()
    ids = [message_id for message_id, _ in follower.messages]
    assert ids == sorted(set(ids))
    assert Counter(data for _, data in follower.messages) == Counter(application.published.keys())
    assert {data: message_id for message_id, data in follower.messages} == application.published
    assert application.errors == []
    assert server.complaints() == []
