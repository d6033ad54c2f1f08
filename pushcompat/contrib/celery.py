"""How far a Celery task is, for the page that waits for it.

@app.task(bind=True)
def export(self, rows):
    progress = Progress(self)  # on channel task.ID
    for number, row in enumerate(rows, 1):
        write(row)
        progress(number, len(rows))
    progress.end({"url": "/exports/7"})
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.signals import worker_process_shutdown

from ..client.failures import PublishRefused, PublishUnavailable
from ..client.publisher import Publisher, default_publisher
from .messages import Message, messages
from .recorder import Recorder, is_test, pytest_test

PER_SECOND = 4.0  # what a progress bar can show
TTL_S = 3600.0
END_S = 10.0  # a worker can wait longer than a page

log = logging.getLogger("pushcompat.contrib")
outbox = Recorder(pytest_test)  # what was published in tests


class Progress:
    """``channel``: by default ``task.`` and the task's id. ``publisher``: by default that of ``publish``.

    The task's id is the message key: whoever connects later gets the last message only. ``ttl``: seconds after which it
    is dropped. At most ``per_second`` messages are published, by a thread: a task never waits for them.
    """

    def __init__(
        self,
        task: Any,
        channel: str | None = None,
        *,
        publisher: Publisher | None = None,
        per_second: float = PER_SECOND,
        ttl: float = TTL_S,
    ) -> None:
        self._id = str(task.request.id)
        self._attempt = f"{self._id}-{task.request.retries}"
        self.channel = channel or f"task.{self._id}"
        self._given = publisher
        self._pause_s = 1 / per_second
        self._ttl = ttl
        self._next_at = 0.0

    def __call__(self, done: float, total: float | None = None, **more: object) -> None:
        """Publishes ``{"done": done, "total": total, …}`` of type ``progress``, unless it was just done."""
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + self._pause_s
        (message,) = self._messages("progress", {"done": done, "total": total, **more})
        if is_test():
            outbox.record([message])
        else:
            self._publisher.later(**message._asdict())

    def end(self, data: object = None) -> None:
        """Publishes ``data`` of type ``end``: once, also if the broker delivers the task again, because the idempotency
        key is the task's id and the number of its retry. It waits for up to ten seconds; then the thread goes on.
        """
        (message,) = self._messages("end", data)
        if is_test():
            outbox.record([message])
            return
        deadline = time.monotonic() + END_S
        is_done = self._publisher.flush(END_S)  # the last progress must not arrive after the end
        if not (is_done and self._publish_end(message, deadline - time.monotonic())):
            self._publisher.later(**message._asdict())  # it has the key of the progress that waits, and replaces it

    def _publish_end(self, message: Message, timeout_s: float) -> bool:
        """Whether nothing more can be done."""
        try:
            self._publisher.publish(**message._asdict(), idempotency_key=f"{self._attempt}-end", timeout=timeout_s)
        except PublishUnavailable:
            return False
        except PublishRefused as error:
            log.error("the end of task %s was refused: %s", self._id, error)
        return True

    def _messages(self, type: str, data: object) -> list[Message]:
        return messages(self.channel, data, message_key=self._id, type=type, ttl=self._ttl)

    @property
    def _publisher(self) -> Publisher:
        return self._given or default_publisher()


def flush_at_worker_end(flush: Callable[[], object]) -> None:
    """Publishes what is queued before a process of a worker ends: it ends without Python's exit functions."""

    def run(**_: object) -> None:
        flush()

    worker_process_shutdown.connect(run, weak=False, dispatch_uid=f"pushcompat-{id(flush)}")


def _flush_default() -> None:
    default_publisher().flush()


flush_at_worker_end(_flush_default)
