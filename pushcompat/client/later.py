"""Messages that are published later, by one thread, in batches: the caller never waits, and gets no network error.

The queue is bounded. Signals, and messages with the same key, replace the earlier one that is still queued; beyond the
bounds the oldest are dropped, counted, and logged once a minute, as is that messages wait. A batch that was not
acknowledged is repeated with the same Idempotency-Key until it is, so nothing is delivered twice.

The thread starts with the first message in each process: threads do not survive a fork (gunicorn --preload). Where no
thread runs between requests (uWSGI without --enable-threads, frozen functions), call ``flush`` at the end of a request.

Standard library only.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

from .failures import PublishRefused, PublishUnavailable, concerns_a_message
from .posts import Post, Update, batch_item, batch_of

MOST_MESSAGES = 1000
MOST_BYTES = 8 * 1024 * 1024
EXIT_S = 2.0  # to publish what is queued when the process ends, by all its queues together
_BATCH_MESSAGES = 1000
_BATCH_BYTES = 1000 * 1000  # of the server's 1 MiB
_TIMEOUT_S = 10.0  # of an attempt in the thread, where nobody waits
_PAUSE_S = 1.0  # while the server is away
_LOGGED_APART_S = 60.0

log = logging.getLogger("pushcompat.publisher")


class Stats(NamedTuple):
    """Messages since the start of the process. ``queued``: now. ``folded``: replaced by a later one before they were
    sent. ``dropped``: lost.
    """

    queued: int
    sent: int
    folded: int
    dropped: int


class _Batch(NamedTuple):
    post: Post
    idempotency_key: str
    items: list[bytes]


class Later:
    """The queue of one publisher. ``send`` publishes, with an idempotency key and a timeout; it raises PublishError.
    ``on_loss(count, reason)`` is called in the thread for messages that are dropped. It belongs to one process.
    """

    def __init__(self, send: Callable[[Post, str, float], object], on_loss: Callable[[int, str], None]) -> None:
        self._send = send
        self._on_loss = on_loss
        self._lock = threading.RLock()  # a signal's or a log's handler may queue too, in the middle of ``add``
        self._changed = threading.Condition(self._lock)
        self._queue: OrderedDict[object, bytes] = OrderedDict()
        self._bytes = 0
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._sending: _Batch | None = None
        self._lost_since_log = 0
        self._logged_at = -_LOGGED_APART_S
        self._waiting_logged_at = -_LOGGED_APART_S
        self._sent = self._folded = self._dropped = 0

    # The caller's side

    def add(self, update: Update) -> None:
        """Raises ValueError or TypeError for what cannot be sent; nothing else."""
        item = batch_item(update)
        key = update.get("message_key")
        if key is None and update.get("data") in (None, "", b""):
            key = ""  # the signal, which folds with itself
        with self._lock:
            fold: object = next(self._numbers) if key is None else (update["channel"], key)
            replaced = self._queue.pop(fold, None)
            if replaced is not None:
                self._folded += 1
                self._bytes -= len(replaced)
            self._queue[fold] = item
            self._bytes += len(item)
            if len(self._queue) > MOST_MESSAGES or self._bytes > MOST_BYTES:
                self._drop_oldest()
            if self._thread is None:
                self._start()
            elif len(self._queue) == 1:
                self._changed.notify_all()
        deadline = _deadlines.get(os.getpid())
        if deadline is not None:
            self.end(deadline)

    def _drop_oldest(self) -> None:
        while len(self._queue) > MOST_MESSAGES or self._bytes > MOST_BYTES:
            _, item = self._queue.popitem(last=False)
            self._bytes -= len(item)
            self._dropped += 1
            self._lost_since_log += 1

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="pushcompat later", daemon=True)
        _at_exit(self)
        try:
            thread.start()
        except RuntimeError as error:  # too many threads, or the interpreter ends: the next message tries again
            self._report_waiting(error)
        else:
            self._thread = thread

    def flush(self, timeout: float = EXIT_S) -> bool:
        """Waits until everything queued is published. Returns whether it was, within ``timeout`` seconds."""
        with self._lock:
            return self._changed.wait_for(lambda: not (self._queue or self._sending), timeout)

    def end(self, deadline: float) -> None:
        """The process ends, at the latest then."""
        if self.flush(max(0.0, deadline - time.monotonic()) if self._thread else 0.0):
            return
        with self._lock:
            left = len(self._queue) + (len(self._sending.items) if self._sending else 0)
            self._queue.clear()
            self._bytes = 0
            self._sending = None  # it is counted once
            self._logged_at = -_LOGGED_APART_S
        away = "the push server was away" if self._thread else "no thread could be started"
        self._lose(left, f"the process ended, and {away}")

    def stats(self) -> Stats:
        with self._lock:
            return Stats(len(self._queue), self._sent, self._folded, self._dropped)

    # The thread

    def _run(self) -> None:
        while True:
            with self._lock:
                self._changed.wait_for(lambda: self._queue)
                self._sending = self._take()
            self._deliver(self._sending)
            with self._lock:
                self._sending = None
                self._changed.notify_all()
            self._report_loss("the queue was full")

    def _take(self) -> _Batch:
        items: list[bytes] = []
        size = 0
        while self._queue and len(items) < _BATCH_MESSAGES:
            fold, item = next(iter(self._queue.items()))
            if items and size + len(item) > _BATCH_BYTES:
                break
            del self._queue[fold]
            items.append(item)
            size += len(item) + 1
        self._bytes -= sum(map(len, items))
        return _Batch(batch_of(items), os.urandom(16).hex(), items)

    def _deliver(self, batch: _Batch) -> None:
        """Publishes the batch, however long it takes. If the server refuses it, its messages one by one: the others
        are not to be lost with the one that it means.
        """
        while True:
            try:
                self._send(batch.post, batch.idempotency_key, _TIMEOUT_S)
            except PublishUnavailable as error:
                self._report_waiting(error)
                self._report_loss(f"the queue was full: {error}")
                time.sleep(_PAUSE_S)
                continue
            except PublishRefused as refused:
                if len(batch.items) > 1 and concerns_a_message(refused):
                    for item in batch.items:
                        self._deliver(_Batch(batch_of([item]), os.urandom(16).hex(), [item]))
                    return
                self._lose(len(batch.items), str(refused))
            except Exception as error:
                log.exception("a batch of %d messages was dropped", len(batch.items))
                self._lose(len(batch.items), str(error))
            else:
                with self._lock:
                    self._sent += len(batch.items)
            return

    def _lose(self, messages: int, reason: str) -> None:
        with self._lock:
            self._dropped += messages
            self._lost_since_log += messages
        self._report_loss(reason)

    def _report_loss(self, reason: str) -> None:
        with self._lock:
            lost, now = self._lost_since_log, time.monotonic()
            if not lost or now - self._logged_at < _LOGGED_APART_S:
                return
            self._lost_since_log, self._logged_at = 0, now
        log.warning("%d messages were not published: %s", lost, reason)
        try:
            self._on_loss(lost, reason)
        except Exception:
            log.exception("on_loss failed")

    def _report_waiting(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._waiting_logged_at < _LOGGED_APART_S:
            return
        self._waiting_logged_at = now
        sending = self._sending
        log.warning("%d messages wait: %s", len(self._queue) + (len(sending.items) if sending else 0), error)


# The end of a process


_queues: dict[int, list[Later]] = {}  # by process
_deadlines: dict[int, float] = {}  # of a process that ends: one for all its queues


def _at_exit(queue: Later) -> None:
    queues = _queues.setdefault(os.getpid(), [])
    if queue not in queues:
        queues.append(queue)
    atexit.unregister(end_of_process)
    atexit.register(end_of_process)
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        # Its processes end without the exit functions before Python 3.13
        Finalize(None, end_of_process, exitpriority=0)


def end_of_process() -> None:
    pid = os.getpid()
    deadline = _deadlines.setdefault(pid, time.monotonic() + EXIT_S)
    for queue in _queues.get(pid, []):
        queue.end(deadline)
